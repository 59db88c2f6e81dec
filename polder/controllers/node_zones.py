"""How fast pods leave nodes that are not ready, by zone: pure. Follows upstream's node lifecycle controller.

One node after the other; slower, or not at all, where much of a zone is not ready, for then it is rather the zone that is cut
off; and not at all while no node is ready, for then it is rather us.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from polder.api.core import Node
from polder.controllers.node_health import Evict

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"


@dataclass(frozen=True, slots=True)
class Rates:
    """Nodes per second whose pods are made to go."""

    normal: float = 0.1
    reduced: float = 0.01
    """In a large zone that is in trouble."""
    large: int = 50
    """Nodes of a large zone; a smaller one in trouble keeps its pods."""
    trouble: float = 0.55
    """Share of nodes not ready from which a zone is in trouble; three nodes at least."""


def zone_of(node: Node) -> str:
    """The node's zone, region included; empty where it has none."""
    labels = node.metadata.labels or {}
    region, zone = labels.get(REGION, ""), labels.get(ZONE, "")
    return f"{region}:{zone}" if region or zone else ""


class Zones:
    """Which nodes are ready, by zone, and when another one's pods may be made to go. Times in monotonic seconds."""

    def __init__(self, rates: Rates, settle: float) -> None:
        self._rates = rates
        self._settle = settle
        self._nodes: dict[str, tuple[str, bool]] = {}
        self._all: Counter[str] = Counter()
        self._ready: Counter[str] = Counter()
        self._next: dict[str, float] = {}
        self._light = 0.0

    def see(self, node: str, zone: str, ready: bool, now: float) -> None:
        """What is known of a node."""
        dark = self.is_dark
        self.forget(node)
        self._nodes[node] = (zone, ready)
        self._all[zone] += 1
        self._ready[zone] += ready
        if dark and not self.is_dark:
            self._light = now + self._settle

    def forget(self, node: str) -> None:
        """The node is gone."""
        known = self._nodes.pop(node, None)
        if known is not None:
            zone, ready = known
            self._all[zone] -= 1
            self._ready[zone] -= ready
            if not self._all[zone]:
                del self._all[zone], self._ready[zone]
                self._next.pop(zone, None)

    @property
    def is_dark(self) -> bool:
        """Whether no node is ready."""
        return bool(self._nodes) and not any(self._ready.values())

    def rate(self, zone: str) -> float:
        """Nodes per second in a zone."""
        count, ready = self._all[zone], self._ready[zone]
        away = count - ready
        if ready and away > 2 and away / count >= self._rates.trouble:
            return self._rates.reduced if count > self._rates.large else 0.0
        return self._rates.normal

    def may_evict(self, node: str, now: float) -> Evict:
        """Whether the pods of a node that is not ready may be made to go; a yes is counted."""
        if self.is_dark:
            return "never"
        zone, _ = self._nodes.get(node, ("", False))
        rate = self.rate(zone)
        if not rate or now < max(self._light, self._next.get(zone, 0.0)):
            return "hold"
        self._next[zone] = now + 1 / rate
        return "go"
