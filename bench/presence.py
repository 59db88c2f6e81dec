"""Many tenants on one node, and a tenant with many networks: what one more costs, in the real kernel."""

from __future__ import annotations

import asyncio
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.report import Result, median, ratio_interval
from tests.system.presence import presence

TITLE = "Two hundred tenants on a node, fifty networks in a tenant"
NOTES = """\
One node's pipeline, from API objects to the kernel. Each tenant has a router, a network of both families and a pod; the
namespaces of the pods are made beforehand. A look is what the agent does every two minutes: all of it is
read and compared."""

TENANTS, NETWORKS, EDGE = 200, 50, 20
GOAL = 1.5


@dataclass
class Taken:
    """Seconds for each arrival, items of each, seconds of a look, MB that all of it added to the process."""

    times: list[float]
    items: list[int]
    look: float
    memory: float


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def _tenants(folder: Path) -> Taken:
    async with presence(folder) as place:
        times, items, before = [], [], _memory()
        for number in range(TENANTS):
            place.counting.applied = []
            times.append(await place.tenant(number))
            items.append(sum(place.counting.applied))
        began = time.perf_counter()
        assert not (await place.pipeline.inspect()).missing
        return Taken(times, items, time.perf_counter() - began, _memory() - before)


async def _networks(folder: Path) -> Taken:
    async with presence(folder) as place:
        before = _memory()
        times, items = [await place.tenant(0)], []
        for number in range(1, NETWORKS):
            place.counting.applied = []
            times.append(await place.network("t0", number))
            items.append(sum(place.counting.applied))
        began = time.perf_counter()
        assert not (await place.pipeline.inspect()).missing
        return Taken(times[1:], items, time.perf_counter() - began, _memory() - before)


def _rows(what: str, taken: Taken) -> list[Result]:
    first, last = taken.times[:EDGE], taken.times[-EDGE:]
    middle, low, high = ratio_interval(last, first)
    return [
        Result(
            f"{what}: the first {EDGE} and the last {EDGE} of {len(taken.times)}",
            f"{1000 * median(first):.0f}, {1000 * median(last):.0f} ms; {taken.items[0]}, {taken.items[-1]} items each",
        ),
        Result(
            f"{what}: the last against the first",
            f"ratio {middle:.2f} ({low:.2f} to {high:.2f}, n={EDGE})",
            f"≤ {GOAL}",
            middle <= GOAL,
        ),
        Result(f"{what}: all of them", f"a look {taken.look:.1f} s; {taken.memory:.0f} MB more in the process"),
    ]


def results() -> list[Result]:
    rows = []
    for what, measured in (("a tenant arrives", _tenants), ("a network is added", _networks)):
        folder = Path(tempfile.mkdtemp(prefix="polder-bench-"))
        try:
            rows += _rows(what, asyncio.run(measured(folder)))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return rows
