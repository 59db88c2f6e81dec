"""Which versions of objects a controller wrote itself, so that a cache's word about them is no news to it."""

from __future__ import annotations

from collections import OrderedDict

from polder.api.meta import Object

KEPT = 4096
"""Versions that are remembered; of one that is forgotten the news is a look too many."""


class OwnWrites:
    """Versions by UID and resource version."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, obj: Object) -> None:
        """We wrote this."""
        self._known[obj.metadata.uid, obj.metadata.resource_version] = None
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def has(self, obj: Object | None) -> bool:
        """Whether we did."""
        return obj is not None and (obj.metadata.uid, obj.metadata.resource_version) in self._known
