"""Incremental compilation: objects in, changed parts of the topology out."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from polder.api.meta import Object
from polder.api.polder import PortStatus
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.sdn.compile.concern import Index
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.snapshot import Change, Input, Snapshot
from polder.sdn.topology.types import Part, Port

O = TypeVar("O", bound=Object)  # noqa: E741 - an object
P = TypeVar("P")
V = TypeVar("V")


class Compiler:
    """Keeps the parts that the objects give. A part whose inputs did not change stays the same object; a part that comes
    out equal keeps its identity, so that whatever depends on it is left alone.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self._parts: dict[Key, Part] = {}
        self._errors: dict[Key, CompileError] = {}
        self._dirty: set[Key] = set()
        self._heaps: dict[TenantName, list[tuple[int, Key]]] = {}
        self._touched: set[Key] = set()
        self._reads: dict[Key, tuple[Input, ...]] = {}
        self._readers: dict[Input, set[Key]] = {}
        self._queue(self.snapshot.keys())

    @property
    def parts(self) -> Mapping[Key, Part]:
        """All parts that compile."""
        return self._parts

    @property
    def errors(self) -> Mapping[Key, CompileError]:
        """Why the others do not."""
        return self._errors

    def waits(self, key: Key, *, seen: bool) -> bool:
        """Whether a fragment waits for ``recompile``; before all objects were seen (``seen``), for ``touched``."""
        return key in (self._dirty if seen else self._touched)

    def put(self, kind: type[Object], ref: Ref, obj: Object | None) -> set[Key]:
        """Take an object (None: gone). The fragments that wait for ``recompile`` because of it."""
        return self._mark(self.snapshot.put(kind, ref, obj))

    def expect(self, port: Ref, status: PortStatus | None) -> None:
        """Take ``status`` for the port's, whatever the object says (None: not any more)."""
        key = Key(Concern.PORT, port)
        part = self._parts.get(key)
        if status is not None and not status.sandbox and isinstance(part, Port) and part.sandbox:
            self._parts[key] = replace(part, sandbox="", netns="", link="")
            self._touched.add(key)
        self._mark(self.snapshot.expect(port, status))

    def touched(self) -> dict[Key, Part | None]:
        """Parts that ``expect`` detached since they were asked for: all that may change before every object was seen."""
        keys, self._touched = self._touched, set()
        return {key: self._parts.get(key) for key in keys}

    def seed(self, parts: Mapping[Key, Part]) -> None:
        """Start from parts that an earlier run compiled. They stay until ``forget_unseen``."""
        self._parts.update(parts)

    def forget_unseen(self) -> None:
        """All objects have been seen: seeded parts without an object are gone."""
        self._queue(self._parts.keys() - set(self.snapshot.keys()))

    @property
    def behind(self) -> Collection[TenantName]:
        """The tenants of which anything is left to compile."""
        return self._heaps.keys()

    def recompile(self) -> dict[Key, Part | None]:
        """Compile what is dirty, the platform's first, on which others build. The parts that changed; None: gone or broken."""
        changed = self.touched()
        while self._heaps:
            changed |= self.recompile_one(ROOT if ROOT in self._heaps else next(iter(self._heaps)))
        return changed

    def recompile_one(self, tenant: TenantName) -> dict[Key, Part | None]:
        """Compile the fragment of a tenant that is behind on which others may build: the part, if it changed."""
        heap = self._heaps[tenant]
        _, key = heapq.heappop(heap)
        if not heap:
            del self._heaps[tenant]
        self._dirty.discard(key)
        if not self._recompile(key):
            return {}
        self._queue(self._readers.get(key, ()))
        return {key: self._parts.get(key)}

    def _queue(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key not in self._dirty:
                self._dirty.add(key)
                heapq.heappush(self._heaps.setdefault(key.ref.tenant, []), (key.concern.rank, key))

    def _mark(self, change: Change) -> set[Key]:
        keys = change.keys.union(*(self._readers.get(one, ()) for one in change.inputs))
        self._queue(keys)
        return keys

    def _recompile(self, key: Key) -> bool:
        old = self._parts.get(key)
        self._errors.pop(key, None)
        view = _Noted(self, key)
        try:
            new = self.snapshot.declarations[key.concern].compile(key.ref, view) if self.snapshot.lives(key) else None
        except CompileError as error:
            self._errors[key] = error
            new = None
        self._note(key, view.reads)
        if new == old:
            return False
        if new is None:
            self._parts.pop(key, None)
        else:
            self._parts[key] = new
        return True

    def _note(self, key: Key, reads: set[Input]) -> None:
        """What a fragment looked at, so that it is compiled again when that changes."""
        before = self._reads.pop(key, ())
        for one in before:
            if one not in reads:
                readers = self._readers[one]
                readers.discard(key)
                if not readers:
                    del self._readers[one]
        for one in reads.difference(before):
            self._readers.setdefault(one, set()).add(key)
        if reads:
            self._reads[key] = tuple(reads)


class _Noted:
    """The objects and parts as one fragment sees them; ``reads`` notes every look."""

    def __init__(self, compiler: Compiler, key: Key) -> None:
        self._compiler = compiler
        self._key = key
        self._homes = [home.kind for home in compiler.snapshot.declarations[key.concern].homes]
        self.reads: set[Input] = set()

    @property
    def previous(self) -> Part | None:
        """What the fragment was."""
        return self._compiler.parts.get(self._key)

    def get(self, kind: type[O], ref: Ref) -> O | None:
        """An object. One of its home's kind and its own name is its home, which needs no note."""
        if ref != self._key.ref or kind not in self._homes:
            self.reads.add((kind, ref))
        return self._compiler.snapshot.get(kind, ref)

    def by(self, index: Index[O, V], term: Hashable) -> Mapping[Ref, V]:
        """What an index has under a term."""
        self.reads.add((index, term))
        return self._compiler.snapshot.by(index, term)

    def part(self, key: Key, kind: type[P]) -> P | None:
        """A fragment that was compiled before this one."""
        if key.concern.rank >= self._key.concern.rank:
            raise ValueError(f"{self._key} may not build on {key}: its concern comes no earlier")
        self.reads.add(key)
        found = self._compiler.parts.get(key)
        return found if isinstance(found, kind) else None
