"""Equal parts of many objects, held once: what a cache of thousands of objects saves, and nobody else needs to know."""

from __future__ import annotations

import sys

import msgspec

from polder.api.meta import Object

KEPT = 4096
"""Distinct maps that are remembered; a full memory is begun anew."""
LIGHT = 512
"""Characters of a map that is remembered: bounds the memory, and larger ones are seldom equal."""

_Map = dict[str, str]


class Sharing:
    """Remembers maps that it saw. Objects of a cache are frozen, so sharing their parts is not seen."""

    def __init__(self) -> None:
        self._maps: dict[tuple[str, ...], _Map] = {}

    def __len__(self) -> int:
        """How many maps are remembered."""
        return len(self._maps)

    def __call__(self, obj: Object) -> None:
        """Puts parts that another object has already in the place of equal ones."""
        put, meta = msgspec.structs.force_setattr, obj.metadata
        put(obj, "api_version", sys.intern(obj.api_version))
        put(obj, "kind", sys.intern(obj.kind))
        put(meta, "namespace", sys.intern(meta.namespace))
        if meta.labels:
            put(meta, "labels", self._same(meta.labels))
        if meta.annotations:
            put(meta, "annotations", self._same(meta.annotations))

    def _same(self, found: _Map) -> _Map:
        parts = (*found.keys(), *found.values())
        known = self._maps.get(parts)
        if known is not None:
            return known
        if sum(map(len, parts)) <= LIGHT:
            if len(self._maps) >= KEPT:
                self._maps.clear()
            self._maps[parts] = found
        return found
