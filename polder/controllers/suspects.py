"""What looks orphaned, and for how long: pure. Nothing is cleaned up on the strength of one look."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Suspect:
    version: str
    since: float


class Suspects:
    """Keys under suspicion. A change of the thing's version starts its period of grace again."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._known: dict[Hashable, _Suspect] = {}

    def wait(self, key: Hashable, version: str, now: float) -> float:
        """Suspects the key; the seconds of grace that are left, 0 when they are over."""
        known = self._known.get(key)
        if known is None or known.version != version:
            known = self._known[key] = _Suspect(version, now)
        return max(0.0, known.since + self._grace - now)

    def clear(self, key: Hashable) -> None:
        """The key is above suspicion, or gone."""
        self._known.pop(key, None)
