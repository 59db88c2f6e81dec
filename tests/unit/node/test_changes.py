"""The agent's end of the news."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.mux import Stream, StreamError
from polder.node import changes
from polder.node.changes import Changes


class Scripted:
    """A stream that brings these chunks, then breaks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.reason = ""

    async def read(self) -> bytes:
        if not self.chunks:
            raise StreamError("gone")
        return self.chunks.pop(0)

    async def reset(self, reason: str) -> None:
        self.reason = reason


async def test_news_are_passed_on_and_a_lost_stream_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PAUSE", 0.01)
    line = b'{"resource":"secrets","tenant":"acme","namespace":"ns","name":"s"}\n'
    first = Scripted(b'{"ready":true}\n', line[:20], line[20:] + line)
    second = Scripted(b'{"ready":true}\n')
    streams: list[Any] = [first, StreamError("no server"), second]
    told: list[Any] = []
    done = asyncio.Event()

    async def open_stream(header: dict[str, Any]) -> Stream:
        assert header == {"kind": "changes"}
        if not streams:
            done.set()
            await asyncio.get_running_loop().create_future()
        found = streams.pop(0)
        if isinstance(found, Exception):
            raise found
        return cast(Stream, found)

    def tell(what: Iterable[tuple[str, Ref]] | None) -> None:
        told.append(what if what is None else list(what))

    task = asyncio.create_task(Changes(open_stream, tell).run())
    async with asyncio.timeout(5):
        await done.wait()
    task.cancel()
    one = ("secrets", Ref(TenantName("acme"), "ns", "s"))
    assert told == [None, [one, one], None]
    assert first.reason
