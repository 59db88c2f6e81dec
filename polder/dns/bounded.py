"""Memory that is bounded in bytes: what was put in first goes first."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

TOTAL = 96 * 2**20
"""Bytes that one process keeps for all tenants together, each kind of memory."""
LARGEST_SHARE = 4 * 2**20


def share_of(tenants: int) -> int:
    """What each of so many tenants has of it."""
    return min(LARGEST_SHARE, TOTAL // max(tenants, 1))


@dataclass(slots=True)
class Bounded(Generic[K, V]):
    """``held`` may be read directly; changes go through ``put`` and ``clear``."""

    limit: int = LARGEST_SHARE
    held: dict[K, V] = field(default_factory=dict)
    _weights: dict[K, int] = field(default_factory=dict)
    used: int = 0

    def put(self, key: K, value: V, weight: int) -> None:
        """Holds a value; one that alone is too large is not held."""
        self.drop(key)
        if weight > self.limit:
            return
        self.used += weight
        while self.used > self.limit:
            self.drop(next(iter(self.held)))
        self.held[key] = value
        self._weights[key] = weight

    def drop(self, key: K) -> None:
        """Forgets a key."""
        weight = self._weights.pop(key, None)
        if weight is not None:
            del self.held[key]
            self.used -= weight

    def clear(self) -> None:
        """Forgets all."""
        self.held.clear()
        self._weights.clear()
        self.used = 0
