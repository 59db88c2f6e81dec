"""Bytes of netlink messages: header, attributes, nesting (RFC 3549; linux/netlink.h). Nothing here does I/O."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_ATTR = struct.Struct("=HH")

REQUEST, MULTI, ACK = 0x1, 0x2, 0x4
DUMP_INTERRUPTED = 0x10
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP = 0x300
ACK_CAPPED, ACK_EXTENDED = 0x100, 0x200
"""Flags of an answer: the request is not repeated; attributes follow."""

TYPE_ERROR, TYPE_DONE = 2, 3
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF


@dataclass(frozen=True, slots=True)
class Message:
    """One request: ``kind`` with subsystem, ``flags`` beside REQUEST and ACK, ``body`` with the family's header.

    ``about`` names the thing in errors.
    """

    kind: int
    flags: int
    body: bytes
    about: str = ""

    def pack(self, sequence: int, *, ack: bool) -> bytes:
        """The message on the wire, padded to 4 bytes."""
        flags = self.flags | REQUEST | (ACK if ack else 0)
        return pad(HEADER.pack(HEADER.size + len(self.body), self.kind, flags, sequence, 0) + self.body)


def pad(data: bytes) -> bytes:
    """Fill up to the next multiple of 4, as netlink aligns."""
    return data + b"\0" * (-len(data) % 4)


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute."""
    return pad(_ATTR.pack(4 + len(payload), kind) + payload)


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attr(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """One byte."""
    return attr(kind, struct.pack("=B", value))


def u16be(kind: int, value: int) -> bytes:
    """Two bytes in network order."""
    return attr(kind, struct.pack("!H", value))


def u32(kind: int, value: int) -> bytes:
    """Four bytes in host order."""
    return attr(kind, struct.pack("=I", value))


def u32be(kind: int, value: int) -> bytes:
    """Four bytes in network order (nfnetlink)."""
    return attr(kind, struct.pack("!I", value))


def nested(kind: int, *parts: bytes) -> bytes:
    """Attributes within an attribute."""
    return attr(kind | _NESTED, b"".join(parts))


def mac(kind: int, value: str) -> bytes:
    """A link-layer address, written with colons."""
    return attr(kind, mac_bytes(value))


def ip(kind: int, value: str) -> bytes:
    """An IPv4 or IPv6 address."""
    return attr(kind, ip_bytes(value))


def mac_bytes(value: str) -> bytes:
    """``aa:bb:cc:dd:ee:ff`` as bytes. ValueError for anything else."""
    raw = bytes.fromhex(value.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{value!r} is no MAC address")
    return raw


def mac_text(value: bytes) -> str:
    """Bytes as ``aa:bb:cc:dd:ee:ff``."""
    return value.hex(":")


def ip_bytes(value: str) -> bytes:
    """An address as 4 or 16 bytes. OSError for anything else."""
    return socket.inet_pton(family_of(value), value)


def ip_text(value: bytes) -> str:
    """4 or 16 bytes as an address."""
    return socket.inet_ntop(socket.AF_INET if len(value) == 4 else socket.AF_INET6, value)


def family_of(address: str) -> int:
    """The address family of a written address or prefix."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def each_attr(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes from ``offset`` on, in order; a list of like attributes is read this way."""
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attrs(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes by type."""
    return dict(each_attr(data, offset))


def as_text(data: bytes) -> str:
    """A NUL-terminated string's text."""
    return data.split(b"\0", 1)[0].decode(errors="replace")


def as_u32(data: bytes) -> int:
    """Four bytes in host order, as an int."""
    return int.from_bytes(data[:4], "little" if struct.pack("=H", 1)[0] else "big")


def as_u32be(data: bytes) -> int:
    """Four bytes in network order, as an int."""
    return int.from_bytes(data[:4], "big")
