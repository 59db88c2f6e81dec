"""Sets and maps of nftables by raw nfnetlink: their types, their elements in batches, all of them listed.

One element costs microseconds here; libnftables (nft.py) is for whole tables.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from polder.system.net.codec import (
    CREATE,
    Message,
    as_text,
    as_u32be,
    attr,
    attrs,
    each_attr,
    nested,
    text,
    u32be,
)
from polder.system.net.netlink import NetlinkError, NetlinkSocket
from polder.system.net.nfvalues import (
    TYPE_NAMES,
    VERDICT_DATA,
    Field,
    ValueTextError,
    fields_of,
    pack,
    pack_range,
    unpack,
    unpack_range,
)

FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}
FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
GENERIC = struct.Struct("!BBH")
"""nfgenmsg: family, version, resource."""
SUBSYSTEM = 10
_NEWSET, _GETSET = SUBSYSTEM << 8 | 9, SUBSYSTEM << 8 | 10
_NEWELEMENT, _GETELEMENT, _DELELEMENT = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 13, SUBSYSTEM << 8 | 14
_BEGIN = Message(0x10, 0, GENERIC.pack(0, 0, SUBSYSTEM), "nftables transaction")
_END = Message(0x11, 0, GENERIC.pack(0, 0, SUBSYSTEM), "nftables transaction")
_ANONYMOUS, _CONSTANT, _INTERVAL, _MAP, _TIMEOUT, _DYNAMIC, _CONCAT = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x80
_INTERVAL_END = 1
_DUMP_TRIES = 8
VERDICTS = {"drop": 0, "accept": 1, "continue": -1, "break": -2, "jump": -3, "goto": -4, "return": -5}
_VERDICT_NAMES = {number: name for name, number in VERDICTS.items()}


@dataclass(frozen=True, slots=True)
class NftSet:
    """A named set or map of a table and the types of its keys and values."""

    family: str
    table: str
    name: str
    flags: int
    key: tuple[Field, ...]
    data: tuple[Field, ...] = ()
    verdicts: bool = False
    signature: bytes = b""

    @property
    def anonymous(self) -> bool:
        """Whether it belongs to one rule."""
        return bool(self.flags & _ANONYMOUS)

    @property
    def type(self) -> str:
        """nft's words for its keys, as far as they are known; else their numbers."""
        return " . ".join(TYPE_NAMES.get(one.kind, str(one.kind)) for one in self.key)

    @property
    def ranged(self) -> bool:
        """Whether its keys are ranges."""
        return bool(self.flags & _INTERVAL)

    @property
    def kept(self) -> bool:
        """Whether its elements are given by items: not those of a rule's own set, or what packets put in."""
        return not self.flags & (_ANONYMOUS | _CONSTANT | _TIMEOUT | _DYNAMIC)


def list_sets(sock: NetlinkSocket, family: str = "", table: str = "") -> list[NftSet]:
    """The sets of one table, or of all."""
    body = GENERIC.pack(FAMILIES.get(family, 0), 0, 0) + (text(1, table) if table else b"")
    return [_parse_set(reply.body) for reply in sock.dump(Message(_GETSET, 0, body, f"sets of table {table}"))]


def add_element(into: NftSet, key: str, value: str = "") -> list[Message]:
    """Requests that add one element. Having it already is success; another value for the key is EBUSY."""
    return [_element_message(_NEWELEMENT, CREATE, into, one, key) for one in _elements(into, key, value)]


def del_element(of: NftSet, key: str) -> list[Message]:
    """Requests that delete one element; one that is not there is ENOENT."""
    return [_element_message(_DELELEMENT, 0, of, one, key) for one in _elements(of, key, "")]


def commit(sock: NetlinkSocket, messages: list[Message]) -> list[NetlinkError | None]:
    """All of them or, where any fails, none."""
    return sock.transaction(_BEGIN, messages, _END)


def value_of(sock: NetlinkSocket, of: NftSet, key: str) -> str | None:
    """The value of one element, empty in a set; None where there is none. Not for sets of ranges. Raises NetlinkError."""
    (element,) = _elements(of, key, "")
    asked = _element_message(_GETELEMENT, 0, of, element, key)
    try:
        reply = sock.get(asked)
    except NetlinkError as error:
        if error.number == errno.ENOENT:
            return None
        raise
    listed = attrs(reply.body, GENERIC.size).get(3, b"")
    return next((_value_text(of, attrs(one)) for _, one in each_attr(listed)), None)


def list_elements(sock: NetlinkSocket, of: NftSet) -> list[tuple[str, str]]:
    """(key, value) of every element in canonical text; the value is empty in a set."""
    raw = _dump(sock, of)
    for _ in range(_DUMP_TRIES):
        if len({(_raw_key(one), _raw_key(one, 10), one.get(3)) for one in raw}) == len(raw):
            break
        raw = _dump(sock, of)
    if of.flags & _INTERVAL and not of.flags & _CONCAT:
        return _joined_intervals(of, raw)
    return [(_key_text(of, element), _value_text(of, element)) for element in raw]


def _dump(sock: NetlinkSocket, of: NftSet) -> list[dict[int, bytes]]:
    """Elements as one dump gives them. A hash table that the kernel is still growing gives some twice and as many not at
    all, and says nothing of it: its parts are read by position, and positions change.
    """
    body = GENERIC.pack(FAMILIES[of.family], 0, 0) + text(1, of.table) + text(2, of.name)
    raw: list[dict[int, bytes]] = []
    for reply in sock.dump(Message(_GETELEMENT, 0, body, f"elements of {of.table} {of.name}")):
        listed = attrs(reply.body, GENERIC.size).get(3, b"")
        raw += [attrs(element) for _, element in each_attr(listed)]
    return raw


def _parse_set(body: bytes) -> NftSet:
    family = FAMILY_NAMES.get(body[0], str(body[0]))
    have = attrs(body, GENERIC.size)
    flags = as_u32be(have.get(3, b"\0" * 4))
    key = fields_of(as_u32be(have.get(4, b"\0" * 4)), as_u32be(have.get(5, b"\0" * 4)))
    data_type = as_u32be(have.get(6, b"\0" * 4))
    verdicts = bool(flags & _MAP) and data_type == VERDICT_DATA
    data = fields_of(data_type, as_u32be(have[7])) if flags & _MAP and not verdicts and 7 in have else ()
    signature = b"".join(have.get(kind, b"") for kind in (3, 4, 5, 6, 7))
    return NftSet(family, as_text(have[1]), as_text(have[2]), flags, key, data, verdicts, signature)


def _elements(of: NftSet, key: str, value: str) -> Iterable[bytes]:
    data = _data(of, value) if value else b""
    if not of.flags & _INTERVAL:
        yield nested(1, attr(1, pack(of.key, key))) + data
        return
    low, high = pack_range(of.key, key)
    if of.flags & _CONCAT:
        yield nested(1, attr(1, low)) + nested(10, attr(1, high)) + data
        return
    yield nested(1, attr(1, low)) + data
    after = int.from_bytes(high, "big") + 1
    if after < 1 << (8 * len(high)):  # a range up to the last value stays open
        yield nested(1, attr(1, after.to_bytes(len(high), "big"))) + u32be(3, _INTERVAL_END)


def _data(of: NftSet, value: str) -> bytes:
    if not of.verdicts:
        return nested(2, attr(1, pack(of.data, value)))
    word, _, chain = value.partition(" ")
    if word not in VERDICTS:
        raise ValueTextError(f"{value!r} is no verdict")
    code = u32be(1, VERDICTS[word] & 0xFFFFFFFF)
    return nested(2, nested(2, code + (text(2, chain) if chain else b"")))


def _element_message(kind: int, flags: int, of: NftSet, element: bytes, key: str) -> Message:
    body = (
        GENERIC.pack(FAMILIES[of.family], 0, 0) + text(1, of.table) + text(2, of.name) + nested(3, nested(1, element))
    )
    return Message(kind, flags, body, f"element {key} of {of.family} {of.table} {of.name}")


def _raw_key(element: dict[int, bytes], kind: int = 1) -> bytes:
    return attrs(element.get(kind, b"")).get(1, b"")


def _key_text(of: NftSet, element: dict[int, bytes]) -> str:
    key = _raw_key(element)
    return unpack_range(of.key, key, _raw_key(element, 10)) if 10 in element else unpack(of.key, key)


def _value_text(of: NftSet, element: dict[int, bytes]) -> str:
    have = attrs(element.get(2, b""))
    if 2 in have:
        verdict = attrs(have[2])
        (code,) = struct.unpack("!i", verdict[1])
        chain = as_text(verdict.get(2, b""))
        return f"{_VERDICT_NAMES.get(code, code)} {chain}".rstrip()
    return unpack(of.data, have[1]) if 1 in have else ""


def _joined_intervals(of: NftSet, raw: list[dict[int, bytes]]) -> list[tuple[str, str]]:
    """The kernel holds starts and ends (one after the last); an end and a start may share a value."""
    ends = {id(one): bool(as_u32be(one.get(3, b"\0" * 4)) & _INTERVAL_END) for one in raw}
    found: list[tuple[str, str]] = []
    opened: dict[int, bytes] | None = None
    for element in sorted(raw, key=lambda one: (_raw_key(one), not ends[id(one)])):
        if not ends[id(element)]:
            opened = element
        elif opened is not None:
            key = _raw_key(element)
            last = (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
            found.append((unpack_range(of.key, _raw_key(opened), last), _value_text(of, opened)))
            opened = None
    if opened is not None:
        low = _raw_key(opened)
        found.append((unpack_range(of.key, low, b"\xff" * len(low)), _value_text(of, opened)))
    return found
