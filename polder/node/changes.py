"""Hears from the server which ConfigMaps and Secrets changed that this node's pods show (``apiserver/mentions.py``)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from polder.api.meta import Raw, Struct
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.mux import Stream
from polder.client.wire import Lines

log = logging.getLogger(__name__)

PAUSE = 1.0
"""Seconds until the stream is asked for again."""

Told = Callable[[Iterable[tuple[str, Ref]] | None], None]
"""Takes what changed, by (resource, reference); None: anything may have."""


class _Line(Struct, frozen=True, kw_only=True):
    ready: bool = False
    any: bool = False
    resource: str = ""
    tenant: str = ""
    namespace: str = ""
    name: str = ""


class Changes:
    """Asks any server that is there, and again when that one is gone."""

    def __init__(self, open_stream: Callable[[Raw], Awaitable[Stream]], told: Told) -> None:
        self._open = open_stream
        self._told = told

    async def run(self) -> None:
        """Until cancelled. What happened while nobody listened is made up for by looking at everything."""
        while True:
            try:
                await self._listen()
            except (ConnectionError, PolderError, msgspec.MsgspecError) as error:
                log.debug("changes are not heard: %s", error)
            await asyncio.sleep(PAUSE)

    async def _listen(self) -> None:
        stream, lines = await self._open({"kind": "changes"}), Lines()
        try:
            while chunk := await stream.read():
                self._take([msgspec.json.decode(line, type=_Line) for line in lines.feed(chunk)])
        finally:
            await stream.reset("read no further")

    def _take(self, lines: list[_Line]) -> None:
        if any(line.ready or line.any for line in lines):
            self._told(None)
        elif lines:
            self._told([(one.resource, Ref(TenantName(one.tenant), one.namespace, one.name)) for one in lines])
