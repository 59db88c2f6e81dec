"""A thousand policies on a thousand pods: how soon one change is in the kernel of a node, and what a connection pays for them."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Result, median, ratio_interval
from polder.api.meta import Object
from polder.sdn.pipeline import Pipeline
from polder.sdn.saved import SavedTopology
from tests.system.lab import Host, Lab
from tests.unit.sdn.policy_crowd import Change, Crowd, Watched

TITLE = "Policies: a thousand on a thousand pods"
NOTES = """\
One node's pipeline with all pods and policies of a tenant, half of the pods on this node; each policy isolates ten pods and lets
ten others in, and each pod has ten policies. A change is timed from the object's arrival until the kernel has it. *Others wait*
is the longest time that another task of the process had no turn meanwhile. Connections go between two pods of the node; the
tenant beside has ten policies, and the two are taken in turn."""
SIZE, FEW, TIMES, ROUNDS, CONNECTIONS = 1000, 10, 15, 41, 200
GOAL = 500.0
TURN = 0.0005
"""Seconds that somebody else sleeps between turns."""
FLAT = 1.1


class Others:
    """Another task of the process, which would like a turn all the time. ``waited``: the longest that it had none, in seconds."""

    def __init__(self) -> None:
        self.waited = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TURN)
            self.waited = max(self.waited, time.perf_counter() - began - TURN)


Changes = dict[str, tuple[list[Change], float]]


async def _changes(crowd: Crowd) -> Changes:
    """Each kind of change some times, and the longest that others waited."""
    kinds: dict[str, Callable[[int], tuple[Object, bool]]] = {
        "a policy's rules change": lambda n: (crowd.policy(n * 7, port=81 + n), False),
        "a new policy": lambda n: (crowd.policy(SIZE + n * 11), False),
        "a policy goes": lambda n: (crowd.policy(SIZE + n * 11), True),
        "a pod of this node gets other labels": lambda n: (
            crowd.pod(2 * n, {"app": f"a{n + 50}", "tier": "db"}),
            False,
        ),
        "a policy for all pods": lambda n: (crowd.policy(2 * SIZE + n, podSelector={}), False),
        "a policy for all pods goes": lambda n: (crowd.policy(2 * SIZE + n, podSelector={}), True),
    }
    found: Changes = {}
    for what, make in kinds.items():
        others = Others()
        task = asyncio.create_task(others.run())
        found[what] = [await crowd.change(*make(number)) for number in range(TIMES)], others.waited
        task.cancel()
    return found


async def _pair(crowd: Crowd, folder: Path) -> tuple[Host, Host]:
    """Pods 0 and 2, of which the first lets the second in, in namespaces of their own."""
    pods = []
    for number, labels in ((0, {"app": "a0", "tier": "db"}), (2, {"app": "a1", "tier": "db"})):
        name = f"{crowd.tenant}.p{number}"
        pods.append(Host(name, folder / "pods" / name))
        crowd.put(crowd.pod(number, labels, name, str(pods[-1].path)))
    crowd.put(crowd.policy(0, port=8080))
    await crowd.settle()
    return pods[0], pods[1]


def _connect(client: Host) -> float:
    """Seconds for a number of connections."""
    began = time.perf_counter()
    for _ in range(CONNECTIONS):
        assert client.tcp("10.0.0.2"), "the policy lets it in"
    return time.perf_counter() - began


async def _measure(folder: Path) -> list[Result]:
    lab = Lab(folder, 1)
    hosts: list[Host] = []
    task: asyncio.Task[None] | None = None
    try:
        lab.start()
        machine = lab.nodes["n1"]
        watched = Watched(machine.kernel)
        pipeline = Pipeline(watched, machine.facts, SavedTopology(folder / "topology"))
        task = asyncio.create_task(pipeline.run())
        crowd, few = (Crowd(pipeline, watched, SIZE, tenant, n) for n, tenant in ((1, "acme"), (2, "globex")))
        filled = await crowd.fill()
        await few.fill(policies=FEW)
        found = [Result("all of it at once", f"{filled.seconds:.1f} s, {filled.items:,} items")]
        found += [_told(what, *changes) for what, changes in (await _changes(crowd)).items()]
        pairs = [await _pair(one, folder) for one in (crowd, few)]
        hosts += [host for pair in pairs for host in pair]
        found.append(await asyncio.to_thread(_connections, pairs))
        return found
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for host in hosts:
            host.close()
        await lab.close()


def _connections(pairs: list[tuple[Host, Host]]) -> Result:
    with pairs[0][0].tcp_server(), pairs[1][0].tcp_server():
        rows = [[_connect(pair[1]) for pair in pairs] for _ in range(ROUNDS)]
    ratio, low, high = ratio_interval([row[0] for row in rows], [row[1] for row in rows])
    each = median([row[0] for row in rows]) / CONNECTIONS * 1e6
    return Result(
        f"a connection beside {SIZE:,} policies, against one beside {FEW}",
        f"{each:.0f} µs, ratio {ratio:.2f} ({low:.2f} to {high:.2f})",
        f"≤ {FLAT}",
        high <= FLAT,
    )


def _told(what: str, changes: list[Change], waited: float) -> Result:
    times = sorted(one.seconds * 1000 for one in changes)
    items = sorted(one.items for one in changes)
    pace = f"{median(times):.0f} ms, at most {times[-1]:.0f} ms"
    return Result(
        what,
        f"{pace}; {items[0]} to {items[-1]} items; others wait {waited * 1000:.0f} ms",
        f"< {GOAL:.0f} ms",
        times[-1] < GOAL,
    )


def results() -> list[Result]:
    folder = Path(tempfile.mkdtemp(prefix="polder-bench-"))
    try:
        return asyncio.run(_measure(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
