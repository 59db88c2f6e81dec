"""Calls out of the server to what tenants name: admission and conversion webhooks, aggregated APIs.

A service reference becomes the address of a ready endpoint of that service, taken from the tenant's EndpointSlices, so no
service datapath is needed. TLS is checked here, against the reference's ``caBundle`` and the name ``SERVICE.NAMESPACE.svc``.
Redirects are not followed, answers are bounded, and each tenant has a bounded number of calls at a time: its slow
webhooks hold up nobody else's.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from socket import AF_UNIX
from urllib.parse import quote, urlsplit

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from polder.api.meta import Raw
from polder.apiserver.dial import DialError, Target
from polder.apiserver.fairness import away
from polder.apiserver.objects import service_term
from polder.apiserver.outconn import (
    REUSE_LIMIT,
    Connect,
    DialConnector,
    Pair,
    Peer,
    Turns,
    decode_bundle,
)
from polder.base.errors import RetryableError
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Key, Store

log = logging.getLogger(__name__)

ANSWER_LIMIT = 3 * 1024 * 1024
"""Bytes of a webhook's answer."""
AT_ONCE = 48
"""Calls of one tenant at a time."""
ENDPOINT_SLICES = "endpointslices.discovery.k8s.io"
SLICES = 64
"""EndpointSlices of a service that are looked at for a ready endpoint."""
ENOUGH = 4
"""After so many no further one is, if there is an endpoint to choose."""
HTTPS = 443
CLUSTER_DOMAIN = "cluster.local"
_QUERY = "/%:@!$&'()*+,;=~-._?[]"


class OutcallError(RetryableError):
    """A call got no good answer. ``timeout`` tells whether the time was up; ``status`` is the answer's, 0 without one."""

    def __init__(self, message: str, *, timeout: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.timeout = timeout
        self.status = status


@dataclass(frozen=True, slots=True)
class Place:
    """What a reference means: the peer, the URL as messages show it, and the path with its query."""

    peer: Peer
    url: str
    path: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request. ``timeout`` in seconds bounds the time to the answer's head; ``body`` may be sent in parts."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | AsyncIterator[bytes] = b""
    timeout: float = 30.0


class Outcalls:
    """Makes the calls of every tenant."""

    def __init__(self, store: Store, connect: Connect) -> None:
        self._store = store
        self._connect = connect
        self._turns = Turns(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._connector: DialConnector | None = None

    async def close(self) -> None:
        """Ends every connection."""
        if self._session is not None:
            await self._session.close()
        self._session = self._connector = None

    async def post(self, tenant: TenantName, client_config: Raw, body: bytes, timeout: float) -> bytes:
        """The answer's body to a JSON document; ``timeout`` in seconds, waiting for a turn included. Raises OutcallError."""
        url = shown_url(client_config)
        try:
            async with away(), asyncio.timeout(timeout), self._turns.turn(tenant):
                place = await self.place(tenant, client_config)
                return await self._post(place, body, timeout)
        except TimeoutError as error:
            raise OutcallError(f'Post "{url}": context deadline exceeded', timeout=True) from error
        except DialError as error:
            raise OutcallError(f'Post "{url}": {error}') from error

    async def _post(self, place: Place, body: bytes, timeout: float) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "polder-apiserver"}
        what = Exchange("POST", place.path, headers, body, timeout)
        for attempt in (0, 1):
            try:
                async with self.exchange(place.peer, what, fresh=bool(attempt)) as answer:
                    return await _whole(answer, place.url)
            except aiohttp.ServerDisconnectedError as error:
                if attempt:
                    raise OutcallError(f'Post "{place.url}": EOF') from error
            except (aiohttp.ClientError, OSError) as error:
                if attempt or not was_dead(error):
                    raise OutcallError(f'Post "{place.url}": {said(error)}') from error
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def exchange(
        self, peer: Peer, what: Exchange, *, fresh: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, its body still to be read. ``fresh`` makes a new connection. Raises DialError, OSError,
        aiohttp.ClientError.
        """
        session, connector = self._started()
        id_ = connector.use(peer)
        try:
            url = URL(f"{'http' if peer.plain else 'https'}://{id_}{what.path}", encoded=True)
            headers = CIMultiDict(what.headers)
            headers.setdefault("Host", _host(peer))
            if fresh or connector.open >= REUSE_LIMIT:
                headers["Connection"] = "close"
            limits = aiohttp.ClientTimeout(total=None)
            async with session.request(
                what.method, url, data=what.body or None, headers=headers, timeout=limits, allow_redirects=False,
            ) as answer:  # fmt: skip
                yield answer
        finally:
            connector.leave(id_)

    async def open(self, peer: Peer, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of the caller's own, which closes it; ``limit`` bounds a line. Raises DialError, OSError."""
        sock = await self._connect(peer.target)
        self._started()
        assert self._connector is not None
        try:
            context = await self._connector.context(peer)
            how = asyncio.open_unix_connection if sock.family == AF_UNIX else asyncio.open_connection
            return await how(sock=sock, limit=limit, ssl=context, server_hostname=peer.name if context else None)
        except BaseException:
            sock.close()
            raise

    def turn(self, tenant: TenantName) -> object:
        """The bound on a tenant's calls, for who uses ``exchange``."""
        return self._turns.turn(tenant)

    def _started(self) -> tuple[aiohttp.ClientSession, DialConnector]:
        """Made at first use: a session belongs to the loop that it was made on."""
        if self._session is None or self._connector is None:
            self._connector = DialConnector(self._connect)
            self._session = aiohttp.ClientSession(
                connector=self._connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept-Encoding"),
                max_line_size=16 * 1024,
            )
        return self._session, self._connector

    async def place(self, tenant: TenantName, client_config: Raw, pair: Pair | None = None) -> Place:
        """What a ``clientConfig`` means now. Raises DialError."""
        bundle = decode_bundle(str(client_config.get("caBundle") or ""))
        url = shown_url(client_config)
        service = client_config.get("service")
        if service:
            name, namespace = str(service.get("name", "")), str(service.get("namespace", ""))
            port = int(service.get("port") or HTTPS)
            target = await self.resolve(tenant, namespace, name, port)
            return Place(Peer(target, f"{name}.{namespace}.svc", bundle, pair, port=port), url, _path_of(url))
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise DialError("the URL must be https://host[:port]/path")
        host, port = parts.hostname, parts.port or HTTPS
        local = _local_service(host)
        if local is not None:
            target = await self.resolve(tenant, *local, port)
        else:
            target = Target(tenant, host, port)
        return Place(Peer(target, host, bundle, pair, port=port), url, _path_of(url))

    async def resolve(self, tenant: TenantName, namespace: str, name: str, port: int) -> Target:
        """A ready endpoint behind a port of a service, chosen at random. Raises DialError in upstream's words."""
        entry = await self._store.get(Key("services", tenant, namespace, name))
        if entry is None:
            raise DialError(f'service "{name}" not found')
        spec = orjson.loads(entry.value).get("spec") or {}
        if spec.get("type") == "ExternalName":
            return Target(tenant, str(spec.get("externalName", "")), port)
        wanted = next((p for p in spec.get("ports") or [] if p.get("port") == port), None)
        if wanted is None:
            raise DialError(f'no service port {port} found for service "{name}"')
        found = await self._endpoints(tenant, namespace, name, wanted.get("name") or "")
        if not found:
            raise DialError(f'no endpoints available for service "{name}"')
        return random.choice(found)  # noqa: S311 - spreads load, hides nothing

    async def look(self, tenant: TenantName, namespace: str, name: str, port: int) -> tuple[str, str] | None:
        """What is missing of a service, as a reason and a message; None if a ready endpoint is there."""
        place = f'service/{name} in "{namespace}"'
        entry = await self._store.get(Key("services", tenant, namespace, name))
        if entry is None:
            return "ServiceNotFound", f"{place} is not present"
        spec = orjson.loads(entry.value).get("spec") or {}
        if spec.get("type") == "ExternalName":
            return None
        wanted = next((p for p in spec.get("ports") or [] if p.get("port") == port), None)
        if wanted is None:
            return "ServicePortError", f"{place} is not listening on port {port}"
        if not await self._endpoints(tenant, namespace, name, wanted.get("name") or ""):
            named = wanted.get("name") or ""
            return "MissingEndpoints", f'endpointslices for {place} have no addresses with port name "{named}"'
        return None

    async def _endpoints(self, tenant: TenantName, namespace: str, name: str, port: str) -> list[Target]:
        """Ready endpoints: of slices in any order, up to the first few that have some."""
        keys = await self._store.by_term(service_term(namespace, name), tenant)
        mine = [key for key in keys if key.resource == ENDPOINT_SLICES]
        found: list[Target] = []
        for number, key in enumerate(random.sample(mine, min(len(mine), SLICES))):
            if found and number >= ENOUGH:
                break
            entry = await self._store.get(key)
            if entry is not None:
                found += targets_of(orjson.loads(entry.value), tenant, port)
        return found


def targets_of(slice_: Raw, tenant: TenantName, port: str) -> list[Target]:
    """The ready endpoints of one EndpointSlice behind a named port; none where the slice says no number, which means any."""
    number = next((p.get("port") for p in slice_.get("ports") or [] if (p.get("name") or "") == port), None)
    if number is None or slice_.get("addressType") not in {None, "IPv4", "IPv6"}:
        return []
    found = []
    for endpoint in slice_.get("endpoints") or []:
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        node = str(endpoint.get("nodeName") or "") if endpoint.get("targetRef") or tenant != ROOT else ""
        found += [Target(tenant, str(address), int(number), node) for address in endpoint.get("addresses") or []]
    return found


def shown_url(client_config: Raw) -> str:
    """The URL of a ``clientConfig`` as messages show it."""
    service = client_config.get("service")
    if not service:
        return str(client_config.get("url") or "")
    path = str(service.get("path") or "/")
    host = f"{service.get('name', '')}.{service.get('namespace', '')}.svc:{service.get('port') or HTTPS}"
    return f"https://{host}/{path.lstrip('/')}"


def with_query(client_config: Raw, query: str) -> Raw:
    """The same reference with something added to the URL's query."""
    service = client_config.get("service")
    if service:
        path = str(service.get("path") or "/")
        return {**client_config, "service": {**service, "path": f"{path}{'&' if '?' in path else '?'}{query}"}}
    url = str(client_config.get("url") or "")
    return {**client_config, "url": f"{url}{'&' if '?' in url else '?'}{query}"}


def _path_of(url: str) -> str:
    """Path and query for a request's first line: what may not stand there is encoded (RFC 3986), what is encoded stays."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return f"{path}?{quote(parts.query, safe=_QUERY)}" if parts.query else path


def _local_service(host: str) -> tuple[str, str] | None:
    """(namespace, name) of ``NAME.NAMESPACE.svc`` and ``….svc.cluster.local``: the tenant's own services, by no DNS."""
    labels = host.rstrip(".").removesuffix(f".{CLUSTER_DOMAIN}").split(".")
    return (labels[1], labels[0]) if len(labels) == 3 and labels[2] == "svc" else None


def _host(peer: Peer) -> str:
    return peer.name if peer.port == HTTPS else f"{peer.name}:{peer.port}"


async def _whole(answer: aiohttp.ClientResponse, url: str) -> bytes:
    """The body, bounded. Raises OutcallError for every status but 200."""
    parts, size = [], 0
    async for chunk in answer.content.iter_chunked(64 * 1024):
        size += len(chunk)
        if size > ANSWER_LIMIT:
            answer.close()
            raise OutcallError(f'Post "{url}": the answer is longer than {ANSWER_LIMIT} bytes', status=answer.status)
        parts.append(chunk)
    body = b"".join(parts)
    if answer.status != 200:
        raise OutcallError(_refusal(answer.status, body), status=answer.status)
    return body


def _refusal(status: int, body: bytes) -> str:
    """What an answer with an error says, short."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict) and said.get("kind") == "Status" and isinstance(said.get("message"), str):
        return str(said["message"])[:1024]
    if 300 <= status < 400:
        return f"the server answered with a redirect (status {status}), which is not followed"
    return f"the server could not handle the request (status {status})"


def was_dead(error: BaseException) -> bool:
    """Whether a connection that was kept had ended before the call began."""
    return isinstance(error, OSError) and error.errno in {errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN}


def said(error: BaseException) -> str:
    """What went wrong with a connection, in the field's words. aiohttp wraps the system's errors."""
    cause = error.__cause__ if isinstance(error, aiohttp.ClientError) and error.__cause__ is not None else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"tls: {cause.reason or cause}"
    if isinstance(cause, DialError):
        return str(cause)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return str(error) or type(error).__name__
