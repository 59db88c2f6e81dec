"""Queries as they come over the wire (RFC 1035, 6891), and names. Pure; the work is bounded by the number of bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from polder.base.errors import PermanentError

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE = 0x7800
DO = 0x8000
"""DNSSEC OK, in the flags of OPT (RFC 3225)."""
HEAD = struct.Struct("!HHHHHH")
TYPED = struct.Struct("!HH")
FIXED = struct.Struct("!HHIH")
"""What follows a record's name: type, class, TTL, length."""
UDP_SIZE = 1232
"""Bytes of an answer over UDP at most, as we say to others too: what fits every path without fragments (DNS flag day 2020)."""
PLAIN_SIZE = 512
"""The same for clients without EDNS."""
LONGEST_NAME = 255
LONGEST_LABEL = 63
LARGEST = 65535
EXTRAS = 4
"""Additional records of a query that are looked at: OPT stands alone in practice."""

Labels = tuple[bytes, ...]
"""A name without its root, in lower case where names are compared."""


class MalformedError(PermanentError):
    """Bytes that are no message of DNS. ``rcode`` is what its sender is told; negative is nothing."""

    def __init__(self, text: str, rcode: int = FORMERR) -> None:
        super().__init__(text)
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Query:
    """One question. ``question`` are its bytes as they came; ``size`` is what the answer may have over UDP. ``edns`` says that an
    answer carries OPT; ``secure`` is the bit DO.
    """

    id: int
    flags: int
    question: bytes
    labels: Labels
    kind: int
    klass: int
    edns: bool = False
    secure: bool = False
    version: int = 0
    size: int = PLAIN_SIZE


def encode_name(labels: Labels) -> bytes:
    """A name as it stands in a message, not compressed. Labels are taken to be within their lengths."""
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


def labels_of(text: str) -> Labels | None:
    """The labels of a name in dotted text, in lower case; None where no message can hold it."""
    parts = text.lower().removesuffix(".").encode("utf-8", "replace").split(b".")
    if (
        any(not 0 < len(part) <= LONGEST_LABEL for part in parts)
        or sum(map(len, parts)) + len(parts) + 1 > LONGEST_NAME
    ):
        return None
    return tuple(parts)


def read_plain_name(data: bytes, at: int) -> tuple[Labels, int]:
    """A name without pointers, in lower case, and where it ends. Raises MalformedError."""
    labels: list[bytes] = []
    begun, end = at, len(data)
    while True:
        if at >= end:
            raise MalformedError("a name goes beyond the message")
        length = data[at]
        if length == 0:
            break
        if length > LONGEST_LABEL:
            raise MalformedError("a question's name holds a pointer or an unknown kind of label")
        labels.append(data[at + 1 : at + 1 + length].lower())
        at += 1 + length
    at += 1
    if at - begun > LONGEST_NAME or at > end:
        raise MalformedError("a name is longer than 255 bytes, or than the message")
    return tuple(labels), at


def parse_query(data: bytes) -> Query:
    """A query. Raises MalformedError with what its sender gets."""
    if len(data) < HEAD.size:
        raise MalformedError("less than a header", rcode=-1)
    number, flags, questions, answers, authorities, extras = HEAD.unpack_from(data)
    if flags & QR:
        raise MalformedError("an answer, which is not answered", rcode=-1)
    if flags & OPCODE:
        raise MalformedError("an operation other than a query", NOTIMP)
    if questions != 1 or answers or authorities or extras > EXTRAS:
        raise MalformedError("not one question and nothing but that")
    labels, at = read_plain_name(data, HEAD.size)
    if at + TYPED.size > len(data):
        raise MalformedError("a question without type and class")
    kind, klass = TYPED.unpack_from(data, at)
    at += TYPED.size
    question = data[HEAD.size : at]
    option = _find_option(data, at, extras)
    if option is None:
        return Query(number, flags, question, labels, kind, klass)
    size, lifetime = option
    return Query(
        number,
        flags,
        question,
        labels,
        kind,
        klass,
        edns=True,
        secure=bool(lifetime & DO),
        version=lifetime >> 16 & 0xFF,
        size=min(max(size, PLAIN_SIZE), UDP_SIZE),
    )


def _find_option(data: bytes, at: int, extras: int) -> tuple[int, int] | None:
    """OPT's class (the sender's size) and TTL (version and flags). Its options are not looked into: none is known here."""
    found = None
    for _ in range(extras):
        named, at = read_plain_name(data, at)
        if at + FIXED.size > len(data):
            raise MalformedError("an additional record is cut off")
        kind, klass, lifetime, length = FIXED.unpack_from(data, at)
        at += FIXED.size + length
        if at > len(data):
            raise MalformedError("an additional record is cut off")
        if kind == OPT:
            if found is not None or named:
                raise MalformedError("OPT twice, or with a name")
            found = klass, lifetime
    return found


def option_record(secure: bool, rcode: int = 0) -> bytes:
    """Our OPT: our size, no options. ``rcode``'s upper bits stand in it (RFC 6891, section 6.1.3)."""
    return b"\0" + FIXED.pack(OPT, UDP_SIZE, rcode >> 4 << 24 | (DO if secure else 0), 0)


def refusal(data: bytes, rcode: int) -> bytes:
    """The answer to what could not be read: a header alone."""
    number, flags = TYPED.unpack_from(data)
    return HEAD.pack(number, QR | flags & (OPCODE | RD | CD) | RA | rcode, 0, 0, 0, 0)
