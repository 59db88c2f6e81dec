"""Many pods on two nodes: all Running, then all gone, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.daemon import resident
from bench.report import Result, median
from bench.whole import Whole, encoded, pod, running
from polder.api.meta import ObjectMeta
from polder.api.polder import Tenant
from polder.base.ids import ROOT
from polder.client.client import Client
from polder.system.cri import CriClient
from polder.system.cri_types import RuntimeFailureError

PODS = int(os.environ.get("BENCH_PODS", "500"))
TENANT = "acme"
WITHIN = 420.0
TITLE = f"{PODS} pods on two nodes"
NOTES = """\
Each node has an agent and a containerd of its own; all of them and the server share this machine. The pods run a program that
waits, have the usual token, and are made and deleted 32 requests at a time, each by itself. Times are seen by a
watch. *Requests* are those of all components and the bench, by the server's own count, watches left out, from the
first pod's creation until the last one is gone. *Left* is what nodes and API have more than before the first pod."""


@dataclass
class Seen:
    """When each pod was first seen Running, and when it went."""

    client: Client
    running: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)

    async def follow(self) -> None:
        path = f"{_pods()}?watch=true&resourceVersion=0&timeoutSeconds=3600"
        async for line in self.client.lines(path):
            event, now = msgspec.json.decode(line), time.monotonic()
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                self.gone[name] = now
            elif event["object"].get("status", {}).get("phase") == "Running":
                self.running.setdefault(name, now)


def _pods() -> str:
    return f"/tenants/{TENANT}/api/v1/namespaces/default/pods"


def _worked(pid: int) -> float:
    """Seconds of processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _machine() -> float:
    """Seconds of processor time that all have had, the kernel included."""
    user, nice, system, _idle, _waits, hard, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + hard + soft) / os.sysconf("SC_CLK_TCK")


async def _until(check: Callable[[], bool], what: Callable[[], str]) -> None:
    end = time.monotonic() + WITHIN
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(what())
        await asyncio.sleep(0.05)


def _on_machine(whole: Whole) -> Counter[str]:
    """What nodes have of files, links, groups, mounts and processes."""
    found: Counter[str] = Counter()
    state = str(whole.cluster.state)
    for node in whole.cluster.all_nodes():
        inside = ["nsenter", f"--net={node.netns}", "ip", "-o", "link"]
        found["links"] += len(subprocess.run(inside, capture_output=True, check=True).stdout.splitlines())
        for name in ("pods", "logs", "journal", "netns", "containerd/state/io.containerd.grpc.v1.cri/netns"):
            found[f"files in {name}"] += sum(1 for _ in (node.folder / name).glob("*"))
        tasks = node.folder / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
        found["tasks"] += sum(1 for _ in tasks.glob("*"))
    groups = {str(g.relative_to(t)) for t in _hierarchies() for g in (t / whole.cluster.name).glob("**/pod*")}
    found["control groups"] = len(groups)
    found["mounts"] = sum(state in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
    shims = subprocess.run(["pgrep", "-fc", f"containerd-shim.*{state}"], capture_output=True, text=True, check=False)
    found["shims"] = int(shims.stdout or 0)
    return found


async def _count(whole: Whole, client: Client) -> dict[str, int]:
    """What there is of everything that a pod takes, on all nodes and in the API."""
    found = await asyncio.to_thread(_on_machine, whole)
    for node in whole.cluster.all_nodes():
        cri = CriClient(node.folder / "containerd" / "sock")
        found["sandboxes"] += len(await cri.list_sandboxes())
        found["containers"] += len(await cri.list_containers())
        await cri.close()
    own = "apis/polder.dev/v1alpha1"
    for kind, path in (("pods", "api/v1/pods"), ("ports", f"{own}/ports"), ("addresses", f"{own}/addresses")):
        listed = await client.raw("GET", f"/tenants/{TENANT}/{path}")
        found[f"{kind} in the API"] = len(json.loads(listed)["items"])
    return dict(found)


def _hierarchies() -> Iterable[Path]:
    root = Path("/sys/fs/cgroup")
    return [root, *(one for one in root.iterdir() if one.is_dir())]


async def _calls(client: Client) -> Counter[tuple[str, str]]:
    """Requests that the server has answered, by verb and resource, without watches."""
    found: Counter[tuple[str, str]] = Counter()
    for line in (await client.raw("GET", "/metrics")).decode().splitlines():
        if not line.startswith("apiserver_request_total{"):
            continue
        labels, _, value = line.removeprefix("apiserver_request_total{").rpartition("} ")
        named = dict(part.split("=", 1) for part in labels.replace('"', "").split(",") if "=" in part)
        if named["verb"] != "watch":
            found[named["verb"], named["resource"]] += int(float(value))
    return found


@dataclass
class Outcome:
    """All that was measured; memory in MB by who and when."""

    started: float = 0.0
    ended: float = 0.0
    starts: list[float] = field(default_factory=list)
    memory: dict[str, list[float]] = field(default_factory=dict)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: dict[str, int] = field(default_factory=dict)
    worked: list[dict[str, float]] = field(default_factory=list)
    """Seconds of processor time so far, by who, when each step began or ended."""

    def note(self, whole: Whole) -> None:
        agents = [resident(whole.pid(node.folder)) / 1e6 for node in whole.cluster.all_nodes()]
        self.memory.setdefault("agent", []).append(max(agents))
        server = whole.pid(whole.cluster.server_folder)
        self.memory.setdefault("server", []).append(resident(server) / 1e6)
        own = sum(_worked(whole.pid(node.folder)) for node in whole.cluster.all_nodes())
        self.worked.append({"server": _worked(server), "agents": own, "machine": _machine()})

    def shares(self, step: int) -> str:
        """Milliseconds of processor time for each pod in one step."""
        before, after = self.worked[step : step + 2]
        return ", ".join(f"{who} {(after[who] - before[who]) / PODS * 1000:.0f}" for who in after)


async def _each(work: Callable[[str], Awaitable[object]]) -> None:
    """Does it for every pod, by name, 32 at a time."""
    numbers = iter(range(PODS))

    async def worker() -> None:
        for number in numbers:
            await work(f"p-{number}")

    await asyncio.gather(*(worker() for _ in range(32)))


async def _settled(whole: Whole, client: Client, before: dict[str, int]) -> dict[str, int]:
    """What is more than before, a minute later if it must be: what is let go in the background takes its time."""
    end = time.monotonic() + 60
    while True:
        try:
            now = await _count(whole, client)
        except RuntimeFailureError:  # one that is busy may not answer at once
            if time.monotonic() > end:
                raise
            continue
        left = {what: count - before[what] for what, count in now.items() if count > before[what]}
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(1)


async def _run(whole: Whole, client: Client) -> Outcome:
    outcome, seen, begun = Outcome(), Seen(client), dict[str, float]()
    follows = asyncio.create_task(seen.follow())
    try:
        # One that comes and goes first: what a tenant has on a node once is no pod's.
        for number in range(8):
            await client.raw("POST", _pods(), encoded(pod(f"first-{number}")))
        await _until(lambda: len(seen.running) == 8, lambda: "the first pods do not run")
        await client.raw("DELETE", _pods())
        await _until(lambda: len(seen.gone) == 8, lambda: "the first pods do not go")
        await asyncio.sleep(5)
        before, calls = await _count(whole, client), await _calls(client)
        outcome.note(whole)
        at = time.monotonic()

        def create(name: str) -> Awaitable[bytes]:
            begun[name] = time.monotonic()
            return client.raw("POST", _pods(), encoded(pod(name)))

        await _each(create)
        await _until(lambda: len(seen.running) == PODS + 8, lambda: f"{len(seen.running) - 8} of {PODS} run")
        outcome.started = max(seen.running.values()) - at
        outcome.starts = [seen.running[name] - began for name, began in begun.items()]
        await asyncio.sleep(2)
        outcome.note(whole)
        at = time.monotonic()
        await _each(lambda name: client.raw("DELETE", f"{_pods()}/{name}"))
        await _until(lambda: len(seen.gone) == PODS + 8, lambda: f"{len(seen.gone) - 8} of {PODS} are gone")
        outcome.ended = max(seen.gone.values()) - at
        outcome.calls = await _calls(client) - calls
        outcome.note(whole)
        outcome.left = await _settled(whole, client, before)
        outcome.memory["agent"].pop()
        outcome.memory["server"].pop()
        outcome.note(whole)
        return outcome
    finally:
        follows.cancel()


async def _measure(whole: Whole) -> Outcome:
    client = whole.client()
    tenant: Any = Tenant(api_version="polder.dev/v1alpha1", kind="Tenant", metadata=ObjectMeta(name=TENANT))
    try:
        await client.create(ROOT, tenant)
        return await _run(whole, client)
    finally:
        await client.close()


def results() -> list[Result]:
    with running(2, max_pods=PODS) as whole:
        outcome = asyncio.run(_measure(whole))
    each = sum(outcome.calls.values()) / PODS
    most = ", ".join(
        f"{verb} {what or 'what is not there'} {n / PODS:.1f}" for (verb, what), n in outcome.calls.most_common(9)
    )
    left = ", ".join(f"{count} {what}" for what, count in sorted(outcome.left.items()))
    late = sorted(outcome.starts)[int(len(outcome.starts) * 0.99)]
    agent, server = ([f"{one:.0f}" for one in outcome.memory[who]] for who in ("agent", "server"))
    return [
        Result("all Running", f"{outcome.started:.1f} s, {outcome.started / PODS * 1000:.0f} ms for each pod"),
        Result("from a pod's creation to Running, median / 99 of 100", f"{median(outcome.starts):.1f} / {late:.1f} s"),
        Result("all gone", f"{outcome.ended:.1f} s, {outcome.ended / PODS * 1000:.0f} ms for each pod"),
        Result("processor time for a pod's start", f"{outcome.shares(0)} ms"),
        Result("processor time for a pod's end", f"{outcome.shares(1)} ms"),
        Result("an agent's memory: before, with its pods, after", f"{', '.join(agent)} MB"),
        Result("the server's memory: before, with the pods, after", f"{', '.join(server)} MB"),
        Result("requests for each pod, its whole life", f"{each:.1f}: {most}"),
        Result("left on nodes and in the API", left or "nothing", "nothing", not outcome.left),
    ]
