"""The typed client of the API, over HTTPS, as the platform or a node uses it."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import aiohttp

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Object
from polder.base.ids import EVERY_TENANT, TenantName
from polder.base.ref import Ref
from polder.client import wire
from polder.client.errors import UnreachableError
from polder.client.wire import Listing, WatchEvent

__all__ = ["Client", "ClientSettings", "Listing", "WatchEvent"]

T = TypeVar("T", bound=Object)

PAGE = 500
"""Objects per request of a list."""
CALLS = 32
"""Connections for requests; each watch has one of its own beside these."""
LISTS = 4
"""Lists under way at one time: at its start a component lists all that it follows, and each connection holds memory on."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """``server`` is ``https://host:port``, ``others`` are servers of the same cluster that are asked when it does not answer.
    Either a client certificate or a token says who we are. ``timeout`` bounds a request, ``watch_seconds`` a watch before it
    is made anew; both in seconds.
    """

    server: str
    ca_file: Path | str
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    token: str = field(default="", repr=False)
    timeout: float = 30.0
    watch_seconds: int = 300
    others: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """All of them, the first choice first."""
        return tuple(server.rstrip("/") for server in (self.server, *self.others))


class Client:
    """All methods raise ApiError for what the server refuses, UnreachableError where no answer came."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._server = settings.servers[0]
        self._lists = asyncio.Semaphore(LISTS)
        self._calls: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None

    async def get(self, kind: type[T], ref: Ref) -> T:
        """One object."""
        return wire.decode_object(kind, await self.raw("GET", wire.member(kind_of(kind), ref)), ref.tenant)

    async def list(
        self,
        kind: type[T],
        tenant: TenantName = EVERY_TENANT,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
    ) -> Listing[T]:
        """All objects that the selectors choose, in one state of the store, read in pages."""
        path = wire.collection(kind_of(kind), tenant, namespace)
        chosen = {"labelSelector": labels, "fieldSelector": fields}
        items: list[T] = []
        version = after = ""
        while True:
            try:
                query = wire.with_query(path, limit=str(PAGE), **chosen, **{"continue": after})
                async with self._lists:
                    body = await self.raw("GET", query)
            except ApiError as error:
                if not (error.is_expired and after):
                    raise
                items.clear()  # the state of the first page is gone: read all at once
                body, version = await self.raw("GET", wire.with_query(path, **chosen)), ""
            page = wire.decode_list(body)
            items += wire.decode_items(kind, page.items or (), tenant)
            version = version or page.metadata.resource_version
            after = page.metadata.continue_
            if not after:
                return Listing(items, version)

    async def watch(
        self,
        kind: type[T],
        tenant: TenantName = EVERY_TENANT,
        namespace: str = "",
        *,
        since: str,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Events after the resource version ``since``, until the server ends the watch, which it does every few minutes.
        End it with ``aclosing``. Raises ApiError, also for an error that the watch carries (410: list again).
        """
        seconds = self._settings.watch_seconds
        path = wire.with_query(
            wire.collection(kind_of(kind), tenant, namespace),
            watch="true",
            allowWatchBookmarks="true",
            resourceVersion=since,
            timeoutSeconds=str(seconds + random.randrange(seconds // 10 + 1)),  # noqa: S311 - spreads reconnections
            labelSelector=labels,
            fieldSelector=fields,
        )
        async with aclosing(self.lines(path)) as lines:
            async for line in lines:
                event = wire.decode_event(kind, line, tenant)
                if event is not None:
                    yield event

    async def lines(self, path: str) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that has no end, as they come. End it with ``aclosing``."""
        lines = wire.Lines()
        async with aclosing(self.stream(path)) as chunks:
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    yield line

    async def create(self, tenant: TenantName, obj: T) -> T:
        """Creates; the answer has what the server filled in."""
        path = wire.collection(kind_of(type(obj)), tenant, obj.metadata.namespace)
        return wire.decode_object(type(obj), await self.raw("POST", path, wire.encode_object(obj)), tenant)

    async def update(self, tenant: TenantName, obj: T, subresource: str = "") -> T:
        """Replaces. Only for kinds whose typed struct is complete: what it does not know would be lost."""
        ref = Ref(tenant, obj.metadata.namespace, obj.metadata.name)
        path = wire.member(kind_of(type(obj)), ref, subresource)
        return wire.decode_object(type(obj), await self.raw("PUT", path, wire.encode_object(obj)), tenant)

    async def patch(self, kind: type[T], ref: Ref, patch: object, *, how: str = "merge", subresource: str = "") -> T:
        """Changes parts. ``how`` is merge (RFC 7386), json (RFC 6902) or strategic (Kubernetes)."""
        path = wire.member(kind_of(kind), ref, subresource)
        body = await self.raw("PATCH", path, wire.encode(patch), content_type=wire.known_patch(how))
        return wire.decode_object(kind, body, ref.tenant)

    async def delete(
        self,
        kind: type[T],
        ref: Ref,
        *,
        uid: str = "",
        resource_version: str = "",
        grace: int | None = None,
        propagation: str = "",
    ) -> None:
        """Deletes, if UID and resource version are those given. ``grace`` in seconds; ``propagation`` is Background,
        Foreground or Orphan.
        """
        guard = wire.Preconditions(uid=uid or None, resource_version=resource_version or None)
        options = wire.DeleteOptions(
            api_version="v1",
            kind="DeleteOptions",
            grace_period_seconds=grace,
            preconditions=guard if uid or resource_version else None,
            propagation_policy=propagation or None,
        )
        await self.raw("DELETE", wire.member(kind_of(kind), ref), wire.encode(options))

    async def raw(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> bytes:
        """Any request; ``path`` begins with a slash and may carry a query. What certainly changed nothing at a server that
        does not answer is asked of the next one.
        """
        headers = {"Content-Type": content_type} if body is not None else {}
        left = len(self._settings.servers)
        while True:
            server, left = self._server, left - 1
            try:
                async with self._session().request(
                    method, server + path, data=body, headers=headers, allow_redirects=False
                ) as response:
                    answer = await response.read()
                break
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self._move_on(server)
                if not left or not (method == "GET" or isinstance(error, aiohttp.ClientConnectorError)):
                    raise UnreachableError(f"{method} {path}: no answer: {_why(error)}") from error
        wire.raise_for(response.status, answer)
        return answer

    def _move_on(self, failed: str) -> None:
        """The next server is asked from now on, unless somebody moved on already."""
        servers = self._settings.servers
        if self._server == failed and failed in servers:
            self._server = servers[(servers.index(failed) + 1) % len(servers)]

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """The body of an answer of any size, as it comes. End it with ``aclosing``."""
        session, server = self._session(watch=True), self._server
        try:
            async with session.get(server + path, allow_redirects=False) as response:
                if response.status >= 300:
                    wire.raise_for(response.status, await response.read())
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._move_on(server)
            raise UnreachableError(f"GET {path}: the answer broke off: {_why(error)}") from error

    async def upload(self, path: str, file: Path) -> bytes:
        """Posts a file of any size."""
        session, server = self._session(watch=True), self._server
        try:
            with file.open("rb") as body:
                async with session.post(server + path, data=body, allow_redirects=False) as response:
                    answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            self._move_on(server)
            raise UnreachableError(f"POST {path}: no answer: {_why(error)}") from error
        wire.raise_for(response.status, answer)
        return answer

    async def close(self) -> None:
        """Ends all connections."""
        for session in (self._calls, self._watches):
            if session is not None:
                await session.close()
        self._calls = self._watches = None

    async def refresh(self) -> None:
        """Reads authority and certificate from their files again: connections that are made from now on use them. Those made
        before end when what they carry must have ended, which takes minutes; so long this lasts.
        """
        before = (self._calls, self._watches)
        self._calls = self._watches = None
        try:
            await asyncio.sleep(self._settings.watch_seconds * 1.2 + self._settings.timeout)
        finally:
            for session in before:
                if session is not None:
                    await session.close()

    def _session(self, *, watch: bool = False) -> aiohttp.ClientSession:
        """Made at first use: a session belongs to the loop that it was made on."""
        if self._calls is None or self._watches is None:
            settings = self._settings
            context = tls_context(settings)
            once = aiohttp.ClientTimeout(total=settings.timeout)
            # A watch is silent for long; that its peer is gone is seen by the kernel (see keep_alive).
            long = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout)
            self._calls = _session(settings, context, CALLS, once)
            self._watches = _session(settings, context, 0, long)
        return self._watches if watch else self._calls


def tls_context(settings: ClientSettings) -> ssl.SSLContext:
    """Trusts the given authority alone, and shows our certificate if there is one. Raises OSError."""
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context


def keep_alive(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
    """A socket on which a vanished peer is noticed within 30 seconds, idle or not (RFC 1122, RFC 5482)."""
    family, kind, protocol = info[:3]
    made = socket.socket(family, kind, protocol)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
    ):
        made.setsockopt(level, option, value)
    return made


def _session(
    settings: ClientSettings, context: ssl.SSLContext, limit: int, timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=context, limit=limit, socket_factory=keep_alive)
    headers = {"Accept": "application/json", "User-Agent": "polder"}
    if settings.token:
        headers["Authorization"] = f"Bearer {settings.token}"
    return aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout)


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__
