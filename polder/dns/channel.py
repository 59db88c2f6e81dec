"""How agent and process talk: a unix socket whose packets are one message each, with the sockets that belong to it (unix(7))."""

from __future__ import annotations

import array
import asyncio
import socket
from contextlib import suppress

import msgspec

from polder.base.errors import PermanentError, RetryableError
from polder.dns import facts

LARGEST = 512 * 1024
"""Bytes of one message: a slice of 1,000 endpoints with the longest names has a fifth of it."""
DESCRIPTORS = 2


class ChannelError(RetryableError):
    """The other side has gone, or does not speak as it should."""


def channel_socket() -> socket.socket:
    """A socket of the right kind, with room for the largest message."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * LARGEST)
    with suppress(OSError):
        # Beyond the host's limit, for who may; without, a message of the largest slices would not pass on such hosts.
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUFFORCE if hasattr(socket, "SO_SNDBUFFORCE") else 32, 2 * LARGEST
        )
    sock.setblocking(False)
    return sock


class TooLargeError(PermanentError):
    """A message that the other side would not take."""


class Channel:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    async def send(self, message: facts.Message, descriptors: tuple[int, ...] = ()) -> None:
        """Sends one message, and copies of these descriptors. Raises ChannelError, and TooLargeError for a message that cannot be
        sent over any connection.
        """
        data = facts.encode(message)
        if len(data) > LARGEST:
            raise TooLargeError(f"a message of {len(data)} bytes is longer than {LARGEST}")
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        while True:
            try:
                self._sock.sendmsg([data], extra, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                await self._ready(write=True)
            except OSError as error:
                raise ChannelError(f"the resolver's process does not listen: {error.strerror}", 0.5) from error

    async def receive(self) -> tuple[facts.Message, list[socket.socket]] | None:
        """The next message and its sockets; None when the other side has closed. Raises ChannelError."""
        while True:
            try:
                data, extra, flags, _ = self._sock.recvmsg(LARGEST, socket.CMSG_SPACE(4 * DESCRIPTORS))
            except BlockingIOError:
                await self._ready(write=False)
                continue
            except OSError as error:
                raise ChannelError(f"the agent's connection broke: {error.strerror}", 0.5) from error
            sockets = _sockets(extra)
            if not data:
                return None
            try:
                if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                    raise ChannelError("a message was too large", 0.5)
                return facts.decode(data), sockets
            except msgspec.DecodeError as error:
                for sock in sockets:
                    sock.close()
                raise ChannelError(f"a message was not understood: {error}", 0.5) from error

    async def ended(self) -> None:
        """Returns when the other side has gone; it says nothing of its own accord."""
        while await self.receive() is not None:
            pass

    async def _ready(self, *, write: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        number = self._sock.fileno()
        add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
        add(number, ready.set)
        try:
            await ready.wait()
        finally:
            remove(number)

    def close(self) -> None:
        """Lets go."""
        self._sock.close()


def _sockets(extra: list[tuple[int, int, bytes]]) -> list[socket.socket]:
    found = array.array("i")
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return [socket.socket(fileno=number) for number in found]
