"""A thousand tenants: time to make one until its API answers, and what an idle one costs in memory."""

from __future__ import annotations

import asyncio
import time

from bench.daemon import Server, resident
from bench.report import Result, median
from polder.api.meta import ObjectMeta
from polder.api.polder import Tenant
from polder.base.ids import ROOT
from polder.client.client import Client

TITLE = "Tenants"
COUNT = 1000
READY_GOAL, MEMORY_GOAL = 100.0, 200.0


async def _make(client: Client, number: int) -> float:
    """Seconds from the request until the tenant's own namespace answers."""
    name = f"tenant-{number}"
    begun = time.monotonic()
    await client.create(ROOT, Tenant(api_version="polder.dev/v1alpha1", kind="Tenant", metadata=ObjectMeta(name=name)))
    await client.raw("GET", f"/tenants/{name}/api/v1/namespaces/default")
    return time.monotonic() - begun


async def _measure(server: Server) -> tuple[list[float], float]:
    server.start()
    client = await server.ready()
    for number in range(20):
        await _make(client, 10_000 + number)  # what is built once, at the first use, is no tenant's cost
    await asyncio.sleep(3)
    assert server.process is not None
    before = resident(server.process.pid)
    times = [await _make(client, number) for number in range(COUNT)]
    await asyncio.sleep(10)
    after = resident(server.process.pid)
    await client.close()
    server.stop()
    return times, (after - before) / COUNT / 1000


def results() -> list[Result]:
    server = Server.prepare()
    try:
        times, memory = asyncio.run(_measure(server))
    finally:
        server.remove()
    middle, late = median(times) * 1000, sorted(times)[int(COUNT * 0.99)] * 1000
    return [
        Result(
            f"a tenant's API ready, median of {COUNT}",
            f"{middle:.1f} ms",
            f"≤ {READY_GOAL:.0f} ms",
            middle <= READY_GOAL,
        ),
        Result("the same, 99th percentile", f"{late:.1f} ms", f"≤ {READY_GOAL:.0f} ms", late <= READY_GOAL),
        Result(
            "server's memory for an idle tenant", f"{memory:.0f} KB", f"≤ {MEMORY_GOAL:.0f} KB", memory <= MEMORY_GOAL
        ),
    ]
