"""grpc.health.v1.Health/Check in as much HTTP/2 (RFC 9113, HPACK RFC 7541) as one call needs, over a socket of the pod's.

gRPC's own library opens its connections itself, from the agent's namespace, so it cannot be used.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from polder.node.probes.outcome import SUCCESS, Outcome, failure

STATES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
UNIMPLEMENTED = 12
FRAMES = 64
"""Frames that are read at most."""
_LARGEST = 16384
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# No dynamic table, so that every header stands in its frame; no push.
_OWN_SETTINGS = struct.pack("!HIHI", 1, 0, 2, 0)
_STATUS_NAMES = frozenset({b"grpc-status", bytes.fromhex("9acac8b21234da8f")})
"""The trailer's name, plain and in HPACK's Huffman code."""
_DIGITS = {f"{n:05b}": str(n) for n in range(3)} | {f"{22 + n:06b}": str(n) for n in range(3, 10)}
"""RFC 7541, appendix B: the codes of the digits."""


class ProtocolError(Exception):
    """The other side does not speak HTTP/2."""


@dataclass(slots=True)
class _Seen:
    message: bytes = b""
    code: int | None = None
    ended: bool = False


async def check(sock: socket.socket, authority: str, service: str, agent: str) -> Outcome:
    """One call. Takes the socket over; the caller bounds the time."""
    try:
        reader, writer = await asyncio.open_connection(sock=sock, limit=2 * _LARGEST)
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, _OWN_SETTINGS) + _call(authority, service, agent))
        seen = _Seen()
        for _ in range(FRAMES):
            if seen.ended:
                break
            await _read(reader, writer, seen)
    except (OSError, EOFError, ProtocolError, IndexError, struct.error):
        return failure("error: health rpc probe failed: the connection ended without an answer")
    finally:
        writer.transport.abort()
    return _judge(seen)


def _judge(seen: _Seen) -> Outcome:
    if seen.code == UNIMPLEMENTED:
        return failure("error: this server does not implement the grpc health protocol (grpc.health.v1.Health)")
    if seen.code != 0:
        return failure(f"error: health rpc probe failed: rpc error: code = {seen.code if seen.code is not None else 2}")
    state = _state(seen.message)
    name = STATES[state] if state < len(STATES) else str(state)
    return SUCCESS if name == "SERVING" else failure(f'service unhealthy (responded with "{name}")')


def _state(message: bytes) -> int:
    """HealthCheckResponse.status (field 1, an enumeration) of a message with gRPC's five bytes in front."""
    body = message[5:]
    return body[1] if len(body) >= 2 and body[0] == 0x08 else 0


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _call(authority: str, service: str, agent: str) -> bytes:
    """The request's headers, of static names and plain values, and its message."""
    block = b"\x83\x86"  # :method POST, :scheme http
    block += b"\x04" + _string(b"/grpc.health.v1.Health/Check")
    block += b"\x01" + _string(authority.encode())
    block += b"\x0f\x10" + _string(b"application/grpc")
    block += b"\x0f\x2b" + _string(agent.encode())
    block += b"\x00" + _string(b"te") + _string(b"trailers")
    named = service.encode()
    message = b"\x0a" + _varint(len(named)) + named if named else b""
    if len(message) + 5 > _LARGEST:
        raise OSError("the service's name is too long")
    data = struct.pack("!BI", 0, len(message)) + message
    return _frame(_HEADERS, _END_HEADERS, 1, block) + _frame(_DATA, _END_STREAM, 1, data)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the low ones first: protobuf's, and what follows a full prefix of HPACK's integer."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _string(text: bytes) -> bytes:
    """A plain string literal."""
    if len(text) < 127:
        return bytes([len(text)]) + text
    return b"\x7f" + _varint(len(text) - 127) + text


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: _Seen) -> None:
    head = await reader.readexactly(9)
    size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
    if size > _LARGEST:
        raise ProtocolError(size)
    payload = await reader.readexactly(size)
    if kind == _SETTINGS and not flags & _ACK:
        writer.write(_frame(_SETTINGS, _ACK, 0, b""))
    elif kind == _PING and not flags & _ACK:
        writer.write(_frame(_PING, _ACK, 0, payload))
    elif kind in (_RESET, _GOAWAY):
        raise ProtocolError(kind)
    elif stream == 1 and kind == _DATA:
        seen.message += _unpadded(payload, flags)
        seen.ended = bool(flags & _END_STREAM)
    elif stream == 1 and kind == _HEADERS:
        for name, value in headers(_unpadded(payload, flags & ~_PRIORITY)[5 if flags & _PRIORITY else 0 :]):
            if name in _STATUS_NAMES:
                seen.code = _code(value)
        seen.ended = bool(flags & _END_STREAM)


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


def headers(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of a header block as they stand there: an indexed name is empty, Huffman codes stay codes."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:
            _, at = _number(block, at, 7)
            continue
        if first & 0xE0 == 0x20:
            _, at = _number(block, at, 5)
            continue
        index, at = _number(block, at, 6 if first & 0x40 else 4)
        name, value = b"", b""
        if not index:
            name, at = _text(block, at)
        value, at = _text(block, at)
        yield name, value


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    value = block[at] & ((1 << bits) - 1)
    at += 1
    if value < (1 << bits) - 1:
        return value, at
    shift = 0
    while shift < 28:
        byte = block[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    raise ProtocolError("a number without end")


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    size, after = _number(block, at, 7)
    return block[after : after + size], after + size


def _code(value: bytes) -> int:
    """A status of one or two digits, plain or in HPACK's Huffman code."""
    if value.isdigit():
        return int(value)
    bits, digits = "".join(f"{byte:08b}" for byte in value[:4]), ""
    while True:
        found = next((code for code in _DIGITS if bits.startswith(code)), None)
        if found is None:
            break
        digits, bits = digits + _DIGITS[found], bits[len(found) :]
    return int(digits) if digits else 2
