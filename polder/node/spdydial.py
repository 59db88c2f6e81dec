"""A SPDY/3.1 connection to the container runtime's streaming server, on this machine's loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from polder.base.errors import PolderError
from polder.client.spdy import SpdyError, SpdySession
from polder.system.cri_streaming import Waiting

PROTOCOL: Final = "v4.channel.k8s.io"
DIAL: Final = 10.0
"""Seconds for the connection and its upgrade."""
HEAD_LIMIT: Final = 16 * 1024
READ: Final = 64 * 1024


class UpgradeError(PolderError):
    """The runtime did not agree to the connection; the sentence is its own."""


class _Socket:
    """``spdy.Wire`` on a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        return await self._reader.read(READ)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


Connect = Callable[[str, int], Awaitable[socket.socket]]
"""A connected, non-blocking socket to the runtime. Raises OSError."""


async def connect_here(host: str, port: int) -> socket.socket:
    """From this process's own network namespace, which is the runtime's too."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def spdy_connection(where: Waiting, connect: Connect) -> AsyncIterator[SpdySession]:
    """A session that runs as long as the context. Raises UpgradeError, OSError, TimeoutError."""
    async with asyncio.timeout(DIAL):
        sock = await connect("127.0.0.1" if where.host == "localhost" else where.host, where.port)
    reader, writer = await asyncio.open_connection(sock=sock, limit=HEAD_LIMIT)
    try:
        async with asyncio.timeout(DIAL):
            await _upgrade(reader, writer, where)
        session = SpdySession(_Socket(reader, writer), client=True)
        running = asyncio.ensure_future(_run(session))
        try:
            yield session
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    finally:
        # Not closed in good order: that waits until the runtime has taken all input, which a command that reads none prevents.
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def _run(session: SpdySession) -> None:
    with suppress(SpdyError, OSError):  # every stream knows
        await session.run()


async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: Waiting) -> None:
    head = (
        f"POST {where.path} HTTP/1.1\r\nHost: {where.host}:{where.port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {PROTOCOL}\r\nContent-Length: 0\r\n\r\n"
    )
    writer.write(head.encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise UpgradeError("the container runtime's answer cannot be read") from error
    status = answer.split(b" ", 2)[1:2]
    if status != [b"101"]:
        said = (await reader.read(HEAD_LIMIT)).decode(errors="replace").strip()
        raise UpgradeError(said or "the container runtime refuses the connection")
