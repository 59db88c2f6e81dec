"""When a container that could not be started is tried again, whatever wakes its pod meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.core import Pod
from polder.base.clock import Clock


@dataclass(frozen=True, slots=True)
class _Held:
    pod: Pod
    until: float


class Holds:
    """Of one pod. The report of a failure comes back as a change of the pod and would have it tried at once, over and over;
    what its user changed does.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, _Held] = {}

    def fail(self, pod: Pod, container: str, after: float) -> float:
        """Notes a failure; answers the seconds for which it counts."""
        self._held[container] = _Held(pod, self._clock.monotonic() + after)
        return after

    def left(self, pod: Pod, container: str) -> float:
        """Seconds until the container may be tried; 0: now."""
        held = self._held.get(container)
        if held is None or not _same(held.pod, pod):
            return 0.0
        return max(0.0, held.until - self._clock.monotonic())


def _same(one: Pod, other: Pod) -> bool:
    before, after = one.metadata, other.metadata
    return (before.labels, before.annotations, one.spec) == (after.labels, after.annotations, other.spec)
