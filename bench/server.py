"""The server: time from its start to readiness, and memory at rest."""

from __future__ import annotations

import asyncio
import time

from bench.daemon import Server, resident_kib
from bench.report import Result, median

TITLE = "Server"
RUNS = 7
READY_GOAL, MEMORY_GOAL = 2.0, 80.0


async def _one(server: Server) -> tuple[float, float]:
    begun = time.monotonic()
    server.start()
    client = await server.ready()
    took = time.monotonic() - begun
    await asyncio.sleep(2)
    assert server.process is not None
    memory = resident_kib(server.process.pid) / 1024
    await client.close()
    server.stop()
    return took, memory


def results() -> list[Result]:
    server = Server.prepare()
    try:
        runs = [asyncio.run(_one(server)) for _ in range(RUNS)]
    finally:
        server.remove()
    took, memory = median([r[0] for r in runs]), median([r[1] for r in runs])
    return [
        Result("start to `/readyz`", f"{took:.2f} s", f"≤ {READY_GOAL:.0f} s", took <= READY_GOAL),
        Result("resident memory at rest", f"{memory:.0f} MiB", f"≤ {MEMORY_GOAL:.0f} MiB", memory <= MEMORY_GOAL),
    ]
