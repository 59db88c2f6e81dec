"""One tenant at its cap, another as usual: what the other's requests take, as a ratio to what they take alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import time
from multiprocessing.synchronize import Event

import uvloop

from bench.daemon import Server
from bench.report import Result, median
from polder.api.meta import ObjectMeta
from polder.api.polder import Tenant
from polder.base.errors import PolderError
from polder.base.ids import ROOT
from polder.client.client import Client, ClientSettings

TITLE = "Fair shares between tenants"
NOTES = """\
The victim asks one request after the other (get, create, list of 100 objects, patch); the attacker, in a process of its own,
keeps 64 under way all the time: lists of 1,000 objects of 2 kB, creates, gets. The attacker's process has what the others
leave of the processors (SCHED_IDLE), as if it ran on a machine of its own. The ratio is that of the 99th percentiles, rounds of
both kinds in turn; the client's own time is in both."""

GOAL = 3.0
ROUNDS, SECONDS, CALLERS, STORED = 5, 4.0, 64, 1000


def maps(tenant: str) -> str:
    """Where a tenant's configuration maps are."""
    return f"/tenants/{tenant}/api/v1/namespaces/default/configmaps"


def config_map(name: str, size: int = 2000) -> bytes:
    return json.dumps({"metadata": {"name": name}, "data": {"k": "x" * size}}).encode()


async def _attack(settings: ClientSettings, go: Event, end: Event) -> None:
    client = Client(settings)
    count = itertools.count()

    async def caller(kind: int) -> None:
        while not end.is_set():
            if not go.is_set():
                await asyncio.sleep(0.01)
                continue
            try:
                if kind == 0:
                    await client.raw("GET", maps("attacker"))
                elif kind == 1:
                    await client.raw("POST", maps("attacker"), config_map(f"new-{next(count)}"))
                else:
                    await client.raw("GET", f"{maps('attacker')}/m-1")
            except PolderError:  # told to come again
                await asyncio.sleep(0.01)

    await asyncio.gather(*(caller(n % 3) for n in range(CALLERS)))
    await client.close()


def _attacker(settings: ClientSettings, go: Event, end: Event) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_attack(settings, go, end))


async def _fill(client: Client, tenant: str, number: int) -> None:
    await client.create(
        ROOT, Tenant(api_version="polder.dev/v1alpha1", kind="Tenant", metadata=ObjectMeta(name=tenant))
    )
    for start in range(0, number, 50):
        await asyncio.gather(
            *(client.raw("POST", maps(tenant), config_map(f"m-{n}")) for n in range(start, min(start + 50, number)))
        )


async def _victim(client: Client, numbers: itertools.count[int]) -> list[float]:
    """Milliseconds of the requests that fit into one round."""
    taken, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        name = f"v-{next(numbers)}"
        path = f"{maps('victim')}/{name}"
        patch = b'{"metadata":{"labels":{"a":"b"}}}'
        for call in (
            client.raw("POST", maps("victim"), config_map(name, 100)),
            client.raw("GET", path),
            client.raw("PATCH", path, patch, content_type="application/merge-patch+json"),
            client.raw("GET", f"{maps('victim')}?limit=100"),
        ):
            begun = time.perf_counter()
            await call
            taken.append((time.perf_counter() - begun) * 1000)
    return taken


def _late(taken: list[float]) -> float:
    return sorted(taken)[int(len(taken) * 0.99)]


async def _measure(server: Server, go: Event) -> tuple[list[float], list[float]]:
    server.start()
    client = await server.ready()
    await _fill(client, "victim", 100)
    await _fill(client, "attacker", STORED)
    numbers = itertools.count()
    await _victim(client, numbers)  # what is built once, at the first use
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(_late(await _victim(client, numbers)))
        go.set()
        await asyncio.sleep(1)
        beside.append(_late(await _victim(client, numbers)))
        go.clear()
        await asyncio.sleep(1)
    await client.close()
    return alone, beside


def results() -> list[Result]:
    server = Server.prepare()
    certificate, key = server.credentials.admin()
    authority = server.credentials.pki.serving_ca
    settings = ClientSettings(server.credentials.cluster.local_server, authority, certificate, key)
    context = multiprocessing.get_context("spawn")
    go, end = context.Event(), context.Event()
    attacker = context.Process(target=_attacker, args=(settings, go, end))
    attacker.start()
    try:
        alone, beside = asyncio.run(_measure(server, go))
    finally:
        end.set()
        attacker.join(10)
        server.stop()
        server.remove()
    ratio = median(beside) / median(alone)
    return [
        Result("victim's p99 alone, median of the rounds", f"{median(alone):.1f} ms"),
        Result("victim's p99 beside the attacker", f"{median(beside):.1f} ms"),
        Result("ratio", f"{ratio:.1f}", f"≤ {GOAL:.0f}", ratio <= GOAL),
    ]
