"""What nodes say that they use, asked over their streams: one question at a time for each node, and the answer counts for a
few seconds, however many ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from polder.api.meta import Raw
from polder.api.resourcemetrics import NodeUsage
from polder.base.clock import Clock
from polder.base.errors import PolderError, RetryableError

log = logging.getLogger(__name__)

FRESH: Final = 5.0
"""Seconds for which an answer counts; nodes measure every fifteen."""
PATIENCE: Final = 5.0
"""Seconds for an answer, from the question to its last byte."""
LARGEST: Final = 8 * 1024 * 1024
"""Bytes of an answer: a pod takes some 150."""
KEPT: Final = 512
"""Nodes whose answers are kept at most."""
_AT_ONCE: Final = 64 * 1024
"""Bytes that are decoded on the event loop."""
_EVERYTHING: Final = msgspec.json.Decoder(NodeUsage)


class Answer(Protocol):
    """The part of a stream to a node that is needed."""

    async def read(self) -> bytes:
        """What has come; empty at the end. Raises ConnectionError."""
        ...

    async def end(self) -> None:
        """Says that nothing more is asked. Raises ConnectionError."""
        ...

    async def reset(self, reason: str) -> None:
        """Gives the stream up."""
        ...


Open = Callable[[str, Raw], Awaitable[Answer]]
"""Opens a stream to a node, with a header. Raises RetryableError where it has no connection."""


@dataclass(frozen=True, slots=True)
class _Known:
    """An answer, None for a node that gave none, and when it came."""

    usage: NodeUsage | None
    at: float


class NodeReports:
    """Asks nodes, and remembers their answers for a moment."""

    def __init__(self, opener: Open, clock: Clock) -> None:
        self._open = opener
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[NodeUsage | None]] = {}

    async def of(self, nodes: Iterable[str]) -> Mapping[str, NodeUsage]:
        """The reports of these nodes, as far as they give one in time."""
        wanted = sorted(set(nodes))
        found = await asyncio.gather(*(self._report(node) for node in wanted))
        return {node: usage for node, usage in zip(wanted, found, strict=True) if usage is not None}

    async def _report(self, node: str) -> NodeUsage | None:
        known = self._known.get(node)
        if known is not None and self._clock.monotonic() - known.at < FRESH:
            return known.usage
        task = self._asking.get(node)
        if task is None:
            task = self._asking[node] = asyncio.create_task(self._ask(node))
            task.add_done_callback(lambda _: self._asking.pop(node, None))
        return await asyncio.shield(task)  # who leaves does not take the answer from the others

    async def _ask(self, node: str) -> NodeUsage | None:
        usage: NodeUsage | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                usage = await self._fetch(await self._open(node, {"kind": "usage"}))
        except RetryableError:
            return None  # no connection: nothing was asked, and names that pods make up are not remembered
        except (PolderError, ConnectionError, TimeoutError, msgspec.MsgspecError) as error:
            log.info("node %s did not say what it uses: %s", node, error)
        now = self._clock.monotonic()
        self._forget(now)
        self._known[node] = _Known(usage, now)
        self._known.move_to_end(node)
        return usage

    def _forget(self, now: float) -> None:
        """What counts no more is dropped: who asks for nothing keeps nothing in memory but the last answers."""
        while self._known:
            node, oldest = next(iter(self._known.items()))
            if now - oldest.at < FRESH and len(self._known) < KEPT:
                return
            del self._known[node]

    async def _fetch(self, stream: Answer) -> NodeUsage:
        try:
            body = await _read(stream)
            await stream.end()
        except BaseException:
            await stream.reset("given up")
            raise
        if len(body) > _AT_ONCE:
            return await asyncio.to_thread(_EVERYTHING.decode, body)
        return _EVERYTHING.decode(body)


async def _read(stream: Answer) -> bytes:
    """All of an answer. Raises PolderError where it is too long."""
    body = bytearray()
    while piece := await stream.read():
        body += piece
        if len(body) > LARGEST:
            raise PolderError(f"its answer has more than {LARGEST} bytes")
    return bytes(body)
