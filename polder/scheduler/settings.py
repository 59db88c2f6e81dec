"""What the scheduler is given by ``main/``."""

from __future__ import annotations

from dataclasses import dataclass, field

from polder.base.clock import Clock, SystemClock


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """``parallel`` bounds the requests that bind, explain or make room at one time."""

    clock: Clock = field(default_factory=SystemClock)
    parallel: int = 32
