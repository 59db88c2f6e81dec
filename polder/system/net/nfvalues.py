"""Values of nftables sets between text and bytes, by the set's type (the type numbers are those of nft's datatypes, kept in
the kernel as NFTA_SET_KEY_TYPE: six bits for each part of a concatenation). Nothing here does I/O.

Canonical text: parts joined by " . "; interface names without quotes; protocols by name where nft has one; ports and
marks in decimal; ranges as prefix where they are one, else ``low-high``; one address without length.
"""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass

from polder.system.net.codec import ip_bytes, ip_text, mac_bytes, mac_text

_VERDICT, _INTEGER, _IP4, _IP6, _MAC, _PROTOCOL, _PORT, _MARK, _IFNAME = 1, 4, 7, 8, 9, 12, 13, 19, 41
_SIZES = {_IP4: 4, _IP6: 16, _MAC: 6, _PROTOCOL: 1, _PORT: 2, _MARK: 4, _IFNAME: 16}
TYPE_NAMES = {
    _IP4: "ipv4_addr",
    _IP6: "ipv6_addr",
    _MAC: "ether_addr",
    _PROTOCOL: "inet_proto",
    _PORT: "inet_service",
    _MARK: "mark",
    _IFNAME: "ifname",
}
"""nft's words for types."""
_PROTOCOLS = {
    1: "icmp",
    2: "igmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    132: "sctp",
}
_NUMBERS = {name: number for number, name in _PROTOCOLS.items()} | {"icmpv6": 58}
_SEPARATOR = " . "
VERDICT_DATA = 0xFFFFFF00
"""NFTA_SET_DATA_TYPE of a verdict map."""


_STEERS = frozenset("\n\r;#{}%\\$()'`")
"""What ends or begins something in nft's language, or is the zone of an address (RFC 4007), in which any text may stand."""


class ValueTextError(ValueError):
    """A key or value does not fit the type of its set."""


@dataclass(frozen=True, slots=True)
class Field:
    """One part: nft's type number and its size in bytes."""

    kind: int
    size: int

    @property
    def space(self) -> int:
        """Bytes that the part takes in a concatenation."""
        return (self.size + 3) & ~3


def fields_of(kind: int, length: int) -> tuple[Field, ...]:
    """The parts of a type number whose bytes have ``length`` in all; what has no fixed size takes the rest."""
    kinds: list[int] = []
    while kind:
        kinds.insert(0, kind & 0x3F)
        kind >>= 6
    if len(kinds) == 1:
        return (Field(kinds[0], length),)
    known = sum([(_SIZES[one] + 3) & ~3 for one in kinds if one in _SIZES])
    return tuple(Field(one, _SIZES.get(one, length - known)) for one in kinds)


def pack(fields: tuple[Field, ...], value: str) -> bytes:
    """One key or value as the kernel holds it."""
    return _join(fields, [_part(field, text) for field, text in zip(fields, _split(fields, value), strict=True)])


def pack_range(fields: tuple[Field, ...], value: str) -> tuple[bytes, bytes]:
    """Lowest and highest of a key whose parts may be prefixes or ranges."""
    pairs = [_bounds(field, text) for field, text in zip(fields, _split(fields, value), strict=True)]
    return _join(fields, [low for low, _ in pairs]), _join(fields, [high for _, high in pairs])


def unpack(fields: tuple[Field, ...], data: bytes) -> str:
    """Canonical text of one key or value."""
    return _SEPARATOR.join(_text(field, part) for field, part in _parts(fields, data))


def unpack_range(fields: tuple[Field, ...], low: bytes, high: bytes) -> str:
    """Canonical text of a range."""
    pairs = zip(_parts(fields, low), _parts(fields, high), strict=True)
    return _SEPARATOR.join(_range_text(field, one, other) for (field, one), (_, other) in pairs)


def canonical(value: str) -> str:
    """A key or value without the quotes that nft accepts around names."""
    return value.replace('"', "")


def quoted(value: str) -> str:
    """A key or value as nft reads it whatever an interface is called. Raises ValueTextError for what nft could take for more than
    that: texts for it are run by root.
    """
    if _STEERS.intersection(value):
        raise ValueTextError(f"{value!r} is no key or value")
    return _SEPARATOR.join(f'"{part}"' if _is_name(part) else part for part in canonical(value).split(_SEPARATOR))


def _is_name(part: str) -> bool:
    return (
        not part.isdecimal() and not set(part) & set(":/ ") and not part.replace(".", "").replace("-", "").isdecimal()
    )


def _split(fields: tuple[Field, ...], value: str) -> list[str]:
    texts = canonical(value).split(_SEPARATOR)
    if len(texts) != len(fields):
        raise ValueTextError(f"{value!r} has {len(texts)} parts where the set has {len(fields)}")
    return texts


def _join(fields: tuple[Field, ...], parts: list[bytes]) -> bytes:
    if len(fields) == 1:
        return parts[0]
    return b"".join(part.ljust(field.space, b"\0") for field, part in zip(fields, parts, strict=True))


def _parts(fields: tuple[Field, ...], data: bytes) -> list[tuple[Field, bytes]]:
    found, offset = [], 0
    for field in fields:
        found.append((field, data[offset : offset + field.size]))
        offset += field.space
    return found


def _part(field: Field, text: str) -> bytes:
    try:
        raw = _encode(field, text)
    except (ValueError, OSError, OverflowError) as exc:
        raise ValueTextError(f"{text!r} does not fit the set's type: {exc}") from exc
    if len(raw) != field.size:
        raise ValueTextError(f"{text!r} does not fit the set's type")
    return raw


def _encode(field: Field, text: str) -> bytes:
    match field.kind:
        case 7 | 8:
            return ip_bytes(text)
        case 9:
            return mac_bytes(text)
        case 12:
            return bytes([_NUMBERS[text] if text in _NUMBERS else int(text, 0)])
        case 19:
            return int(text, 0).to_bytes(4, sys.byteorder)
        case 41:
            if len(text) > 15:
                raise ValueTextError("interface names have at most 15 bytes")
            return text.encode().ljust(16, b"\0")
        case _:
            return int(text, 0).to_bytes(field.size, "big")


def _text(field: Field, raw: bytes) -> str:
    match field.kind:
        case 7 | 8:
            return ip_text(raw)
        case 9:
            return mac_text(raw)
        case 12:
            return _PROTOCOLS.get(raw[0], str(raw[0]))
        case 19:
            return str(int.from_bytes(raw, sys.byteorder))
        case 41:
            return raw.split(b"\0", 1)[0].decode(errors="replace")
        case _:
            return str(int.from_bytes(raw, "big"))


def _bounds(field: Field, text: str) -> tuple[bytes, bytes]:
    if "/" in text and field.kind in (_IP4, _IP6):
        net = ipaddress.ip_network(text, strict=False)
        return net.network_address.packed, net.broadcast_address.packed
    low, dash, high = text.partition("-")
    if dash and field.kind != _IFNAME:
        return _part(field, low), _part(field, high)
    return _part(field, text), _part(field, text)


def _range_text(field: Field, low: bytes, high: bytes) -> str:
    if low == high:
        return _text(field, low)
    if field.kind in (_IP4, _IP6):
        first, last = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        size = last - first + 1
        if size & (size - 1) == 0 and first % size == 0:
            return f"{ip_text(low)}/{len(low) * 8 - size.bit_length() + 1}"
    return f"{_text(field, low)}-{_text(field, high)}"
