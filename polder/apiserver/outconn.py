"""The HTTP client of calls out of the server: TLS checked here, sockets from the dialer, connections reused within bounds.

A pool is shared by everybody; its keys hold tenant, address, port, the name and the authorities that are checked, and
the certificate that is shown, so that no connection serves another purpose than the one it was made for.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ssl
import tempfile
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import ClientRequest
from aiohttp.client_proto import ResponseHandler

from polder.apiserver.dial import DialError, Target
from polder.base.ids import TenantName

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

CONTEXTS = 128
"""TLS contexts that are kept, the least used dropped."""
KEEP_IDLE = 15.0
"""Seconds that a connection waits to be used again."""
REUSE_LIMIT = 256
"""Open connections beyond which none is kept for reuse."""
BUNDLE_LIMIT = 256 * 1024
"""Bytes of a ``caBundle``: it is parsed for each new context."""

Connect = Callable[[Target], Awaitable[socket]]
"""Gives a connected, non-blocking socket. Raises DialError."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A client certificate and its key (PEM), shown to who asks for one."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom to talk to: how to get there, which name its certificate must have, by which authorities (PEM, empty for the
    system's), and what certificate to show. ``plain`` is without TLS. ``insecure`` accepts any certificate. ``port`` is the
    one that the caller named, for the Host header.
    """

    target: Target
    name: str
    authorities: bytes = b""
    pair: Pair | None = None
    plain: bool = False
    insecure: bool = False
    port: int = 443

    def without_checks(self) -> Peer:
        """The same, taken with whatever certificate it shows."""
        return replace(self, insecure=True, authorities=b"")

    @property
    def id(self) -> str:
        """A host name for the pool that no other peer has."""
        target = self.target
        parts = (target.tenant, target.address, str(target.port), self.name, str(self.plain), str(self.insecure))
        digest = hashlib.sha256("\0".join(parts).encode() + b"\0" + self.authorities)
        if self.pair is not None:
            digest.update(self.pair.certificate)
        return f"{digest.hexdigest()[:40]}.dial"


class BadBundleError(DialError):
    """A ``caBundle`` that cannot be read."""


def decode_bundle(text: str) -> bytes:
    """The PEM of a ``caBundle`` as objects have it. Raises BadBundleError."""
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadBundleError("unable to load root certificates: the CA bundle is not base64") from error
    if len(found) > BUNDLE_LIMIT:
        raise BadBundleError(f"unable to load root certificates: the CA bundle is longer than {BUNDLE_LIMIT} bytes")
    return found


class Contexts:
    """TLS contexts by what they check and show."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[bytes, bool, Pair | None], ssl.SSLContext] = OrderedDict()

    async def of(self, peer: Peer) -> ssl.SSLContext:
        """Raises BadBundleError."""
        key = (hashlib.sha256(peer.authorities).digest(), peer.insecure, peer.pair)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = await asyncio.to_thread(_context, peer)
            while len(self._made) > CONTEXTS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return found


def _context(peer: Peer) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=peer.authorities.decode() if peer.authorities else None)
    except (ssl.SSLError, UnicodeDecodeError, ValueError) as error:
        raise BadBundleError("unable to load root certificates: unable to parse bytes as PEM block") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if peer.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if peer.pair is not None:
        with tempfile.TemporaryDirectory(prefix="polder.") as directory:  # OpenSSL's binding reads keys from files only
            certificate, key = Path(directory) / "crt", Path(directory) / "key"
            for path, content in ((certificate, peer.pair.certificate), (key, peer.pair.key)):
                path.touch(0o600)
                path.write_bytes(content)
            context.load_cert_chain(certificate, key)
    return context


@dataclass(slots=True)
class _Known:
    """A peer while requests to it are under way."""

    peer: Peer
    users: int = 0


class DialConnector(aiohttp.BaseConnector):
    """aiohttp's pool on the dialer's sockets. The host of a URL is the id of a peer."""

    def __init__(self, connect: Connect) -> None:
        super().__init__(limit=0, keepalive_timeout=KEEP_IDLE)
        self._connect_peer = connect
        self._contexts = Contexts()
        self._known: dict[str, _Known] = {}
        self.open = 0

    def use(self, peer: Peer) -> str:
        """Makes the peer's id good for URLs until ``leave``."""
        known = self._known.setdefault(peer.id, _Known(peer))
        known.users += 1
        return peer.id

    async def context(self, peer: Peer) -> ssl.SSLContext | None:
        """What TLS with a peer checks; None where there is none. Raises BadBundleError."""
        return None if peer.plain else await self._contexts.of(peer)

    def leave(self, id_: str) -> None:
        """One use less."""
        known = self._known[id_]
        known.users -= 1
        if not known.users:
            del self._known[id_]

    async def _create_connection(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        del traces, timeout  # the caller bounds the whole
        peer = self._known[req.url.host or ""].peer
        context = await self.context(peer)
        sock = await self._connect_peer(peer.target)
        loop = asyncio.get_running_loop()
        how = loop.create_unix_connection if sock.family == AF_UNIX else loop.create_connection
        try:
            _, made = await how(self._factory, sock=sock, ssl=context, server_hostname=peer.name if context else None)
        except BaseException:
            sock.close()
            raise
        protocol: ResponseHandler = made
        self.open += 1
        ended = protocol.closed
        if ended is None:
            self.open -= 1
        else:
            ended.add_done_callback(self._ended)
        return protocol

    def _ended(self, closed: asyncio.Future[None]) -> None:
        self.open -= 1
        if not closed.cancelled():
            closed.exception()  # seen


@dataclass(slots=True)
class Turns:
    """Bounds what one tenant does at a time; costs nothing for who does nothing."""

    limit: int
    _busy: Counter[TenantName] = field(default_factory=Counter)
    _waiting: dict[TenantName, OrderedDict[asyncio.Future[None], None]] = field(default_factory=dict)

    @asynccontextmanager
    async def turn(self, tenant: TenantName) -> AsyncIterator[None]:
        """Waits until fewer than ``limit`` are at it."""
        await self._enter(tenant)
        try:
            yield
        finally:
            self._exit(tenant)

    async def _enter(self, tenant: TenantName) -> None:
        if self._busy[tenant] < self.limit:
            self._busy[tenant] += 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(tenant, OrderedDict())
        queue[future] = None
        try:
            await future  # whose turn ends passes it on
        except BaseException:
            if future.done() and not future.cancelled():
                self._exit(tenant)
            raise
        finally:
            queue.pop(future, None)
            if not queue and self._waiting.get(tenant) is queue:
                del self._waiting[tenant]

    def _exit(self, tenant: TenantName) -> None:
        for future in self._waiting.get(tenant, ()):
            if not future.done():
                future.set_result(None)
                return
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]
