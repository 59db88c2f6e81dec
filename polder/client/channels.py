"""The channels of a command in a container, carried over one stream of the mux between server and agent.

A message is ``u8 channel | u24 length | payload``. The server begins with REQUEST (JSON); the agent answers OPENED, empty or
why it refuses. With START, when the user's side is ready, the command begins; the agent sends output, then STATUS, a
metav1.Status, and ends. Numbers 0 to 4 are those of Kubernetes' remote command protocol; HALT says that a channel, here only
stdin, has come to its end.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final

from polder.base.errors import PolderError
from polder.client.carry import ByteStream

STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)
REQUEST: Final = 250
OPENED: Final = 251
START: Final = 252
HALT: Final = 255
_HEAD: Final = struct.Struct("!I")
MESSAGE_LIMIT: Final = 256 * 1024
"""Bytes of one message's payload."""
PART: Final = 64 * 1024
"""The most payload that is put into one message of input or output."""


class ChannelError(PolderError, ConnectionError):
    """The other end of a stream does not keep to the rules."""


class Channels:
    """Messages over a stream; several tasks may send, one receives."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self._buffer = bytearray()
        self._sending = asyncio.Lock()

    async def send(self, channel: int, payload: bytes) -> None:
        """One message, in parts where it is long. Raises ConnectionError."""
        view = memoryview(payload)
        size = MESSAGE_LIMIT if channel > RESIZE or channel == STATUS else PART
        for begin in range(0, len(view) or 1, size):
            part = view[begin : begin + size]
            async with self._sending:
                await self.stream.write(b"".join((_HEAD.pack(channel << 24 | len(part)), part)))

    async def receive(self) -> tuple[int, bytes] | None:
        """The next message; None at the end. Raises ConnectionError."""
        while True:
            if len(self._buffer) >= _HEAD.size:
                head = _HEAD.unpack_from(self._buffer)[0]
                channel, size = head >> 24, head & 0xFFFFFF
                if size > MESSAGE_LIMIT:
                    raise ChannelError(f"a message of {size} bytes is longer than {MESSAGE_LIMIT}")
                if len(self._buffer) >= _HEAD.size + size:
                    payload = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
                    del self._buffer[: _HEAD.size + size]
                    return channel, payload
            received = await self.stream.read()
            if not received:
                if self._buffer:
                    raise ChannelError("the stream ended within a message")
                return None
            self._buffer += received
