"""TLS listeners on aiohttp's low-level server, and who is at the other end of each connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from polder.api.errors import bad_request, internal
from polder.apiserver.answers import error_answer
from polder.apiserver.gate import Doors, Place, Room, Waiter, source_of
from polder.apiserver.raw import RawConnection
from polder.apiserver.settings import ServerSettings
from polder.apiserver.types import Connection
from polder.base.ids import TenantName

log = logging.getLogger(__name__)

KEEPALIVE_TIMEOUT = 120.0
SHUTDOWN_TIMEOUT = 5.0
"""Seconds for a peer to say that it ends too."""
LINE_LIMIT = 64 * 1024
BACKLOG = 1024
UNSENT = 128 * 1024
"""Bytes that the kernel holds for a client that does not read; it would let it be megabytes."""
ACCEPT_PAUSE = 0.5
"""Seconds after a failed accept (no file descriptors left, for example)."""


def make_tls_context(settings: ServerSettings) -> ssl.SSLContext:
    """A server context that asks for a client certificate but does not need one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key)
    context.load_verify_locations(settings.client_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context


class ServerConnection(RequestHandler):
    """One connection: knows its pin, its certificate and when it was lost."""

    __slots__ = ("_first_request", "_lost_callbacks", "_place", "_raw", "_started", "certificate", "pin")

    def __init__(
        self, manager: web.Server, pin: TenantName | None, place: Place, first_request: float, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self.pin = pin
        self._place = place
        self._first_request = first_request
        self.certificate: bytes | None = None
        self._lost_callbacks: set[Callable[[], None]] = set()
        self._started: asyncio.TimerHandle | None = None
        self._raw: RawConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the verified certificate from the handshake, and gives the peer a time to ask something."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self.certificate = tls.getpeercert(binary_form=True) if tls else None
        self._started = self._loop.call_later(self._first_request, self._close_unused)
        self._place.is_idle, self._place.end = self._is_idle, self._end

    def _is_idle(self) -> bool:
        """Whether it could be ended with nothing lost but itself."""
        return self._current_request is None and not self._messages

    def _end(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _close_unused(self) -> None:
        """Ends a connection on which nobody asked anything, or only half a head."""
        if self._request_count == 0 and not self._messages:
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tells those who wait on this connection, such as watches."""
        if self._started is not None:
            self._started.cancel()
        self._place.leave()
        for callback in tuple(self._lost_callbacks):
            callback()
        if self._raw is not None:
            self._raw.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """HTTP, until the connection was taken over."""
        if self._raw is not None:
            self._raw.feed(data)
        else:
            super().data_received(data)

    def take_over(self) -> RawConnection:
        """From now on everything that comes is the taker's. Raises ConnectionError where the peer has gone."""
        if self.transport is None or self._raw is not None:
            raise ConnectionResetError("the peer has gone")
        first, self._message_tail = self._message_tail, b""
        self._raw = RawConnection(self.transport, self._drain_helper, first)
        return self._raw

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP request gets a Status too; the connection ends with it."""
        log.info("request from %s cannot be read: %s", request.remote, message or exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        first = (message or str(exc) or "not HTTP").strip().partition("\n")[0]
        answer = error_answer(bad_request(first) if 400 <= status < 500 else internal("the request failed"))
        answer.force_close()
        return answer

    def on_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back once when the connection is lost; the answer takes the callback back."""
        self._lost_callbacks.add(callback)
        return lambda: self._lost_callbacks.discard(callback)


@dataclass(slots=True)
class _Guest:
    """A connection that was accepted; ``begun`` when its socket is the event loop's."""

    sock: socket.socket
    context: ssl.SSLContext
    room: Room
    waiter: Waiter
    place: Place
    pin: TenantName | None
    begun: bool = False


class Listener:
    """Accepts connections and turns requests into calls of ``handler``."""

    def __init__(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], doors: Doors | None = None
    ) -> None:
        self._handler = handler
        self._doors = doors or Doors()
        self._local, self._network, self._tenants = map(
            Room, (self._doors.local, self._doors.network, self._doors.tenants)
        )
        self._server: web.Server | None = None
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def _protocol(self, pin: TenantName | None, place: Place) -> ServerConnection:
        assert self._server is not None
        return ServerConnection(
            self._server,
            pin,
            place,
            self._doors.first_request,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
            auto_decompress=True,
        )

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> int:
        """Listens; returns the port. Raises OSError."""
        if self._server is None:
            self._server = web.Server(self._handler)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, address in dict.fromkeys((row[0], row[4][0]) for row in found):
            listening = socket.create_server((address, port), family=family, backlog=BACKLOG)
            listening.setblocking(False)
            self._sockets.append(listening)
            self._listen(listening, context)
            port = int(listening.getsockname()[1])
        return port

    def _listen(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        if listening.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening, context)

    def _accept(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        """One connection in each turn of the loop: however many come, what is served goes on."""
        try:
            sock, peer = listening.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            log.warning("accept failed: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listening)
            loop.call_later(ACCEPT_PAUSE, self._listen, listening, context)
            return
        sock.setblocking(False)
        with suppress(OSError):  # it may be lost already, or there is no room
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
            local, source = source_of(peer, sock.getsockname())
            self._enter(sock, context, self._local if local else self._network, source)

    def _enter(
        self, sock: socket.socket, context: ssl.SSLContext, room: Room, source: str, pin: TenantName | None = None
    ) -> asyncio.Task[None]:
        """Finds a connection its place, and begins with it. Raises OSError where there is none."""
        waiter = Waiter(source)
        place = room.enter(waiter)
        if place is None:
            sock.close()
            raise ConnectionAbortedError("there is no room for another connection")
        guest = _Guest(sock, context, room, waiter, place, pin)
        task = asyncio.get_running_loop().create_task(self._shake(guest))
        self._tasks.add(task)
        task.add_done_callback(partial(self._entered, guest))
        return task

    def _entered(self, guest: _Guest, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not guest.begun:
            guest.sock.close()
            guest.place.leave()
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            log.log(level, "a connection from %s failed at its start: %r", guest.waiter.source, error)

    async def _shake(self, guest: _Guest) -> None:
        """Waits for the turn, and shakes hands. Raises OSError."""
        handshakes = guest.room.handshakes
        began = await handshakes.take(guest.waiter, self._doors.waiting)
        guest.begun = True
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._protocol(guest.pin, guest.place),
                guest.sock,
                ssl=guest.context,
                ssl_handshake_timeout=self._doors.handshake,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except BaseException:
            guest.place.leave()
            raise
        finally:
            handshakes.give(guest.waiter, began)

    async def serve_socket(self, sock: socket.socket, context: ssl.SSLContext, pin: TenantName) -> None:
        """Serves one accepted connection, pinned to ``pin``. Returns when the handshake is done; raises OSError."""
        await self._enter(sock, context, self._tenants, pin, pin)

    def stop_accepting(self) -> None:
        """Closes the listening sockets; connections go on, but for those that have not begun."""
        loop = asyncio.get_running_loop()
        while self._sockets:
            listening = self._sockets.pop()
            loop.remove_reader(listening)
            listening.close()
        for task in self._tasks:
            task.cancel()

    async def stop(self, grace: float) -> None:
        """Ends all connections, after at most ``grace`` seconds for requests that run."""
        self.stop_accepting()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            transports = [c.transport for c in self._server.connections if c.transport is not None]
            self._server.pre_shutdown()
            await self._server.shutdown(grace)
            for transport in transports:
                transport.abort()  # a peer that does not read would hold it open
            await asyncio.sleep(0)


def connection_of(request: web.BaseRequest) -> Connection:
    """Where a request came in."""
    protocol = request.protocol
    assert isinstance(protocol, ServerConnection)
    peer = protocol.peername
    shown = peer[0] if isinstance(peer, tuple) else str(peer or "")
    return Connection(protocol.certificate, protocol.pin, shown)


def on_lost(request: web.BaseRequest, callback: Callable[[], None]) -> Callable[[], None]:
    """Calls back when the request's connection is lost; the answer takes the callback back."""
    protocol = request.protocol
    assert isinstance(protocol, ServerConnection)
    return protocol.on_lost(callback)
