"""Answers written from records: compression, sizes, truncation (RFC 1035, 2181, 6891). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polder.dns.wire import (
    AA,
    CD,
    CNAME,
    FIXED,
    HEAD,
    IN,
    LARGEST,
    NS,
    PTR,
    QR,
    RA,
    RD,
    TC,
    Labels,
    Query,
    encode_name,
    option_record,
)

_POINTS = 0x4000
"""Beyond this a compressed name cannot point (14 bits)."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of class IN. ``data`` stands as it is; a ``target`` is a name behind it, compressed where that is allowed."""

    owner: Labels
    kind: int
    ttl: int
    data: bytes = b""
    target: Labels | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered, before there are bytes."""

    rcode: int
    answers: Sequence[Record] = ()
    authority: Sequence[Record] = ()
    additional: Sequence[Record] = ()
    authoritative: bool = True


class _Writer:
    """A message that grows while it stays within a size."""

    def __init__(self, query: Query, limit: int) -> None:
        self.body = bytearray(HEAD.size)
        self.body += query.question
        self._limit = limit
        self._names: dict[Labels, int] = {}
        self._note(query.labels, HEAD.size)

    def _note(self, labels: Labels, at: int) -> None:
        for number, label in enumerate(labels):
            if at < _POINTS:
                self._names.setdefault(labels[number:], at)
            at += 1 + len(label)

    def _name(self, labels: Labels) -> bytes:
        """A name, ending in a pointer if its end stands somewhere already."""
        for number in range(len(labels)):
            found = self._names.get(labels[number:])
            if found is not None:
                head = encode_name(labels[:number])[:-1]
                return head + (0xC000 | found).to_bytes(2, "big")
        return encode_name(labels)

    def add(self, record: Record) -> bool:
        """Writes one record; False where it does not fit, and then nothing is written."""
        start = len(self.body)
        owner = self._name(record.owner)
        data = record.data
        data_at = start + len(owner) + FIXED.size
        if record.target is not None:
            # The target of SRV is not compressed (RFC 2782), nor is the name of a kind that receivers may not know (RFC 3597).
            compress = record.kind in (NS, CNAME, PTR)
            data += self._name(record.target) if compress else encode_name(record.target)
        if data_at + len(data) > self._limit:
            return False
        self.body += owner + FIXED.pack(record.kind, IN, record.ttl, len(data)) + data
        self._note(record.owner, start)
        return True

    def add_all(self, records: Sequence[Record]) -> int:
        """How many of them fit, from the first on."""
        for number, record in enumerate(records):
            if not self.add(record):
                return number
        return len(records)


def write(query: Query, reply: Reply, limit: int = LARGEST) -> bytes:
    """The answer's bytes. What does not fit is left out: of answers and authority with the bit TC, of additional records without
    (RFC 2181, section 9).
    """
    option = option_record(query.secure, reply.rcode) if query.edns else b""
    writer = _Writer(query, limit - len(option))
    answers = writer.add_all(reply.answers)
    cut = answers < len(reply.answers)
    authority = 0 if cut else writer.add_all(reply.authority)
    cut = cut or authority < len(reply.authority)
    additional = 0 if cut else writer.add_all(reply.additional)
    flags = QR | query.flags & (RD | CD) | RA | reply.rcode & 0xF
    flags |= (AA if reply.authoritative else 0) | (TC if cut else 0)
    writer.body += option
    HEAD.pack_into(writer.body, 0, query.id, flags, 1, answers, authority, additional + bool(option))
    return bytes(writer.body)


def soa_data(serial: int, negative: int, server: Labels, mailbox: Labels) -> bytes:
    """The data of SOA: server, mailbox and times; ``negative`` is for how many seconds a denial is kept (RFC 2308)."""
    times = b"".join(number.to_bytes(4, "big") for number in (serial, 7200, 1800, 86400, negative))
    return encode_name(server) + encode_name(mailbox) + times
