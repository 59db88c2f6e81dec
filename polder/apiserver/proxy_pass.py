"""One proxied request: to the other side as it came, and back as it comes, its links led through the proxy."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from polder.api.errors import ApiError, internal, unavailable
from polder.apiserver.aggregation_proxy import passed_on
from polder.apiserver.dial import DialError
from polder.apiserver.hooks import Call
from polder.apiserver.listener import connection_of, on_lost
from polder.apiserver.outcalls import Exchange, Outcalls, said
from polder.apiserver.outconn import Peer
from polder.apiserver.proxy_html import HtmlRewriter, Links
from polder.apiserver.proxy_upgrade import carry_upgrade
from polder.apiserver.remotecommand import IDLE, Idle

log = logging.getLogger(__name__)

SLICE: Final = 2048
"""Bytes of a page that are looked through before others have their turn: some milliseconds at most."""
_BITS: Final = {"gzip": 31, "deflate": -15}


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a request goes on to. ``host`` is the address and port as URLs have them."""

    outcalls: Outcalls
    peer: Peer
    host: str


def split_path(path: str, namespaced: bool) -> tuple[str, str]:
    """The proxy's own path and what follows it, as they were sent (``path`` may begin with a tenant's prefix)."""
    prefix = "/".join(path.split("/", 3)[:3]) if path.startswith("/tenants/") else ""
    size = 8 if namespaced else 6  # "", api, v1, (namespaces, NAMESPACE,) pods, NAME, proxy
    own = prefix + "/".join(path[len(prefix) :].split("/", size)[:size])
    return own, path[len(own) :]


async def pass_on(call: Call, onward: Onward) -> web.StreamResponse:
    """Raises ApiError 400, 500, 503, DialError."""
    request = call.request
    own, rest = split_path(request.rel_url.raw_path, bool(call.info.namespace))
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    if not rest and request.method in {"GET", "HEAD"} and not request.headers.get("Upgrade"):
        return web.Response(status=301, headers={"Location": f"{own}/{query}"})
    headers = _headers(call, own, rest)
    path = (rest or "/") + query
    if request.headers.get("Upgrade"):
        return await carry_upgrade(call, onward.outcalls, onward.peer, (path, headers))
    if headers.pop("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun
    body: bytes | AsyncIterator[bytes] = request.content.iter_any() if request.body_exists else b""
    what = Exchange(request.method, path, headers, body)
    links = Links(own, onward.host, request.host)
    state = _State()
    try:
        await _exchange(call, onward, what, links, state)
    except DialError:
        raise
    except TimeoutError as error:
        if state.response is None:
            raise ApiError(504, "Timeout", "the other side did not answer in time") from error
        _cut(request)
    except (aiohttp.ClientError, OSError) as error:
        if state.response is None:
            raise unavailable(f"error trying to reach service: {said(error)}") from error
        _cut(request)
    assert state.response is not None
    return state.response


@dataclass(slots=True)
class _State:
    """The answer, as soon as it has begun."""

    response: web.StreamResponse | None = None


def _headers(call: Call, own: str, rest: str) -> CIMultiDict[str]:
    """What is passed on: what came, without who asks and credentials, and from where it came."""
    request = call.request
    headers = passed_on(request.headers, _PRIVATE)
    headers["Host"] = request.host
    headers["X-Forwarded-Uri"] = own + rest
    peer = connection_of(request).peer
    before = request.headers.getall("X-Forwarded-For", [])
    if peer:
        headers["X-Forwarded-For"] = ", ".join([*before, peer])
    if "User-Agent" not in headers:
        headers["User-Agent"] = ""
    return headers


_PRIVATE: Final = ("authorization", "x-remote-", "impersonate-", "x-forwarded-")


async def _exchange(call: Call, onward: Onward, what: Exchange, links: Links, state: _State) -> None:
    request = call.request
    loop, idle = asyncio.get_running_loop(), Idle(IDLE, call.info.tenant)
    async with idle.scope:
        forget = on_lost(request, lambda: idle.scope.reschedule(loop.time()))
        try:
            async with onward.outcalls.exchange(onward.peer, what) as answer:
                response, change = _head(answer, links)
                state.response = response
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await _send(response, chunk, change)
                    await idle.passed()
                if change is not None:
                    await response.write(change(b"", True))
                await response.write_eof()
        finally:
            forget()


async def _send(response: web.StreamResponse, chunk: bytes, change: Callable[[bytes, bool], bytes] | None) -> None:
    if change is None:
        await response.write(chunk)
        return
    for begin in range(0, len(chunk), SLICE):
        if begin:
            await asyncio.sleep(0)
        if changed := change(chunk[begin : begin + SLICE], False):
            await response.write(changed)


def _head(
    answer: aiohttp.ClientResponse, links: Links
) -> tuple[web.StreamResponse, Callable[[bytes, bool], bytes] | None]:
    """What begins the answer, and what changes its body. Raises ApiError 500."""
    headers = passed_on(answer.headers, _PRIVATE)
    if answer.headers.get("Location"):
        try:
            headers["Location"] = links.rewrite(answer.headers["Location"])
        except ValueError as error:
            raise internal(f"error trying to parse Location header: {error}") from error
    coding = answer.headers.get("Content-Encoding", "").lower()
    page = answer.headers.get("Content-Type", "").partition(";")[0].strip() == "text/html"
    change = None
    if page and not answer.headers.get("Location") and (not coding or coding in _BITS):
        change = _change(links, coding)
    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
    if answer.content_length is None or change is not None:
        response.enable_chunked_encoding()
    else:
        response.content_length = answer.content_length
    return response, change


def _change(links: Links, coding: str) -> Callable[[bytes, bool], bytes]:
    """Rewrites the parts of a page, compressed or not. Raises ConnectionError for what cannot be inflated."""
    page = HtmlRewriter(links.rewrite)
    if not coding:
        return lambda data, last: page.feed(data) + (page.flush() if last else b"")
    inflate: Any = zlib.decompressobj(_BITS[coding])
    deflate: Any = zlib.compressobj(wbits=_BITS[coding])

    def change(data: bytes, last: bool) -> bytes:
        try:
            plain = inflate.decompress(data, SLICE * 64)
        except zlib.error as error:
            raise ConnectionResetError("a compressed page cannot be read") from error
        if inflate.unconsumed_tail:
            raise ConnectionResetError("a compressed page grows beyond measure")
        out = deflate.compress(page.feed(plain))
        return bytes(out + (deflate.compress(page.flush()) + deflate.flush() if last else b""))

    return change


def _cut(request: web.BaseRequest) -> None:
    """An answer that has begun and cannot go on: only its missing end can say so."""
    if request.transport is not None:
        request.transport.abort()
