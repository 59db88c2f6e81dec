"""A cache that is bounded by the size of what it holds, and by each owner's share of it."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class ByteCache(Generic[K, V]):
    """Forgets what was not used for longest. ``limit`` bounds the sum of all weights, ``share`` those of one owner: who
    fills its share forgets its own first.
    """

    limit: int
    share: int
    _held: OrderedDict[K, tuple[V, int, Hashable]] = field(default_factory=OrderedDict)
    _used: int = 0
    _by_owner: defaultdict[Hashable, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def used(self) -> int:
        """The sum of all weights."""
        return self._used

    def get(self, key: K) -> V | None:
        """What is held under a key."""
        found = self._held.get(key)
        if found is None:
            return None
        self._held.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, weight: int, owner: Hashable = None) -> None:
        """Holds a value, unless it is larger than anybody's share."""
        self.drop(key)
        if weight > self.share:
            return
        self._held[key] = (value, weight, owner)
        self._used += weight
        self._by_owner[owner] += weight
        while self._by_owner[owner] > self.share:
            self.drop(next(k for k, (_, _, who) in self._held.items() if who == owner))
        while self._used > self.limit:
            self.drop(next(iter(self._held)))

    def drop(self, key: K) -> None:
        """Forgets a key."""
        found = self._held.pop(key, None)
        if found is None:
            return
        self._used -= found[1]
        self._by_owner[found[2]] -= found[1]
        if not self._by_owner[found[2]]:
            del self._by_owner[found[2]]
