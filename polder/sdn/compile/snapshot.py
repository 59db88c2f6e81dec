"""The objects as last seen, which fragments they make exist, and the indexes that concerns declare.

``put`` answers with what changed: fragments by their homes, and the inputs that readers may have noted. Its cost depends
on what the object is, never on how many objects there are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from polder.api import polder as api
from polder.api.meta import Object
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, Index
from polder.sdn.compile.concerns import DECLARATIONS
from polder.sdn.compile.keys import Concern, Key

O = TypeVar("O", bound=Object)  # noqa: E741 - an object
V = TypeVar("V")
Input = tuple[Hashable, ...]
"""Something that a fragment looked at: (kind, ref) or (index, term)."""
NOTHING: Mapping[Ref, Any] = {}


@dataclass(slots=True)
class Change:
    """The fragments whose homes changed, and the inputs that did."""

    keys: set[Key] = field(default_factory=set)
    inputs: set[Input] = field(default_factory=set)


class Snapshot:
    """A mutable mirror of the API objects, with the indexes of the concerns."""

    def __init__(self, declarations: Mapping[Concern, Declaration] = DECLARATIONS) -> None:
        self.declarations = declarations
        self._objects: dict[tuple[type[Object], Ref], Object] = {}
        self._living: dict[Key, int] = {}
        self._homes: dict[type[Object], list[tuple[Concern, Home[Any]]]] = {}
        self._indexes: dict[type[Object], list[Index[Any, Any]]] = {}
        self._entries: dict[Input, dict[Ref, Any]] = {}
        self._expected: dict[Ref, api.PortStatus] = {}
        for concern, declaration in declarations.items():
            for home in declaration.homes:
                self._homes.setdefault(home.kind, []).append((concern, home))
            for index in declaration.indexes:
                known = self._indexes.setdefault(index.kind, [])
                if index not in known:
                    known.append(index)

    def get(self, kind: type[O], ref: Ref) -> O | None:
        """The object as last seen; a Port with the status that this node expects of it."""
        found = self._objects.get((kind, ref))
        if isinstance(found, api.Port) and ref in self._expected:
            found = msgspec.structs.replace(found, status=self._expected[ref])
        return found if isinstance(found, kind) else None

    def by(self, index: Index[O, V], term: Hashable) -> Mapping[Ref, V]:
        """What an index has under a term."""
        return self._entries.get((index, term), NOTHING)

    def keys(self) -> Iterable[Key]:
        """Every fragment that could be compiled."""
        return self._living.keys()

    def lives(self, key: Key) -> bool:
        """Whether an object makes the fragment exist."""
        return key in self._living

    def put(self, kind: type[Object], ref: Ref, obj: Object | None) -> Change:
        """Take the newer ``obj`` (None: gone), unless what is known is at least as new."""
        change = Change()
        old = self._objects.get((kind, ref))
        if obj is old or (obj is not None and old is not None and not _newer(obj, old)):
            return change
        change.inputs.add((kind, ref))
        self._count(kind, ref, old, -1, change)
        if obj is None:
            del self._objects[kind, ref]
        else:
            self._objects[kind, ref] = obj
        self._count(kind, ref, obj, 1, change)
        for index in self._indexes.get(kind, ()):
            self._enter(index, ref, old, obj, change)
        expected = self._expected.get(ref)
        if kind is api.Port and expected is not None and (obj is None or _says(obj, expected)):
            del self._expected[ref]  # the object says it itself now, or is gone
        return change

    def expect(self, port: Ref, status: api.PortStatus | None) -> Change:
        """This node has attached or detached ``port``: its status is taken for ``status`` until the object itself says so.
        None: no more.
        """
        known = self._objects.get((api.Port, port))
        if status is None or (known is not None and _says(known, status)):
            self._expected.pop(port, None)
        else:
            self._expected[port] = status
        return Change({Key(Concern.PORT, port)}, {(api.Port, port)})

    def _count(self, kind: type[Object], ref: Ref, obj: Object | None, by: int, change: Change) -> None:
        if obj is None:
            return
        for concern, home in self._homes.get(kind, ()):
            for at in home.refs(ref, obj):
                key = Key(concern, at)
                change.keys.add(key)
                left = self._living.get(key, 0) + by
                if left:
                    self._living[key] = left
                else:
                    self._living.pop(key, None)

    def _enter(self, index: Index[Any, Any], ref: Ref, old: Object | None, new: Object | None, change: Change) -> None:
        before = set(index.terms(ref, old)) if old is not None else set()
        after = set(index.terms(ref, new)) if new is not None else set()
        for term in before - after:
            entries = self._entries[index, term]
            del entries[ref]
            if not entries:
                del self._entries[index, term]
            change.inputs.add((index, term))
        value = index.value(new) if after else None
        stays = next(iter(before & after), None)  # all terms of an object have the same value: it is compared once
        differs = stays is not None and self._entries[index, stays][ref] != value
        for term in after:
            entries = self._entries.setdefault((index, term), {})
            if differs or ref not in entries:
                change.inputs.add((index, term))
            entries[ref] = value


def same_use(one: api.PortStatus, other: api.PortStatus) -> bool:
    """Whether two statuses name the same sandbox and link."""
    return (one.sandbox, one.netns, one.link) == (other.sandbox, other.netns, other.link)


def _says(obj: Object, expected: api.PortStatus) -> bool:
    return isinstance(obj, api.Port) and same_use(obj.status, expected)


def _newer(obj: Object, old: Object) -> bool:
    """Whether ``obj`` may replace ``old``: one counter numbers all revisions of the store."""
    new, known = obj.metadata.resource_version, old.metadata.resource_version
    return not (new.isdigit() and known.isdigit()) or int(new) > int(known)
