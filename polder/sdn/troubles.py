"""What the kernel refused, and when to try again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from polder.base.clock import Clock
from polder.sdn.render.linux.desired import PartKey
from polder.sdn.render.linux.wanted import Slot

FIRST_WAIT = 0.1
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """One slot that is not as wanted: for whom, why, whether the kernel may think better of it, when to try again."""

    owner: PartKey
    reason: str
    passing: bool
    times: int
    due: float


class Troubles:
    """Failures by slot, each with a wait that doubles."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots: dict[Slot, Trouble] = {}

    def failed(self, slot: Slot, owner: PartKey, reason: str, passing: bool) -> None:
        """Once more."""
        times = self._slots[slot].times + 1 if slot in self._slots else 0
        wait = min(FIRST_WAIT * 2.0 ** min(times, 16), LONGEST_WAIT)
        self._slots[slot] = Trouble(owner, reason, passing, times, self._clock.monotonic() + wait)

    def cleared(self, slots: Iterable[Slot]) -> None:
        """These went well."""
        if self._slots:
            for slot in slots:
                self._slots.pop(slot, None)

    def due(self) -> set[Slot]:
        """What should be tried again now."""
        now = self._clock.monotonic()
        return {slot for slot, trouble in self._slots.items() if trouble.due <= now}

    def next_due(self) -> float | None:
        """When the next one is due, on the monotonic clock."""
        return min((trouble.due for trouble in self._slots.values()), default=None)

    def of(self, owner: PartKey) -> Trouble | None:
        """A trouble of one part; a lasting one before a passing one."""
        found = [trouble for trouble in self._slots.values() if trouble.owner == owner]
        return min(found, key=lambda trouble: trouble.passing, default=None)

    def reasons(self) -> dict[PartKey, str]:
        """One sentence for each part in trouble."""
        return {trouble.owner: trouble.reason for trouble in self._slots.values()}
