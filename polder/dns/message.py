"""Answers of upstream servers: read with distrust, kept, and given to clients with their own id, size and OPT. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from polder.dns.wire import (
    CD,
    CNAME,
    FIXED,
    HEAD,
    LONGEST_LABEL,
    LONGEST_NAME,
    MX,
    NOERROR,
    NS,
    NXDOMAIN,
    OPCODE,
    OPT,
    PTR,
    QR,
    RA,
    RD,
    SOA,
    TC,
    Labels,
    MalformedError,
    Query,
    encode_name,
    option_record,
    read_plain_name,
)
from polder.dns.writer import Record

LONGEST = 3600
"""Seconds for which an answer is kept at most."""
LONGEST_DENIAL = 300
"""The same for one that says that there is nothing."""
_RECORDS = 4096
_Names = dict[int, tuple[Labels, int]]
"""Names by where they stand, each with its length."""
_JUMPS = 32
_NAMED = {NS: 0, CNAME: 0, PTR: 0, MX: 2}
"""Kinds whose data ends in a name that may be compressed, and what stands before it."""


@dataclass(frozen=True, slots=True)
class Held:
    """An upstream answer without OPT. ``ends`` are where its records end, ``ttls`` where their TTLs stand; ``lifetime`` is for
    how many seconds it may be kept, 0 is not at all.
    """

    body: bytes
    rcode: int
    question_end: int
    counts: tuple[int, ...]
    ends: tuple[int, ...]
    ttls: tuple[int, ...]
    lifetime: int

    @property
    def weight(self) -> int:
        """Bytes of memory, about."""
        return len(self.body) + 16 * len(self.ends) + 400


def question_for(number: int, labels: Labels, kind: int, klass: int, flags: tuple[bool, bool]) -> bytes:
    """A query to an upstream server. ``flags``: whether its client checks signatures itself (CD), and wants them (DO)."""
    disabled, secure = flags
    head = HEAD.pack(number, RD | (CD if disabled else 0), 1, 0, 0, 1)
    return head + encode_name(labels) + kind.to_bytes(2, "big") + klass.to_bytes(2, "big") + option_record(secure)


def is_answer(data: bytes, asked: bytes) -> bool:
    """Whether these bytes answer the query ``asked``: its id, its question and nothing else. What does not is not ours."""
    if len(data) < HEAD.size:
        return False
    number, flags, questions, *_ = HEAD.unpack_from(data)
    if number != int.from_bytes(asked[:2], "big") or not flags & QR or flags & OPCODE:
        return False
    question = asked[HEAD.size : -len(option_record(False))]
    end = HEAD.size + len(question)
    # A name's letters differ in case at most; type and class, its last four bytes, do not.
    return (
        questions == 1 and data[HEAD.size : end - 4].lower() == question[:-4] and data[end - 4 : end] == question[-4:]
    )


def is_cut(data: bytes) -> bool:
    """Whether the answer has to be asked for again over TCP."""
    return bool(int.from_bytes(data[2:4], "big") & TC)


def rcode_of(data: bytes) -> int:
    """The answer's code."""
    return data[3] & 0xF


def read_answer(data: bytes) -> Held:
    """Reads an answer that ``is_answer`` took. Raises MalformedError. What stands behind OPT is left out."""
    _, flags, questions, *counts = HEAD.unpack_from(data)
    at = HEAD.size
    if questions:
        _, at = read_plain_name(data, at)
        at += 4
    if sum(counts) > _RECORDS:
        raise MalformedError("more records than any message has")
    rcode = flags & 0xF
    question_end, kept, denial, positive = at, [0, 0, 0], 0, False
    records: list[_Place] = []
    names: _Names = {}
    for section in [n for n, count in enumerate(counts) for _ in range(count)]:
        place = _place(data, at, names)
        if place.kind == OPT:
            break
        if section == 1 and place.kind == SOA and place.end - place.data >= 4:
            denial = min(place.ttl, int.from_bytes(data[place.end - 4 : place.end], "big"), LONGEST_DENIAL)
        positive = positive or (section == 0 and place.kind != CNAME)
        records.append(place)
        kept[section] += 1
        at = place.end
    lifetime = min([LONGEST, *(place.ttl for place in records)])
    if rcode != NOERROR or not positive:
        # A denial is kept as its SOA says (RFC 2308); what comes without one, and every failure, not at all.
        lifetime = min(lifetime, denial) if rcode in (NOERROR, NXDOMAIN) else 0
    ends, ttls = tuple(place.end for place in records), tuple(place.data - 6 for place in records)
    return Held(data[:at], rcode, question_end, tuple(kept), ends, ttls, lifetime)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record stands: its type and TTL, where its data begins and ends."""

    owner: Labels
    kind: int
    ttl: int
    data: int
    end: int


def _place(data: bytes, at: int, names: _Names) -> _Place:
    owner, start = read_name(data, at, names)
    if start + FIXED.size > len(data):
        raise MalformedError("a record is cut off")
    kind, _, ttl, length = FIXED.unpack_from(data, start)
    end = start + FIXED.size + length
    if end > len(data):
        raise MalformedError("a record is cut off")
    # A TTL with the highest bit set is none (RFC 2181, section 8).
    return _Place(owner, kind, 0 if ttl & 0x80000000 else ttl, start + FIXED.size, end)


def read_name(data: bytes, at: int, names: _Names, jumps: int = 0) -> tuple[Labels, int]:
    """A name that may be compressed, in lower case, and where it ends. Pointers lead backwards, and not for ever; what they
    lead to is noted in ``names`` and read once, for thousands of records may have one name of a hundred labels. Raises
    MalformedError.
    """
    labels: list[bytes] = []
    begun, size = at, 0
    tail: tuple[Labels, int] = (), 0
    while at < len(data):
        length = data[at]
        if length == 0 or length >= 0xC0:
            break
        size += length + 1
        if length > LONGEST_LABEL:
            raise MalformedError("a name has an unknown kind of label")
        labels.append(data[at + 1 : at + 1 + length].lower())
        at += 1 + length
    if at >= len(data):
        raise MalformedError("a name goes beyond the message")
    if data[at]:
        target = int.from_bytes(data[at : at + 2], "big") & 0x3FFF
        if target >= begun or jumps == _JUMPS or at + 2 > len(data):
            raise MalformedError("a pointer does not lead backwards")
        if target not in names:
            found, _ = read_name(data, target, names, jumps + 1)
            names[target] = found, sum(map(len, found)) + len(found)
        tail = names[target]
        at += 1
    if size + tail[1] >= LONGEST_NAME:
        raise MalformedError("a name is too long")
    return (*labels, *tail[0]), at + 1


def records_of(held: Held) -> list[Record]:
    """The answers as records of their own, to stand behind an alias. Raises MalformedError."""
    found = []
    at, names = held.question_end, _Names()
    for _ in range(held.counts[0]):
        place = _place(held.body, at, names)
        at = place.end
        ttl = min(place.ttl, LONGEST)
        if place.kind in _NAMED:
            prefix = held.body[place.data : place.data + _NAMED[place.kind]]
            target, _ = read_name(held.body, place.data + len(prefix), names)
            found.append(Record(place.owner, place.kind, ttl, prefix, target))
        elif place.kind != SOA:
            found.append(Record(place.owner, place.kind, ttl, held.body[place.data : place.end]))
    return found


def give(held: Held, query: Query, age: int, limit: int) -> bytes:
    """The answer for one client, ``age`` seconds after it came. What does not fit is left out, with the bit TC."""
    option = option_record(query.secure) if query.edns else b""
    room = limit - len(option)
    fit = len(held.ends)
    while fit and held.ends[fit - 1] > room:
        fit -= 1
    end = held.ends[fit - 1] if fit else held.question_end
    body = bytearray(held.body[:end])
    for at in held.ttls[:fit]:
        ttl = int.from_bytes(body[at : at + 4], "big")
        body[at : at + 4] = max(0, min(ttl, LONGEST) - age).to_bytes(4, "big")
    answers = min(fit, held.counts[0])
    authority = min(fit - answers, held.counts[1])
    extra = fit - answers - authority
    cut = answers + authority < held.counts[0] + held.counts[1]
    flags = QR | query.flags & (RD | CD) | RA | (TC if cut else 0) | held.rcode
    HEAD.pack_into(body, 0, query.id, flags, 1, answers, authority, extra + bool(option))
    body[HEAD.size : held.question_end] = query.question
    return bytes(body) + option
