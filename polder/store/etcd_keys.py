"""How rows lie in etcd: which keys, and what a value holds besides the value.

Below the prefix are four ranges: ``h/`` places, ``i/`` index terms, ``m/`` what belongs to the store itself, ``r/`` rows.
Parts of a key end with a NUL, which sorts below every other byte, so that etcd's order of bytes is the order of ``Key``
and no part's end can be taken for another's beginning. A place and a term are keys without a value, written in the
transaction of their row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from polder.store.protocol import Key, Prefix, StoreFailedError

ID_LENGTH = 8
"""Bytes by which a commit is recognized after a lost connection."""
_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Row:
    """A row's value as etcd holds it."""

    value: bytes
    terms: tuple[str, ...]
    commit: bytes


def pack(value: bytes, terms: tuple[str, ...], commit: bytes) -> bytes:
    """The stored form: the commit's id, the length of the terms (4 bytes), the terms as a JSON list or nothing, the value."""
    text = json.dumps(sorted(set(terms))).encode() if terms else b""
    return b"".join((commit, len(text).to_bytes(_LENGTH, "big"), text, value))


def unpack(stored: bytes) -> Row:
    """Raises StoreFailedError on anything that ``pack`` did not write."""
    head = ID_LENGTH + _LENGTH
    size = int.from_bytes(stored[ID_LENGTH:head], "big")
    if len(stored) < head + size:
        raise StoreFailedError("etcd holds a value below the store's prefix that this store did not write")
    terms = tuple(json.loads(stored[head : head + size])) if size else ()
    return Row(stored[head + size :], terms, stored[:ID_LENGTH])


def value_of(stored: bytes) -> bytes:
    """The value alone."""
    return stored[ID_LENGTH + _LENGTH + int.from_bytes(stored[ID_LENGTH : ID_LENGTH + _LENGTH], "big") :]


def after(start: bytes) -> bytes:
    """The first key beyond all that begin with ``start``, which ends with no 0xff."""
    return start[:-1] + bytes([start[-1] + 1])


def _part(text: str) -> bytes:
    """Raises StoreFailedError: what is no Unicode, or has a NUL, could not be told apart."""
    try:
        part = text.encode()
    except UnicodeEncodeError as error:
        raise StoreFailedError(f"the store could not write: {text!r} is no Unicode text") from error
    if b"\0" in part:
        raise StoreFailedError(f"the store could not write: {text!r} has a NUL")
    return part + b"\0"


def _escaped(term: str) -> bytes:
    return term.encode("utf-8", "surrogatepass").replace(b"\1", b"\1\1").replace(b"\0", b"\1\2") + b"\0"


def is_range(prefix: Prefix) -> bool:
    """Whether the keys of a prefix are all that ``Layout.range`` names: nothing is open before what is given."""
    given = [bool(prefix.resource), prefix.tenant is not None, prefix.namespace is not None]
    return given == sorted(given, reverse=True)


class Layout:
    """The keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        root = prefix.rstrip("/").encode() + b"/"
        self._rows = root + b"r/"
        self._terms = root + b"i/"
        self._places = root + b"h/"
        self.version = root + b"m/terms"
        self.mark = root + b"m/mark"
        self.changes = (root + b"m/", after(self._rows))
        """The range in which every commit of ours changes something."""
        self.rows = (self._rows, after(self._rows))

    def is_row(self, key: bytes) -> bool:
        """Whether an etcd key is a row's."""
        return key.startswith(self._rows)

    def row(self, key: Key) -> bytes:
        """Where a row is. The last part needs no end."""
        return self._rows + b"".join(map(_part, (key.resource, key.tenant, key.namespace, key.name)))[:-1]

    def key(self, row: bytes) -> Key:
        """The key of a row."""
        return Key(*row[len(self._rows) :].decode().split("\0"))

    def place(self, key: Key) -> bytes:
        """Where a row is counted."""
        return self._places + b"".join(map(_part, (key.tenant, key.namespace, key.resource, key.name)))[:-1]

    def places(self, tenant: str | None, namespace: str | None) -> bytes:
        """How the places begin among which those of a tenant, or of one of its namespaces, are; of all tenants: all."""
        if tenant is None:
            return self._places
        return self._places + _part(tenant) + (b"" if namespace is None else _part(namespace))

    def at(self, place: bytes) -> Key:
        """The key that is counted at a place."""
        tenant, namespace, resource, name = place[len(self._places) :].decode().split("\0")
        return Key(resource, tenant, namespace, name)

    def term(self, term: str, key: Key) -> bytes:
        """Where a row is found by a term."""
        return self._terms + _escaped(term) + self.row(key)[len(self._rows) :]

    def having(self, term: str) -> bytes:
        """How the entries of a term begin."""
        return self._terms + _escaped(term)

    def found(self, entry: bytes) -> Key:
        """The key that a term's entry names."""
        return Key(*entry.decode("utf-8", "surrogatepass").split("\0")[-4:])

    def range(self, prefix: Prefix) -> bytes:
        """How the rows begin among which those of a prefix are; ``is_range`` tells whether all of them are."""
        if not prefix.resource:
            return self._rows
        start = self._rows + _part(prefix.resource)
        if prefix.tenant is not None:
            start += _part(prefix.tenant)
            if prefix.namespace is not None:
                start += _part(prefix.namespace)
        return start
