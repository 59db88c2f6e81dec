"""SPDY/3.1 on the wire: frames to bytes and back, headers compressed; no input or output.

Of the protocol (SPDY draft 3.1) this is what Kubernetes' clients and container runtimes speak after an upgrade: streams
with headers, data, resets and pings. There is no flow control in their dialect: WINDOW_UPDATE, SETTINGS and the rest are
passed over. A data frame is handed on in the parts in which it comes, so that its length, which the peer chooses, fills no
memory; everything else has a bound, and what is beyond it ends the connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from polder.base.errors import PermanentError

VERSION: Final = 3
CONTROL_LIMIT: Final = 8 * 1024
"""Bytes of a control frame."""
HEADERS_LIMIT: Final = 4 * 1024
"""Bytes of a header block when it is inflated: a name, a port, a kind."""
DATA_CHUNK: Final = 64 * 1024
"""The most payload of a data frame of ours."""
FIN: Final = 1
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE: Final = ("200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_REST: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = (
    b"".join(struct.pack("!I", len(word)) + word.encode() for word in (*_WORDS.split(), *_MORE)) + _REST.encode()
)
"""What both sides' compressors know from the start (SPDY draft 3.1, 2.6.10.1): 1423 bytes."""

_HEAD: Final = struct.Struct("!II")
_NUMBER: Final = struct.Struct("!I")
_STREAM_BITS: Final = 0x7FFFFFFF


class SpdyError(PermanentError):
    """The peer speaks no SPDY that can be understood; the connection is over."""


@dataclass(frozen=True, slots=True)
class Opened:
    """SYN_STREAM, or SYN_REPLY where ``reply``."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False
    reply: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A part of a data frame; ``fin`` with the last one of a stream."""

    stream: int
    payload: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """RST_STREAM."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """PING; who gets one that the other began sends it back."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """GOAWAY: the peer takes no more streams."""


Frame = Opened | Data | Reset | Ping | GoAway


class Encoder:
    """Makes the bytes of frames. Headers share one compressor, so they must be sent in the order in which they were made."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def opened(self, frame: Opened) -> bytes:
        """A SYN_STREAM or SYN_REPLY."""
        pairs = [_NUMBER.pack(len(frame.headers))]
        for name, value in frame.headers.items():
            for text in (name.lower().encode(), value.encode()):
                pairs += [_NUMBER.pack(len(text)), text]
        block = self._deflate.compress(b"".join(pairs)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        if frame.reply:
            return _control(SYN_REPLY, _NUMBER.pack(frame.stream) + block, FIN if frame.fin else 0)
        fixed = struct.pack("!IIBB", frame.stream, 0, 0, 0)
        return _control(SYN_STREAM, fixed + block, FIN if frame.fin else 0)


def data(stream: int, payload: bytes | memoryview, *, fin: bool = False) -> bytes:
    """A data frame; at most DATA_CHUNK bytes belong in one."""
    return b"".join((_HEAD.pack(stream, (FIN if fin else 0) << 24 | len(payload)), payload))


def reset(stream: int, status: int) -> bytes:
    """A RST_STREAM."""
    return _control(RST_STREAM, struct.pack("!II", stream, status))


def ping(number: int) -> bytes:
    """A PING."""
    return _control(PING, _NUMBER.pack(number))


def goaway(last: int) -> bytes:
    """A GOAWAY: ``last`` is the last stream of the peer's that was taken."""
    return _control(GOAWAY, struct.pack("!II", last, 0))


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(0x80000000 | VERSION << 16 | kind, flags << 24 | len(body)) + body


class Decoder:
    """Turns bytes into frames."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = bytearray()
        self._data: tuple[int, int, bool] | None = None

    def feed(self, received: bytes) -> Iterator[Frame]:
        """What is whole now. Raises SpdyError."""
        self._buffer += received
        while True:
            frame = self._data_part() if self._data is not None else self._next()
            if frame is None:
                return
            if not isinstance(frame, bool):
                yield frame

    def _next(self) -> Frame | bool | None:
        """The next frame; True for one that says nothing to us, None where more bytes are needed."""
        if len(self._buffer) < _HEAD.size:
            return None
        first, second = _HEAD.unpack_from(self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first & 0x80000000:
            del self._buffer[: _HEAD.size]
            self._data = (first & _STREAM_BITS, length, bool(flags & FIN))
            return self._data_part(begun=True)
        if (first >> 16) & 0x7FFF != VERSION:
            raise SpdyError("the peer does not speak SPDY/3")
        if length > CONTROL_LIMIT:
            raise SpdyError(f"a control frame of {length} bytes is longer than {CONTROL_LIMIT}")
        if len(self._buffer) < _HEAD.size + length:
            return None
        body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        try:
            return self._control(first & 0xFFFF, flags, body)
        except (struct.error, zlib.error, UnicodeDecodeError) as error:
            raise SpdyError(f"a control frame cannot be read: {error}") from error

    def _data_part(self, *, begun: bool = False) -> Frame | bool | None:
        assert self._data is not None
        stream, left, fin = self._data
        if not self._buffer and (left or not begun):
            return None
        payload = bytes(self._buffer[:left])
        del self._buffer[:left]
        left -= len(payload)
        self._data = (stream, left, fin) if left else None
        if not payload and left:
            return None
        return Data(stream, payload, fin and not left)

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | bool:
        if kind == SYN_STREAM:
            stream, _, _, _ = struct.unpack_from("!IIBB", body)
            return Opened(stream & _STREAM_BITS, self._headers(body[10:]), bool(flags & FIN))
        if kind == SYN_REPLY:
            return Opened(_NUMBER.unpack_from(body)[0] & _STREAM_BITS, self._headers(body[4:]), bool(flags & FIN), True)
        if kind == RST_STREAM:
            stream, status = struct.unpack_from("!II", body)
            return Reset(stream & _STREAM_BITS, status)
        if kind == PING:
            return Ping(_NUMBER.unpack_from(body)[0])
        if kind == GOAWAY:
            return GoAway()
        if kind == 8:  # HEADERS: nobody sends any, but the compressor's state must be kept
            self._headers(body[4:])
        return True

    def _headers(self, block: bytes) -> dict[str, str]:
        plain = self._inflate.decompress(block, HEADERS_LIMIT)
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"headers are longer than {HEADERS_LIMIT} bytes")
        found, position = {}, 4
        for _ in range(_NUMBER.unpack_from(plain)[0]):
            name, position = _text(plain, position)
            value, position = _text(plain, position)
            found[name.lower()] = value
        return found


def _text(plain: bytes, position: int) -> tuple[str, int]:
    size = _NUMBER.unpack_from(plain, position)[0]
    begin = position + _NUMBER.size
    if begin + size > len(plain):
        raise SpdyError("a header is cut off")
    return plain[begin : begin + size].decode(), begin + size
