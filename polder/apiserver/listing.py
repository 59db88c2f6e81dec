"""Long lists, written while they are read: whatever a tenant stores, a list costs the server a few pieces of memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web

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
    _hold_little(call.request)
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
        await _slices(response, data)


async def _in_pieces(request: web.BaseRequest, response: web.Response) -> None:
    """The whole answer."""
    _hold_little(request)
    await response.prepare(request)
    if isinstance(response.body, bytes) and request.method != hdrs.METH_HEAD:
        whole, response.body = response.body, None
        await _slices(response, whole)
    await response.write_eof()


def _hold_little(request: web.BaseRequest) -> None:
    """No more than ``LARGE`` waits for a slow reader before whoever writes has to wait too."""
    if request.transport is not None:
        request.transport.set_write_buffer_limits(high=LARGE)


async def _slices(response: web.StreamResponse, data: bytes) -> None:
    """Written at one time, TLS would take all of it at once, and nobody would be told to wait."""
    view = memoryview(data)
    for start in range(0, len(view), LARGE):
        await response.write(view[start : start + LARGE])


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
                await _in_pieces(call.request, response)
        except (TimeoutError, ConnectionError) as problem:
            log.info("request %s: the answer ends midway: %s", call.id, problem or "the client does not read")
            if call.request.transport is not None:
                call.request.transport.abort()
