"""Waiting longer after each failure, per key: 10 s doubling to 5 min, forgotten after 10 quiet minutes.

The figures are upstream's.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 10.0
LONGEST = 300.0
FORGET = 2 * LONGEST
MANY = 1024
"""Keys from which on those that are forgotten are dropped."""


@dataclass(slots=True)
class _Entry:
    delay: float
    at: float


class Backoff:
    """Delays by key, on one clock whose reading each call is given."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def delay(self, key: str) -> float:
        """The delay that the last failure earned; 0 for none."""
        entry = self._entries.get(key)
        return 0.0 if entry is None else entry.delay

    def remaining(self, key: str, now: float, since: float | None = None) -> float:
        """Seconds still to wait, counted from ``since`` (the end of what failed) or from the last failure."""
        entry = self._entries.get(key)
        base = now if entry is None else (entry.at if since is None else since)
        if entry is None or base - entry.at > FORGET:
            return 0.0
        return max(0.0, base + entry.delay - now)

    def raise_(self, key: str, now: float) -> None:
        """Notes one more try: the next one waits longer."""
        entry = self._entries.get(key)
        if entry is None or now - entry.at > FORGET:
            if len(self._entries) >= MANY:  # names of images come from tenants
                self._entries = {k: e for k, e in self._entries.items() if now - e.at <= FORGET}
            self._entries[key] = _Entry(FIRST, now)
        else:
            self._entries[key] = _Entry(min(entry.delay * 2, LONGEST), now)

    def seed(self, key: str, tries: int, at: float) -> None:
        """After a restart of the agent: what ``tries`` failures, the last one begun at ``at``, have earned."""
        if tries > 0 and key not in self._entries:
            self._entries[key] = _Entry(min(FIRST * 2 ** min(tries - 1, 10), LONGEST), at)

    def clear(self, key: str) -> None:
        """Forgets a key."""
        self._entries.pop(key, None)
