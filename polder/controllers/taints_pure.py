"""How long a pod stays on a node that has NoExecute taints: pure. Follows upstream's taint eviction controller."""

from __future__ import annotations

from collections.abc import Sequence

from polder.api.core import Taint
from polder.api.nodeaffinity import Tolerations
from polder.api.podspec import Toleration


def seconds_to_stay(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> float | None:
    """Seconds since the taints are there; 0: a taint is not borne, None: for ever."""
    least: float | None = None
    borne = Tolerations(tolerations)
    for taint in taints:
        found = borne.first(taint)
        if found is None:
            return 0.0
        if found.toleration_seconds is not None:
            seconds = max(0.0, float(found.toleration_seconds))
            least = seconds if least is None else min(least, seconds)
    return least
