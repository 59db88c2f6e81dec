"""``kill -9`` at random moments while 500 objects a second are written, on SQLite and on etcd: every write that was
acknowledged is there, and watches go on where they were, with every event once and in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from polder.main.config_storage import EtcdConfig
from tests.etcd import Etcd, free_port
from tests.process import ServerProcess

PATH = "/api/v1/namespaces/default/configmaps"
RATE = 500
"""Writes a second that are begun, whether those before were answered or not."""
REACHED = 0.25
"""The part of them that must have been acknowledged by the time of the kill, as a rate, however busy the machine is."""


@pytest.fixture(params=["sqlite", "etcd"])
async def place(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[tuple[ServerProcess, Etcd | None]]:
    """A server on either store."""
    etcd = Etcd(port=free_port()) if request.param == "etcd" else None
    server = ServerProcess(tmp_path / "state", etcd=EtcdConfig(endpoints=[etcd.endpoint]) if etcd else None)
    try:
        if etcd is not None:
            await asyncio.to_thread(etcd.start)
        await asyncio.to_thread(server.start)
        yield server, etcd
    finally:
        server.stop()
        if etcd is not None:
            etcd.stop()


@dataclass
class Load:
    """Writes at a rate; ``acknowledged`` holds what the server said it has."""

    url: str
    session: aiohttp.ClientSession
    acknowledged: dict[str, int] = field(default_factory=dict)
    number: int = 0

    async def run(self, until: asyncio.Event) -> None:
        """Begins one write every 1/RATE s. What is late is made up for, as far as the machine can."""
        began, first, under_way = time.monotonic(), self.number, set()
        while not until.is_set():
            due = first + int((time.monotonic() - began) * RATE)
            while self.number < due and len(under_way) < RATE:
                task = asyncio.create_task(self._one(f"w{self.number}"))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                self.number += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*under_way)

    async def _one(self, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": name}}
        try:
            async with self.session.post(f"{self.url}{PATH}", json=body) as answer:
                said = await answer.json()
        except (aiohttp.ClientError, OSError, ValueError):
            return  # nobody knows
        if answer.status == 201:
            self.acknowledged[name] = int(said["metadata"]["resourceVersion"])
        else:
            assert answer.status in {429, 500, 503}, said


async def follow(url: str, session: aiohttp.ClientSession, version: str, seen: list[tuple[int, str]]) -> None:
    """Watches, and again from the last version that it saw, until cancelled."""
    while True:
        try:
            query = f"watch=1&resourceVersion={version}&timeoutSeconds=60"
            async with session.get(f"{url}{PATH}?{query}") as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        assert event["object"]["code"] in {500, 503}, event
                        break
                    assert event["type"] == "ADDED", event
                    meta = event["object"]["metadata"]
                    version = meta["resourceVersion"]
                    seen.append((int(version), meta["name"]))
        except (aiohttp.ClientError, OSError, ValueError):
            pass
        await asyncio.sleep(0.02)


async def killed_under_load(load: Load, victim: ServerProcess | Etcd, seconds: float) -> float:
    """Writes for so long, kills amid that, and starts anew; the rate of acknowledgements until then."""
    until, before, began = asyncio.Event(), len(load.acknowledged), time.monotonic()
    writing = asyncio.create_task(load.run(until))
    await asyncio.sleep(seconds)
    rate = (len(load.acknowledged) - before) / (time.monotonic() - began)
    if isinstance(victim, Etcd):
        victim.kill()
    else:
        victim.stop(signal.SIGKILL)
    until.set()
    if isinstance(victim, Etcd):
        await asyncio.to_thread(victim.start)
    await writing
    if isinstance(victim, ServerProcess):
        await asyncio.to_thread(victim.start)
    return rate


async def test_500_writes_a_second_and_kill_9(place: tuple[ServerProcess, Etcd | None]) -> None:
    server, etcd = place
    url, random_ = f"https://127.0.0.1:{server.port}", random.Random(11)
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(ssl=server._context, limit=32)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        load = Load(url, session)
        async with session.get(f"{url}{PATH}") as answer:
            start = (await answer.json())["metadata"]["resourceVersion"]
        views: list[list[tuple[int, str]]] = [[], []]
        watches = [group.create_task(follow(url, session, start, seen)) for seen in views]
        await killed_under_load(load, server, 1.0)  # the first second of a process is spent on warming up
        rates = [
            await killed_under_load(load, victim, random_.uniform(1.5, 2.5))
            for victim in (server, etcd or server, server)
        ]
        assert max(rates) >= REACHED * RATE, rates
        async with session.get(f"{url}{PATH}") as answer:
            found = {
                o["metadata"]["name"]: int(o["metadata"]["resourceVersion"]) for o in (await answer.json())["items"]
            }
        assert {name: found.get(name) for name in load.acknowledged} == load.acknowledged
        await load._one("last")
        async with asyncio.timeout(30):
            while not all(seen and seen[-1][1] == "last" for seen in views):  # noqa: ASYNC110 - they set nothing
                await asyncio.sleep(0.02)
        for watch in watches:
            watch.cancel()
    expected = sorted((version, name) for name, version in {**found, "last": load.acknowledged["last"]}.items())
    expected = [(version, name) for version, name in expected if name != "kube-root-ca.crt"]
    for seen in views:
        assert seen == expected, "lost its order, an event, or repeated one"
