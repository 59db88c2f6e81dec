"""The answer to a server that asks what the node uses: ``{"kind": "usage"}`` on a stream. It is what was measured last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from polder.api.meta import Raw
from polder.api.resourcemetrics import NodeUsage, PodUsage, Usage
from polder.node.stats.sampler import Measured, Sampler


class Stream(Protocol):
    """The part of a stream to the server that is needed."""

    async def write(self, data: bytes) -> None:
        """Sends. Raises ConnectionError when the stream is lost."""
        ...


class UsageReports:
    """Serves them. ``shown`` gives the UID by which the API knows a pod of the node."""

    def __init__(self, sampler: Sampler, shown: Callable[[str], str] = str) -> None:
        self._sampler = sampler
        self._shown = shown

    async def serve(self, header: Raw, stream: Stream) -> None:
        """Writes the report as JSON."""
        del header
        await stream.write(await asyncio.to_thread(lambda: msgspec.json.encode(self.report())))

    def report(self) -> NodeUsage:
        """The machine's use and that of each pod whose containers all have been measured for long enough."""
        pods: dict[str, list[Measured]] = {}
        for one in list(self._sampler.containers()):
            pods.setdefault(one.uid, []).append(one)
        found = {self._shown(uid): _pod(held) for uid, held in pods.items()}
        shown = {uid: usage for uid, usage in found.items() if usage is not None}
        now, before = self._sampler.machine
        if now is None or before is None or now.at <= before.at:
            return NodeUsage(pods=shown)
        window = now.at - before.at
        node = Usage(max(0, int((now.cpu - before.cpu) / window)), now.working_set)
        return NodeUsage(now.at, window, node, shown)


def _pod(containers: list[Measured]) -> PodUsage | None:
    """None while not every container can be told: half a pod would look like one that uses half."""
    found: dict[str, Usage] = {}
    time = window = 0.0
    for one in containers:
        rate = one.rate()
        if rate is None or one.last is None:
            return None
        found[one.name] = Usage(rate[0], one.last.memory.working_set)
        time, window = max(time, one.last.at), max(window, rate[1])
    return PodUsage(time, window, found)
