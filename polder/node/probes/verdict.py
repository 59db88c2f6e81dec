"""What many attempts of one probe mean: pure. Thresholds as upstream's prober counts them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from polder.api.lifecycle import Probe


class Kind(Enum):
    """The three probes, by the word that events begin with."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(slots=True)
class Tally:
    """Counts attempts that ended alike; ``note`` answers True or False when their number is enough, None before."""

    spec: Probe
    last: bool | None = None
    run: int = 0

    def note(self, good: bool) -> bool | None:
        """One more attempt."""
        self.run = self.run + 1 if good is self.last else 1
        self.last = good
        needed = self.spec.success_threshold if good else self.spec.failure_threshold
        return good if self.run >= needed else None


def first_after(kind: Kind, spec: Probe, age: float, *, started_by_probe: bool = False) -> float:
    """Seconds until the first attempt for a container that is ``age`` seconds old: after the initial delay, and the liveness
    of a container without a start-up probe not before its first period is over: upstream's tick has begun before the container.
    """
    earliest = float(spec.initial_delay_seconds)
    if kind is Kind.LIVENESS and not started_by_probe:
        earliest = max(earliest, float(max(1, spec.period_seconds)))
    return max(0.0, earliest - age)


@dataclass(frozen=True, slots=True)
class Probed:
    """What the probes of one running container say. ``failed``: why it is to be started again, to be read after its name, and the
    grace of that probe, if it has one.
    """

    started: bool = True
    ready: bool = True
    failed: str = ""
    grace: int | None = None
