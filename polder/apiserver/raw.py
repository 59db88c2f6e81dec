"""A connection that a request has taken over: after 101 its bytes are no longer HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from aiohttp import web

FULL: Final = 64 * 1024
"""Unread bytes with which reading pauses."""
_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))
"""A peer whose machine has gone is noticed within a minute, also where nothing is said for hours."""


class RawConnection:
    """The bytes of a connection, both ways. ``drain`` waits while the peer is slow."""

    def __init__(self, transport: asyncio.Transport, drain: Callable[[], Awaitable[None]], first: bytes) -> None:
        self._transport = transport
        self._drain = drain
        self._unread = bytearray(first)
        self._ended = False
        self._changed = asyncio.Event()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in _KEEPALIVE:
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)

    async def read(self) -> bytes:
        """What has come, at least one byte; empty when the peer has gone."""
        while not self._unread:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        found = bytes(self._unread)
        self._unread.clear()
        if len(found) > FULL and not self._ended and not self._transport.is_closing():
            self._transport.resume_reading()
        return found

    async def write(self, data: bytes) -> None:
        """Hands all of it over, then waits while the peer is slow. Raises ConnectionError."""
        if self._ended or self._transport.is_closing():
            raise ConnectionResetError("the peer has gone")
        self._transport.write(data)
        await self._drain()

    def post(self, data: bytes) -> bool:
        """Hands something small over without waiting; False where the peer is behind already."""
        if self._ended or self._transport.is_closing() or self._transport.get_write_buffer_size() > FULL:
            return False
        self._transport.write(data)
        return True

    def feed(self, data: bytes) -> None:
        """The listener's: something came."""
        before = len(self._unread)
        self._unread += data
        if before <= FULL < len(self._unread) and not self._transport.is_closing():
            self._transport.pause_reading()
        self._changed.set()

    def lost(self) -> None:
        """The listener's: the connection is over."""
        self._ended = True
        self._changed.set()


class Taken(Protocol):
    """A protocol of ours, whose connection can be taken over."""

    def take_over(self) -> RawConnection:
        """From now on everything that comes is the taker's. Raises ConnectionError where the peer has gone."""
        ...


async def upgrade(request: web.BaseRequest, headers: Mapping[str, str]) -> tuple[web.StreamResponse, RawConnection]:
    """Answers 101 with these headers and takes the connection over; when the handler returns, it is closed.

    Raises ConnectionError where the peer has gone.
    """
    protocol: Taken = request.protocol  # type: ignore[assignment]  # every connection of the listener is one
    connection = protocol.take_over()
    response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", **headers})
    response.force_close()
    await response.prepare(request)
    return response, connection
