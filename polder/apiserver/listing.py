"""Long lists, written while they are read: whatever a tenant stores, a list costs the server a few pieces of memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from aiohttp import web

from polder.api.errors import ApiError, too_large
from polder.apiserver.answers import SOFTWARE
from polder.apiserver.fairness import LARGE, away, handing_over
from polder.apiserver.hooks import Call
from polder.apiserver.negotiate import JSON
from polder.apiserver.render import ListMeta, Renderer
from polder.base.clock import Clock
from polder.store.protocol import Entry

log = logging.getLogger(__name__)

STALL_LIMIT = 60.0
"""Seconds that a client may take to read one piece."""


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a collection at one revision. ``last`` says that it is the answer's end, where token and rest are known."""

    entries: Sequence[Entry]
    revision: int
    token: str = ""
    remaining: int | None = None
    last: bool = True


async def send_pieces(
    call: Call, renderer: Renderer, first: Found, rest: AsyncGenerator[Found, None], clock: Clock
) -> web.StreamResponse:
    """Answers with a list of several pieces. What goes wrong midway ends the connection, since a status was sent.
    Raises ApiError 413 where the caller wants another form than JSON, which cannot be written in pieces; 429.
    """
    if renderer.accepted.media != JSON:
        raise too_large(
            f"a list that long is not given as {renderer.accepted.media}; ask for JSON, or for pages by limit"
        )
    async with handing_over():
        return await _send(call, renderer, first, rest, clock)


async def _send(
    call: Call, renderer: Renderer, first: Found, rest: AsyncGenerator[Found, None], clock: Clock
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": JSON, "Cache-Control": "no-cache, private", "Server": SOFTWARE}
    )
    response.headers["Audit-Id"] = call.id
    response.enable_chunked_encoding()
    await response.prepare(call.request)
    try:
        await _write(response, renderer.opening() + renderer.items(first.entries, clock.now()))
        begun, piece = bool(first.entries), first
        async for piece in rest:
            if piece.entries:
                items = renderer.items(piece.entries, clock.now())
                await _write(response, b"," + items if begun else items)
                begun = True
        await _write(response, renderer.ending(ListMeta(piece.revision, piece.token, piece.remaining)))
        await response.write_eof()
    except (ApiError, TimeoutError, ConnectionError) as problem:
        log.info("request %s: the list ends midway: %s", call.id, problem or "the client does not read")
        if call.request.transport is not None:
            call.request.transport.abort()
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with away(), asyncio.timeout(STALL_LIMIT):
        await response.write(data)


async def send_whole(call: Call, response: web.StreamResponse) -> None:
    """Writes an answer that is large, as ``LARGE`` says, while it is known whose it is; others are left to be written later.
    Raises ApiError 429.
    """
    if response.prepared or not isinstance(response, web.Response) or (response.content_length or 0) <= LARGE:
        return
    response.headers["Audit-Id"] = call.id
    response.headers["Server"] = SOFTWARE
    async with handing_over():
        try:
            async with away(), asyncio.timeout(STALL_LIMIT):
                await response.prepare(call.request)
                await response.write_eof()
        except (TimeoutError, ConnectionError) as problem:
            log.info("request %s: the answer ends midway: %s", call.id, problem or "the client does not read")
            if call.request.transport is not None:
                call.request.transport.abort()
