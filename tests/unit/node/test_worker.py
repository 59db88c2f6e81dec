"""One pod's worker: what it does at the same time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from polder.base.errors import PermanentError
from polder.node.pods.plan import Plan
from polder.node.pods.worker import PodWorker
from tests.unit.node.podkit import pod

FIRST = Plan(new_sandbox=0)


class Site:
    """Volumes and a network, each of which waits for the other to have begun."""

    def __init__(self) -> None:
        self.volumes_begun, self.network_begun = asyncio.Event(), asyncio.Event()
        self.failures: dict[str, Exception] = {}
        self.told: list[str] = []

    async def ensure(self, _pod: Any) -> dict[str, str]:
        self.volumes_begun.set()
        await self.network_begun.wait()
        if "volumes" in self.failures:
            raise self.failures["volumes"]
        return {"v": "made"}

    async def prepare(self, _pod: Any) -> None:
        self.network_begun.set()
        await self.volumes_begun.wait()
        if "network" in self.failures:
            raise self.failures["network"]

    def event(self, _pod: Any, _type: str, reason: str, _message: str, _part: str = "") -> None:
        self.told.append(reason)

    def worker(self) -> PodWorker:
        own: Any = SimpleNamespace(
            cri=None, cluster=None, means=None, recorder=self, clock=None, since=0.0, volumes=self, prepare=self.prepare
        )
        return PodWorker(own, "u1", pod())


async def test_volumes_and_network_are_made_at_the_same_time() -> None:
    async with asyncio.timeout(10):
        assert list(await Site().worker()._prepare(pod(), FIRST)) == ["v"]


@pytest.mark.parametrize(("failing", "told"), [("volumes", "FailedMount"), ("network", "NetworkNotReady")])
async def test_what_fails_of_them_is_told_and_keeps_the_pod_from_starting(failing: str, told: str) -> None:
    site = Site()
    site.failures[failing] = PermanentError("not to be had")
    async with asyncio.timeout(10):
        with pytest.raises(PermanentError, match="not to be had"):
            await site.worker()._prepare(pod(), FIRST)
    assert site.told == [told]


async def test_a_sandbox_that_is_there_needs_no_network_made() -> None:
    site = Site()
    site.network_begun.set()
    site.failures["network"] = PermanentError("asked for all the same")
    async with asyncio.timeout(10):
        assert list(await site.worker()._prepare(pod(), Plan())) == ["v"]
