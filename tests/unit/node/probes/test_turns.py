"""Turns of probes that are commands: a tenant's many keep nobody else from its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec

from polder.api.lifecycle import Probe
from polder.api.podspec import Container
from polder.node import starts
from polder.node.probes.attempt import EACH, Means, Target
from polder.node.probes.outcome import Result
from polder.node.probes.reach import Place, Reach
from polder.system.cri import CriClient


async def test_a_tenants_slow_commands_leave_others_their_turns(monkeypatch: Any) -> None:
    monkeypatch.setattr(starts, "STARTING", 600.0)
    running: list[str] = []
    ended = asyncio.Event()

    async def exec_sync(container: str, argv: list[str], seconds: int) -> SimpleNamespace:
        running.append(container)
        if container.startswith("evil"):
            await ended.wait()
        return SimpleNamespace(stdout=b"ok", stderr=b"", exit_code=0)

    means = Means(cast(CriClient, SimpleNamespace(exec_sync=exec_sync)), cast(Reach, None))
    spec = msgspec.convert({"exec": {"command": ["true"]}}, Probe)

    def target(tenant: str, name: str) -> Target:
        return Target(name, Container(name="a"), "10.0.0.1", Place(None), tenant)

    many = [asyncio.create_task(means.probe(target("evil", f"evil {n}"), spec)) for n in range(40)]
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*(means.probe(target("good", f"good {n}"), spec) for n in range(10)))
    assert {one.result for one in outcomes} == {Result.SUCCESS}
    assert sum(name.startswith("evil") for name in running) == EACH
    ended.set()
    await asyncio.gather(*many)
