"""Whole nftables tables through libnftables, and what the kernel holds of them by raw nfnetlink.

libnftables binds its socket to the namespace of the calling thread, so ``run_nft`` makes a context for each call; a context
kept for each tenant would cost 130 KiB.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from polder.base.errors import PolderError
from polder.system.net.codec import CREATE, Message, as_text, attrs, each_attr, text
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.nfsets import FAMILIES, FAMILY_NAMES, GENERIC, SUBSYSTEM, commit, list_sets

_GETGEN = SUBSYSTEM << 8 | 16
_GETTABLE, _NEWCHAIN, _GETCHAIN, _GETRULE = (SUBSYSTEM << 8 | number for number in (1, 3, 4, 7))
_VOLATILE = frozenset({"counter", "quota", "last", "limit", "connlimit"})
"""Expressions whose bytes change by traffic."""
_MARK = "polder-"
_JSON = 1 << 4


class NftError(PolderError):
    """nftables refused a command."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the kernel: its comment, the ``sealed`` digest that stands in its marker chain and the ``actual`` one of its
    chains, rules and sets. They differ where someone edited it, or where loading was cut off.
    """

    family: str
    name: str
    comment: str
    sealed: str
    actual: str


class _Library:
    """The functions of libnftables that are used, loaded at the first call."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libnftables.so.1")
        self.lib.nft_ctx_new.restype = ctypes.c_void_p
        self.lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self.lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p


_loaded: list[_Library] = []


def run_nft(commands: str, *, json: bool = False) -> str:
    """Run commands in the calling thread's namespace as one transaction; the answer's text. NftError with nft's words."""
    if not _loaded:
        _loaded.append(_Library())
    lib = _loaded[0].lib
    context = ctypes.c_void_p(lib.nft_ctx_new(0))
    try:
        lib.nft_ctx_buffer_output(context)
        lib.nft_ctx_buffer_error(context)
        if json:
            lib.nft_ctx_output_set_flags(context, _JSON)
        failed = lib.nft_run_cmd_from_buffer(context, commands.encode())
        output = (lib.nft_ctx_get_output_buffer(context) or b"").decode(errors="replace")
        words = (lib.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
    finally:
        lib.nft_ctx_free(context)
    if failed:
        raise NftError(f"nftables: {' '.join(words.split())[:400] or 'refused without a reason'}")
    return output


def digest_of(content: str) -> str:
    """A short digest of a ruleset's text, for a table's comment."""
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def list_tables(sock: NetlinkSocket) -> list[Table]:
    """Every table of the socket's namespace."""
    seals, digests = _digests(sock)
    tables = []
    for reply in sock.dump(Message(_GETTABLE, 0, GENERIC.pack(0, 0, 0), "tables")):
        have = attrs(reply.body, GENERIC.size)
        at = (FAMILY_NAMES.get(reply.body[0], str(reply.body[0])), as_text(have[1]))
        tables.append(Table(*at, _comment(have.get(6, b"")), seals.get(at, ""), digests[at].hexdigest()[:16]))
    return tables


def list_chains(sock: NetlinkSocket, family: str, table: str) -> dict[str, list[str]]:
    """The chains of a table that are by themselves (``is_single``), each with the comments of its rules in order."""
    found: dict[str, list[str]] = {}
    body = GENERIC.pack(FAMILIES[family], 0, 0) + text(1, table)
    for at, have in _each(sock, _GETCHAIN, "chains"):
        if at == (family, table) and is_single(as_text(have[3])):
            found[as_text(have[3])] = []
    for reply in sock.dump(Message(_GETRULE, 0, body, f"rules of table {table}")):
        have = attrs(reply.body, GENERIC.size)
        if as_text(have[1]) == table and as_text(have[2]) in found:
            found[as_text(have[2])].append(_comment(have.get(7, b"")))
    return found


def list_counts(sock: NetlinkSocket, family: str, table: str) -> dict[str, list[tuple[int, int]]]:
    """Packets and bytes that each rule of a table's single chains has counted; zeros for a rule that does not count."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    body = GENERIC.pack(FAMILIES[family], 0, 0) + text(1, table)
    for reply in sock.dump(Message(_GETRULE, 0, body, f"rules of table {table}")):
        have = attrs(reply.body, GENERIC.size)
        if as_text(have[1]) == table and is_single(as_text(have[2])):
            counted = [attrs(data[2]) for data in _parsed(have.get(4, b"")) if as_text(data.get(1, b"")) == "counter"]
            numbers = [(int.from_bytes(one[2], "big"), int.from_bytes(one[1], "big")) for one in counted]
            found[as_text(have[2])].append(numbers[0] if numbers else (0, 0))
    return found


def is_single(name: str) -> bool:
    """Whether a chain or set comes and goes by itself, and is no part of what its table's digest covers."""
    return "." in name


def generation(sock: NetlinkSocket) -> int:
    """A number that changes with every change of the rules in the socket's namespace."""
    reply = sock.get(Message(_GETGEN, 0, GENERIC.pack(0, 0, 0), "generation of the rules"))
    return int.from_bytes(attrs(reply.body, GENERIC.size)[1], "big")


def seal_table(sock: NetlinkSocket, family: str, name: str) -> None:
    """Note what the kernel holds of a table right after loading it, as the name of an empty chain."""
    _, digests = _digests(sock)
    mark = _MARK + digests[(family, name)].hexdigest()[:16]
    body = GENERIC.pack(FAMILIES[family], 0, 0) + text(1, name) + text(3, mark)
    for failed in commit(sock, [Message(_NEWCHAIN, CREATE, body, f"table {family} {name}")]):
        if failed:
            raise failed


def _digests(sock: NetlinkSocket) -> tuple[dict[tuple[str, str], str], dict[tuple[str, str], hashlib._Hash]]:
    """The seals and the digests of all tables: chains with hook and policy, rules with handle, sets with types. Sets without a
    name of their own live and die with their rule, and may be a single chain's.
    """
    seals: dict[tuple[str, str], str] = {}
    digests: dict[tuple[str, str], hashlib._Hash] = defaultdict(hashlib.sha256)
    for at, have in _each(sock, _GETCHAIN, "chains"):
        name = as_text(have[3])
        if name.startswith(_MARK):
            seals[at] = name.removeprefix(_MARK)
            continue
        if is_single(name):
            continue
        digests[at].update(repr((name, have.get(4), have.get(5), have.get(7))).encode())
    for at, have in _each(sock, _GETRULE, "rules"):
        if is_single(as_text(have[2])):
            continue
        digests[at].update(repr((as_text(have[2]), have.get(3), _expressions(have.get(4, b"")))).encode())
    for one in list_sets(sock):
        if is_single(one.name) or one.anonymous:
            continue
        digests[one.family, one.table].update(repr((one.name, one.signature)).encode())
    return seals, digests


def _each(sock: NetlinkSocket, kind: int, about: str) -> Iterator[tuple[tuple[str, str], dict[int, bytes]]]:
    for reply in sock.dump(Message(kind, 0, GENERIC.pack(0, 0, 0), about)):
        have = attrs(reply.body, GENERIC.size)
        yield (FAMILY_NAMES.get(reply.body[0], str(reply.body[0])), as_text(have[1])), have


def _parsed(listed: bytes) -> Iterator[dict[int, bytes]]:
    """The expressions of a rule: 1 is the name, 2 the data."""
    return (attrs(expression) for _, expression in each_attr(listed))


def _expressions(listed: bytes) -> list[tuple[str, bytes]]:
    found = []
    for have in _parsed(listed):
        name = as_text(have.get(1, b""))
        found.append((name, b"" if name in _VOLATILE else have.get(2, b"")))
    return found


def _comment(userdata: bytes) -> str:
    """User data of a table: type, length, value; type 0 is the comment."""
    while len(userdata) >= 2:
        kind, length = userdata[0], userdata[1]
        if kind == 0:
            return as_text(userdata[2 : 2 + length])
        userdata = userdata[2 + length :]
    return ""
