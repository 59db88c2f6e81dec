"""Incremental compilation: objects in, changed parts of the topology out."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import replace

from polder.api.meta import Object
from polder.api.polder import PortStatus
from polder.base.ref import Ref
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.snapshot import Snapshot
from polder.sdn.topology.types import Network, Part, Port


class Compiler:
    """Keeps the parts that the objects give. A part whose inputs did not change stays the same object; a part that comes
    out equal keeps its identity, so that whatever depends on it is left alone.
    """

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.snapshot = snapshot or Snapshot()
        self._parts: dict[Key, Part] = {}
        self._errors: dict[Key, CompileError] = {}
        self._dirty: set[Key] = set(self.snapshot.keys())
        self._touched: set[Key] = set()

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
        keys = self.snapshot.put(kind, ref, obj)
        self._dirty |= keys
        return keys

    def expect(self, port: Ref, status: PortStatus | None) -> None:
        """Take ``status`` for the port's, whatever the object says (None: not any more)."""
        key = Key(Concern.PORT, port)
        part = self._parts.get(key)
        if status is not None and not status.sandbox and isinstance(part, Port) and part.sandbox:
            self._parts[key] = replace(part, sandbox="", netns="", link="")
            self._touched.add(key)
        self._dirty |= self.snapshot.expect(port, status)

    def touched(self) -> dict[Key, Part | None]:
        """Parts that ``expect`` detached since they were asked for: all that may change before every object was seen."""
        keys, self._touched = self._touched, set()
        return {key: self._parts.get(key) for key in keys}

    def seed(self, parts: Mapping[Key, Part]) -> None:
        """Start from parts that an earlier run compiled. They stay until ``forget_unseen``."""
        self._parts.update(parts)

    def forget_unseen(self) -> None:
        """All objects have been seen: seeded parts without an object are gone."""
        self._dirty |= self._parts.keys() - set(self.snapshot.keys())

    def recompile(self) -> dict[Key, Part | None]:
        """Compile what is dirty, in order of dependence. The parts that changed; None: gone or broken."""
        heap = [(key.concern.rank, key) for key in self._dirty]
        queued, self._dirty = self._dirty, set()
        heapq.heapify(heap)
        changed = self.touched()
        while heap:
            _, key = heapq.heappop(heap)
            if not self._recompile(key):
                continue
            changed[key] = self._parts.get(key)
            for port in self._dependants(key) - queued:
                queued.add(port)
                heapq.heappush(heap, (port.concern.rank, port))
        return changed

    def _dependants(self, key: Key) -> set[Key]:
        return self.snapshot.ports_of(key) if key.concern is Concern.NETWORK else set()

    def _recompile(self, key: Key) -> bool:
        old = self._parts.get(key)
        self._errors.pop(key, None)
        try:
            new = self.snapshot.compile(key, self._network(key))
        except CompileError as error:
            self._errors[key] = error
            new = None
        if new == old:
            return False
        if new is None:
            self._parts.pop(key, None)
        else:
            self._parts[key] = new
        return True

    def _network(self, key: Key) -> Network | None:
        network = self.snapshot.network_of(key) if key.concern is Concern.PORT else None
        part = self._parts.get(network) if network is not None else None
        return part if isinstance(part, Network) else None
