"""Time as a part that is passed in: durations on the monotonic clock, stamps on the wall clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the product asks of time."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point, never going back."""
        ...

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.monotonic()

    def now(self) -> datetime:
        """The machine's wall clock, in UTC."""
        return datetime.now(UTC)


def stamp(at: datetime) -> str:
    """RFC 3339 with seconds, as Kubernetes writes ``metav1.Time``."""
    return f"{at.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def micro_stamp(at: datetime) -> str:
    """RFC 3339 with microseconds, as Kubernetes writes ``metav1.MicroTime``."""
    return f"{at.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
