"""Carries a connected socket over a stream of the mux, untouched, both ways, each way ending by itself."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Protocol

CHUNK = 64 * 1024


class ByteStream(Protocol):
    """A stream of the mux, as far as bytes go."""

    async def read(self) -> bytes:
        """The next bytes; empty at the peer's end. Raises ConnectionError when the stream is lost or reset."""
        ...

    async def write(self, data: bytes) -> None:
        """Hands bytes over, waiting for credit. Raises ConnectionError."""
        ...

    async def end(self) -> None:
        """No more bytes from here."""
        ...

    async def reset(self, reason: str) -> None:
        """Gives the stream up, both ways."""
        ...


async def carry(sock: socket.socket, stream: ByteStream) -> None:
    """Returns when both directions have ended or one broke; closes the socket, and the stream where it is not ended."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_to_stream(sock, stream))
            group.create_task(_to_socket(sock, stream))
    except ExceptionGroup as broken:
        await _give_up(stream, "the connection broke")
        rest = broken.split(OSError)[1]
        if rest is not None:
            raise rest from None
    except asyncio.CancelledError:
        await _give_up(stream, "the carrier stopped")
        raise
    finally:
        sock.close()


async def _give_up(stream: ByteStream, reason: str) -> None:
    with suppress(ConnectionError):  # the whole mux is gone, and the stream with it
        await stream.reset(reason)


async def _to_stream(sock: socket.socket, stream: ByteStream) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, CHUNK):
        await stream.write(data)
    await stream.end()


async def _to_socket(sock: socket.socket, stream: ByteStream) -> None:
    loop = asyncio.get_running_loop()
    while data := await stream.read():
        await loop.sock_sendall(sock, data)
    sock.shutdown(socket.SHUT_WR)
