"""The frames of a multiplexed connection and the rules about them: no input or output.

A frame is one message: ``u32 stream | u8 type | payload``, numbers in network order. Streams of the side that dialled
(the agent) are odd, of the other even, and rise. A side may send WINDOW bytes of DATA on a stream before the other
grants more. END says that a side sends no more DATA; RESET ends both ways at once. What a peer does against these rules
ends the connection, because nothing after it can be trusted; frames that cross our own RESET are no offence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

import msgspec
import orjson

from polder.api.meta import Raw
from polder.base.errors import PermanentError, PolderError

WINDOW = 128 * 1024
"""Bytes that may be on the way, or wait unread, on one stream in one direction."""
CHUNK = 32 * 1024
"""The most payload of one DATA frame, so that streams take turns."""
HEADER_LIMIT = 16 * 1024
REASON_LIMIT = 1024
STREAM_LIMIT = 1024
"""Streams that each side may have open; one more is answered with RESET."""

_PREFIX = struct.Struct("!IB")
_CREDIT = struct.Struct("!I")


class FrameType(IntEnum):
    """What a frame says."""

    OPEN = 1
    DATA = 2
    WINDOW = 3
    END = 4
    RESET = 5


_LIMITS = {
    FrameType.OPEN: HEADER_LIMIT,
    FrameType.DATA: CHUNK,
    FrameType.WINDOW: _CREDIT.size,
    FrameType.END: 0,
    FrameType.RESET: REASON_LIMIT,
}


class ProtocolError(PermanentError):
    """The peer broke a rule of the protocol; the connection is over."""


class StreamError(PolderError, ConnectionError):
    """A stream is lost: reset by the peer, or its connection is gone."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message."""

    stream: int
    type: FrameType
    payload: bytes = b""

    def encode(self) -> bytes:
        """As it is sent."""
        return _PREFIX.pack(self.stream, self.type) + self.payload

    @property
    def credit(self) -> int:
        """Of a WINDOW: the bytes granted."""
        return int(_CREDIT.unpack(self.payload)[0])


def decode(message: bytes) -> Frame:
    """A message as a frame. Raises ProtocolError."""
    if len(message) < _PREFIX.size:
        raise ProtocolError(f"a frame of {len(message)} bytes is too short")
    stream, number = _PREFIX.unpack_from(message)
    try:
        kind = FrameType(number)
    except ValueError as error:
        raise ProtocolError(f"frame type {number} is unknown") from error
    payload = message[_PREFIX.size :]
    if len(payload) > _LIMITS[kind]:
        raise ProtocolError(f"{kind.name} of {len(payload)} bytes is longer than {_LIMITS[kind]}")
    if kind is FrameType.WINDOW and len(payload) != _CREDIT.size:
        raise ProtocolError(f"WINDOW carries {len(payload)} bytes instead of {_CREDIT.size}")
    return Frame(stream, kind, payload)


def grant(stream: int, credit: int) -> Frame:
    """A WINDOW frame."""
    return Frame(stream, FrameType.WINDOW, _CREDIT.pack(credit))


def opening(stream: int, header: Raw) -> Frame:
    """An OPEN frame. Raises ProtocolError where the header is too long."""
    payload = orjson.dumps(header)
    if len(payload) > HEADER_LIMIT:
        raise ProtocolError(f"a stream's header of {len(payload)} bytes is longer than {HEADER_LIMIT}")
    return Frame(stream, FrameType.OPEN, payload)


def header_of(frame: Frame) -> Raw:
    """The header of an OPEN. Raises ProtocolError."""
    try:
        return msgspec.json.decode(frame.payload, type=Raw)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"the header of stream {frame.stream} is no JSON object: {error}") from error


@dataclass(slots=True)
class Account:
    """Of one open stream: what each side may still send, and who has ended."""

    ours: bool
    credit: int = WINDOW
    owed: int = WINDOW
    ended: bool = False
    peer_ended: bool = False


class Ledger:
    """All open streams of one side of a connection."""

    def __init__(self, *, dialled: bool) -> None:
        self._parity = 1 if dialled else 0
        self._next = 1 if dialled else 2
        self._last_peer = 0
        self._accounts: dict[int, Account] = {}
        self._count = {True: 0, False: 0}

    def open(self) -> int:
        """A stream of ours. Raises StreamError where there are too many."""
        if self._count[True] >= STREAM_LIMIT:
            raise StreamError(f"{STREAM_LIMIT} streams are open already")
        number = self._next
        self._next += 2
        self._add(number, ours=True)
        return number

    def full(self) -> bool:
        """Whether the peer has as many streams open as it may."""
        return self._count[False] >= STREAM_LIMIT

    def admit(self, number: int) -> None:
        """A stream of the peer's. Raises ProtocolError."""
        if number == 0 or number % 2 == self._parity or number <= self._last_peer:
            raise ProtocolError(f"the peer may not open stream {number}")
        self._last_peer = number

    def accept(self, number: int) -> None:
        """Keeps account of an admitted stream."""
        self._add(number, ours=False)

    def account(self, frame: Frame) -> Account | None:
        """Whose frame it is, booked; None for a stream that is over. Raises ProtocolError."""
        account = self._accounts.get(frame.stream)
        if account is None:
            self._check_was_open(frame)
            return None
        if frame.type is FrameType.WINDOW:
            account.credit += frame.credit
            if account.credit > WINDOW:
                raise ProtocolError(f"stream {frame.stream}: the peer granted more than the window of {WINDOW} bytes")
        elif frame.type is FrameType.DATA:
            account.owed -= len(frame.payload)
            if account.owed < 0:
                raise ProtocolError(f"stream {frame.stream}: the peer sent {-account.owed} bytes beyond its window")
        if frame.type in {FrameType.DATA, FrameType.END} and account.peer_ended:
            raise ProtocolError(f"stream {frame.stream}: {frame.type.name} after END")
        if frame.type is FrameType.END:
            account.peer_ended = True
        return account

    def of(self, number: int) -> Account | None:
        """The account of a stream; None when it is over."""
        return self._accounts.get(number)

    def settle(self, number: int) -> bool:
        """Forgets a stream that both sides have ended; returns whether it is over."""
        account = self._accounts.get(number)
        if account is not None and account.ended and account.peer_ended:
            self.drop(number)
        return number not in self._accounts

    def drop(self, number: int) -> None:
        """Forgets a stream."""
        account = self._accounts.pop(number, None)
        if account is not None:
            self._count[account.ours] -= 1

    def _add(self, number: int, *, ours: bool) -> None:
        self._accounts[number] = Account(ours)
        self._count[ours] += 1

    def _check_was_open(self, frame: Frame) -> None:
        ours = frame.stream % 2 == self._parity
        if frame.stream == 0 or frame.stream >= (self._next if ours else self._last_peer + 1):
            raise ProtocolError(f"{frame.type.name} on stream {frame.stream}, which was never opened")
