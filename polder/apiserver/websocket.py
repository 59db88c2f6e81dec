"""The server's side of a WebSocket (RFC 6455) on a connection that was taken over.

Messages are handed on in the parts in which they come: how long one is, which the client chooses, fills no memory.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from polder.api.errors import bad_request
from polder.apiserver.raw import RawConnection, upgrade

PART: Final = 64 * 1024
"""The most payload that is handed on, or sent in one frame, at a time."""
CONTROL: Final = 125
"""The most payload of a control frame (RFC 6455, 5.5)."""
NORMAL, GOING_AWAY, BROKEN = 1000, 1001, 1002
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a message. ``first`` and ``last`` are of its message."""

    data: bytes
    text: bool
    first: bool
    last: bool


class _BrokenError(Exception):
    """The client does not keep to the protocol."""


def is_websocket(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for one."""
    return headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in headers.get("Connection", "").lower()


def asked_protocols(headers: Mapping[str, str]) -> list[str]:
    """The sub-protocols that the client speaks, its favourite first."""
    return [name for part in headers.get("Sec-WebSocket-Protocol", "").split(",") if (name := part.strip())]


def choose(headers: Mapping[str, str], known: Sequence[str]) -> str:
    """The client's favourite of those known, empty where it names none. Raises ApiError 400 where there is none."""
    asked = asked_protocols(headers)
    found = next((name for name in asked if name in known), "")
    if asked and not found:
        raise bad_request(f"unable to upgrade: the server knows none of the sub-protocols {', '.join(asked)[:200]}")
    return found


async def accept(request: web.BaseRequest, protocol: str) -> tuple[web.StreamResponse, WebSocket]:
    """Agrees to a WebSocket. Raises ApiError 400, ConnectionError."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    try:
        good = len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        good = False
    if not good or request.headers.get("Sec-WebSocket-Version") != "13" or request.method != "GET":
        raise bad_request("unable to upgrade: this is no handshake of WebSocket version 13")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Accept": base64.b64encode(digest).decode()}
    if protocol:
        headers["Sec-WebSocket-Protocol"] = protocol
    response, connection = await upgrade(request, headers)
    return response, WebSocket(connection)


class WebSocket:
    """One task receives; several may send."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._left = 0
        self._mask = b""
        self._final = True
        self._within: int | None = None
        self._fresh = False
        self._first = True
        self._closed = False

    async def receive(self) -> Part | None:
        """The next part; None when the client has ended, or does not keep to the protocol."""
        try:
            while not self._closed:
                part = self._part()
                if part is not None and (part.data or part.first or part.last):
                    return part
                if part is None:
                    received = await self._connection.read()
                    if not received:
                        return None
                    self._buffer += received
        except _BrokenError as error:
            self.close(BROKEN, str(error))
        return None

    async def send(self, data: bytes, *, text: bool = False) -> None:
        """One message. Raises ConnectionError."""
        if self._closed:
            raise ConnectionResetError("the WebSocket is closed")
        await self._connection.write(_frame(_TEXT if text else _BINARY, data))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Says that it is over; what was sent before arrives before."""
        if not self._closed:
            self._closed = True
            self._connection.post(_frame(_CLOSE, struct.pack("!H", code) + reason.encode()[: CONTROL - 2]))

    async def wait_closed(self) -> None:
        """Returns when the client has closed too."""
        while await self._connection.read():
            pass

    def _part(self) -> Part | None:
        """What of a message is there; None where more bytes are needed."""
        if self._left == 0 and not self._fresh and not self._head():
            return None
        size = min(self._left, PART, len(self._buffer))
        if size == 0 and self._left:
            return None
        data = _unmasked(self._buffer[:size], self._mask)
        del self._buffer[:size]
        self._left -= size
        self._mask = self._mask[size % 4 :] + self._mask[: size % 4]
        part = Part(data, self._within == _TEXT, self._fresh and self._first, self._final and self._left == 0)
        self._fresh = False
        if part.last:
            self._within = None
        return part

    def _head(self) -> bool:
        """Reads the head of a frame of data, and the control frames before it; False where more bytes are needed."""
        while len(self._buffer) >= 2 and not self._closed:
            opcode, size = self._buffer[0] & 15, self._buffer[1] & 127
            if self._buffer[0] & 0x70 or not self._buffer[1] & 128:
                raise _BrokenError("a frame is not masked, or has reserved bits")
            begin = 2 + {126: 2, 127: 8}.get(size, 0)
            if len(self._buffer) < begin + 4:
                return False
            final = bool(self._buffer[0] & 128)
            if size > CONTROL:
                size = int.from_bytes(self._buffer[2:begin], "big")
            if opcode >= _CLOSE:
                if not self._control(opcode, begin, size if final else CONTROL + 1):
                    return False
                continue
            self._open(opcode)
            self._mask = bytes(self._buffer[begin : begin + 4])
            del self._buffer[: begin + 4]
            self._left, self._final, self._fresh = size, final, True
            return True
        return False

    def _open(self, opcode: int) -> None:
        if opcode == _CONTINUED:
            if self._within is None:
                raise _BrokenError("nothing is to be continued")
            self._first = False
        elif opcode in {_TEXT, _BINARY} and self._within is None:
            self._within, self._first = opcode, True
        else:
            raise _BrokenError("a frame of this kind may not come here")

    def _control(self, opcode: int, begin: int, size: int) -> bool:
        """Answers a control frame; False where more bytes are needed."""
        if size > CONTROL:
            raise _BrokenError("a control frame is too long or in parts")
        if len(self._buffer) < begin + 4 + size:
            return False
        payload = _unmasked(self._buffer[begin + 4 : begin + 4 + size], bytes(self._buffer[begin : begin + 4]))
        del self._buffer[: begin + 4 + size]
        if opcode == _PING:
            self._connection.post(_frame(_PONG, payload))
        elif opcode == _CLOSE:
            self.close(NORMAL)
        return True


def _unmasked(data: bytes | bytearray, mask: bytes) -> bytes:
    size = len(data)
    if not size:
        return b""
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    if size <= CONTROL:
        head = bytes((128 | opcode, size))
    elif size < 65536:
        head = struct.pack("!BBH", 128 | opcode, 126, size)
    else:
        head = struct.pack("!BBQ", 128 | opcode, 127, size)
    return head + payload
