"""Passes requests for aggregated APIs on: as they came but for who asks, which goes in headers; answers as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote, unquote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from polder.api.errors import ApiError, bad_request, unavailable
from polder.apiserver.aggregation import Aggregation, Remote
from polder.apiserver.dial import DialError
from polder.apiserver.fairness import away
from polder.apiserver.hooks import Call
from polder.apiserver.listener import on_lost
from polder.apiserver.outcalls import Exchange, said
from polder.apiserver.settings import BODY_LIMIT
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import EVERY_TENANT, TenantName

log = logging.getLogger(__name__)

HEAD_TIME: Final = 60.0
"""Seconds until the head of an answer; a watch's comes at once too."""
LONG: Final = 3600.0
"""Seconds that one answer may take in all: a watch."""
REDIRECTED: Final = "the backend attempted to redirect this request, which is not permitted"
"""Whoever follows a redirect asks, with a credential of this server's, what the tenant wants asked."""
HURRIED: Final = 5.0
"""Seconds for a whole answer to Polder's own controllers, whose workers serve other tenants too; and its bytes:"""
HURRIED_BYTES: Final = 4 << 20
AT_ONCE: Final = 128
"""Requests of one tenant that are passed on at a time, watches too."""
_HOP: Final = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "host", "content-length",
    }
)  # fmt: skip
"""Headers of one connection (RFC 9110, 7.6.1), and those that are set anew."""
_OURS: Final = ("authorization", "x-remote-", "impersonate-", "x-forwarded-", "cookie", "set-cookie")
"""How headers begin that are never passed on, either way: credentials, and what says who asks."""


def proxy_headers(who: Identity) -> CIMultiDict[str]:
    """Who asks, as an authenticating proxy says it."""
    found: CIMultiDict[str] = CIMultiDict({"X-Remote-User": _plain(who.name)})
    if who.uid:
        found["X-Remote-Uid"] = _plain(who.uid)
    for group in who.groups:
        found.add("X-Remote-Group", _plain(group))
    for key, values in who.extra.items():
        for value in values:
            found.add(f"X-Remote-Extra-{quote(key, safe='-_.~!*')}", _plain(value))
    return found


def _plain(text: str) -> str:
    """A header's value: nothing that would end the line."""
    return "".join(c for c in text if c >= " " and c != "\x7f")


def passed_on(headers: Mapping[str, str], private: tuple[str, ...] = _OURS) -> CIMultiDict[str]:
    """The headers of a message that are meant for the other end: not those that begin like one of ``private``."""
    named = {part.strip().lower() for part in headers.get("Connection", "").split(",")}
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if (low := name.lower()) not in _HOP and low not in named and not low.startswith(private)
    )


class Proxy:
    """Serves what is below ``/apis/GROUP/VERSION`` of remote APIs."""

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation
        self._open: dict[TenantName, int] = {}

    async def find(self, info: RequestInfo) -> Remote | None:
        """The remote API that a request is for."""
        parts = info.path.split("/", 4)
        if len(parts) < 4 or parts[1] != "apis" or info.tenant == EVERY_TENANT or not parts[3]:
            return None
        return await self._aggregation.find(info.tenant, parts[2], parts[3])

    async def serve(self, call: Call, remote: Remote) -> web.StreamResponse:
        """One request, already authorized. Raises ApiError 400, 429, 501, 502, 503."""
        if call.request.headers.get("Upgrade"):
            message = "upgrading a connection to an aggregated API is not supported by this server"
            raise ApiError(501, "NotImplemented", message)
        if any(part in {".", ".."} or "/" in part for part in map(unquote, call.info.path.split("/"))):
            raise bad_request("the path means another one to the server that it is for")
        if not remote.available:
            raise unavailable("service unavailable")
        tenant = call.info.tenant
        if self._open.get(tenant, 0) >= AT_ONCE:
            raise ApiError(429, "TooManyRequests", "too many requests to aggregated APIs", {"retryAfterSeconds": 1})
        self._open[tenant] = self._open.get(tenant, 0) + 1
        try:
            return await self._pass(call, remote)
        except DialError as error:
            log.info("tenant %s: %s: %s", tenant, remote.found.key.name, error)
            raise unavailable(f"error trying to reach service: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise unavailable(f"error trying to reach service: {said(error)}") from error
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _pass(self, call: Call, remote: Remote) -> web.StreamResponse:
        request = call.request
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        place = await self._aggregation.place(call.info.tenant, remote, f"{call.info.path}{query}")
        headers = passed_on(request.headers)
        headers.extend(proxy_headers(call.who))
        body: bytes | AsyncIterator[bytes] = _bounded(request) if request.body_exists else b""
        what = Exchange(request.method, place.path, headers, body)
        hurried = call.who.role is Role.COMPONENT
        loop, scope = asyncio.get_running_loop(), asyncio.timeout(HURRIED if hurried else HEAD_TIME)
        prepared = False
        try:
            async with away(), scope:
                forget = on_lost(request, lambda: scope.reschedule(loop.time()))
                try:
                    async with self._aggregation.outcalls.exchange(place.peer, what) as answer:
                        if not hurried:
                            scope.reschedule(loop.time() + LONG)
                        response = _head(answer)
                        prepared = True
                        await response.prepare(request)
                        size = 0
                        async for chunk in answer.content.iter_any():
                            size += len(chunk)
                            if hurried and size > HURRIED_BYTES:
                                return _cut(request, response)
                            await response.write(chunk)
                        await response.write_eof()
                        return response
                finally:
                    forget()
        except TimeoutError as error:
            if not prepared:
                raise ApiError(504, "Timeout", "the aggregated API did not answer in time") from error
            return _cut(request, response)
        except (aiohttp.ClientError, OSError):
            if not prepared:
                raise
            return _cut(request, response)


def _head(answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """What begins the answer as it came. Raises ApiError 502 for a redirect."""
    if 300 <= answer.status < 400 and answer.headers.get("Location"):
        raise ApiError(502, "", REDIRECTED)
    response = web.StreamResponse(status=answer.status, headers=passed_on(answer.headers))
    if answer.content_length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = answer.content_length
    return response


def _cut(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """An answer that has begun and cannot go on: only its missing end can say so."""
    if request.transport is not None:
        request.transport.abort()
    return response


async def _bounded(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body as it comes. Raises ApiError 413."""
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise ApiError(413, "RequestEntityTooLarge", f"limit is {BODY_LIMIT} bytes")
        yield chunk
