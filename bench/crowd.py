"""A thousand tenants in use: each with objects of its own and a watch; what they cost, and how soon a watch tells."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing

import uvloop

from bench.daemon import Server, resident
from bench.report import Result, median
from polder.api.meta import ObjectMeta
from polder.api.polder import Tenant
from polder.base.ids import ROOT
from polder.client.client import Client

TITLE = "A thousand tenants, each with 20 objects and a watch"
NOTES = "Configuration maps of 200 bytes; the client holds the watches' other ends in a process of its own."

TENANTS, OBJECTS, TOLD, AT_ONCE = 1000, 20, 200, 16


def maps(tenant: str) -> str:
    """Where a tenant's configuration maps are."""
    return f"/tenants/{tenant}/api/v1/namespaces/default/configmaps"


def config_map(name: str) -> bytes:
    return json.dumps({"metadata": {"name": name}, "data": {"k": "x" * 200}}).encode()


class Crowd:
    """The tenants and their watches."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: dict[str, asyncio.Future[float]] = {}
        self.watches: list[asyncio.Task[None]] = []

    async def fill(self) -> float:
        """Objects that were made in a second."""
        waiting = iter(range(TENANTS))

        async def filler() -> None:
            for number in waiting:
                name = f"t-{number}"
                meta = ObjectMeta(name=name)
                await self.client.create(ROOT, Tenant(api_version="polder.dev/v1alpha1", kind="Tenant", metadata=meta))
                for each in range(OBJECTS):
                    await self.client.raw("POST", maps(name), config_map(f"m-{each}"))

        begun = time.perf_counter()
        await asyncio.gather(*(filler() for _ in range(AT_ONCE)))
        return TENANTS * OBJECTS / (time.perf_counter() - begun)

    async def watch(self) -> None:
        """One watch in each tenant."""
        for number in range(TENANTS):
            self.watches.append(asyncio.create_task(self._follow(f"t-{number}")))
            await asyncio.sleep(0.005)
        await asyncio.sleep(5)

    async def _follow(self, tenant: str) -> None:
        version = json.loads(await self.client.raw("GET", f"{maps(tenant)}?limit=1"))["metadata"]["resourceVersion"]
        path = f"{maps(tenant)}?watch=1&resourceVersion={version}&timeoutSeconds=600"
        async with aclosing(self.client.lines(path)) as lines:
            async for _ in lines:
                told = self.told.get(tenant)
                if told is not None and not told.done():
                    told.set_result(time.perf_counter())

    async def tell(self) -> list[float]:
        """Milliseconds from the request to the event in the tenant's watch, one tenant after the other."""
        taken = []
        for number in range(TOLD):
            tenant = f"t-{number * (TENANTS // TOLD)}"
            self.told[tenant] = asyncio.get_running_loop().create_future()
            begun = time.perf_counter()
            await self.client.raw("POST", maps(tenant), config_map("told"))
            taken.append((await self.told[tenant] - begun) * 1000)
        return sorted(taken)


async def _measure(server: Server) -> tuple[float, list[float], list[float]]:
    server.start()
    client = await server.ready()
    assert server.process is not None
    pid, crowd = server.process.pid, Crowd(client)
    await asyncio.sleep(3)
    memory = [resident(pid) / 1e6]
    rate = await crowd.fill()
    await asyncio.sleep(5)
    memory.append(resident(pid) / 1e6)
    await crowd.watch()
    memory.append(resident(pid) / 1e6)
    taken = await crowd.tell()
    for watch in crowd.watches:
        watch.cancel()
    await asyncio.gather(*crowd.watches, return_exceptions=True)
    await client.close()
    server.stop()
    return rate, memory, taken


def results() -> list[Result]:
    server = Server.prepare()
    try:
        rate, (empty, filled, watched), taken = uvloop.run(_measure(server))
    finally:
        server.remove()
    return [
        Result("objects made in a second, tenants among them", f"{rate:.0f}"),
        Result("server's memory: empty, filled, with the watches", f"{empty:.0f}, {filled:.0f}, {watched:.0f} MB"),
        Result("a watch in bytes", f"{(watched - filled) * 1000 / TENANTS:.0f} KB"),
        Result(
            "from a write to the watch's event, p50 / p99",
            f"{median(taken):.1f} / {taken[int(len(taken) * 0.99)]:.1f} ms",
        ),
    ]
