"""Protocol Buffers' wire format, as far as it is written by hand.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

from typing import Final

VARINT: Final = 0
DOUBLE: Final = 1
LENGTH: Final = 2
_MASK: Final = (1 << 64) - 1


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number as 64 bits of its complement."""
    found = bytearray()
    number &= _MASK
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def head(number: int, form: int) -> bytes:
    """What a field begins with: its number, and VARINT, DOUBLE or LENGTH."""
    return varint(number << 3 | form)


def chunk(number: int, body: bytes) -> bytes:
    """A field of a type that has a length: text, bytes, a message."""
    return head(number, LENGTH) + varint(len(body)) + body
