"""Topology spread constraints: how evenly pods are spread over nodes, zones and whatever else labels say."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from polder.scheduler.cluster import Cluster
from polder.scheduler.crowd import Counts
from polder.scheduler.demand import Shape
from polder.scheduler.nodes import NodeFacts, View
from polder.scheduler.static import Answer
from polder.scheduler.terms import HOSTNAME, ZONE, Scope, Spread

UNEVEN: Final = "node(s) didn't match pod topology spread constraints"
NO_LABEL: Final = "node(s) didn't match pod topology spread constraints (missing required label)"
DEFAULTS: Final = ((HOSTNAME, 3), (ZONE, 5))
"""Upstream's system defaults, for pods that say nothing: label and maxSkew, both ScheduleAnyway."""


@dataclass(frozen=True, slots=True)
class Hard:
    """A constraint that must hold, with what it counts."""

    key: str
    counts: dict[str, int]
    most: int
    """Pods of a place that may get the pod."""

    def refusal(self, node: NodeFacts) -> str:
        """Why the node will not do; empty if it will."""
        value = node.labels.get(self.key)
        if value is None:
            return NO_LABEL
        return UNEVEN if self.counts.get(value, 0) > self.most else ""


def _present(tenant_counts: tuple[Counts, Counts], node: str) -> int:
    """The pods of a node that are not being deleted."""
    counts, leaving = tenant_counts
    return counts.get(node, 0) - leaving.get(node, 0)


def _counted(shape: Shape, spread: Spread, cluster: Cluster) -> tuple[Counts, Counts]:
    """The pods of the namespace that the constraint means; none, if it asks for nothing of them (as upstream)."""
    if not spread.selector.requirements:
        return {}, {}
    tally = cluster.tally(shape.tenant, (Scope(frozenset({shape.namespace}), None, spread.selector),))
    return tally.counts, tally.leaving


def _included(spread: Spread, answer: Answer, name: str) -> bool:
    """Whether a node counts for the constraint (nodeAffinityPolicy, nodeTaintsPolicy)."""
    return not (spread.by_affinity and name not in answer.selected) and not (
        spread.by_taints and name not in answer.borne
    )


def hard(shape: Shape, cluster: Cluster, view: View, answer: Answer) -> list[Hard]:
    """The constraints that must hold."""
    wanted = [spread for spread in shape.spread if spread.hard]
    if not wanted:
        return []
    nodes = _with_all([spread.key for spread in wanted], view)
    found = []
    for spread in wanted:
        sums: dict[str, int] = {}
        counted, values = _counted(shape, spread, cluster), view.values(spread.key)
        for name in nodes:
            if _included(spread, answer, name):
                value = values[name]
                sums[value] = sums.get(value, 0) + _present(counted, name)
        least = min(sums.values(), default=0) if len(sums) >= spread.domains else 0
        itself = int(spread.selector.matches_labels(shape.labels))
        found.append(Hard(spread.key, sums, spread.skew + least - itself))
    return found


def _with_all(keys: list[str], view: View) -> Collection[str]:
    """The nodes that have all the labels."""
    first, *others = (view.values(key) for key in keys)
    return [name for name in first if all(name in values for values in others)] if others else first.keys()


@dataclass(frozen=True, slots=True)
class _Soft:
    """A constraint that ought to hold: what it counts, by value of its label, or by node."""

    key: str
    skew: int
    weight: float
    counts: dict[str, int]

    def cost(self, node: NodeFacts) -> float:
        value = node.labels.get(self.key)
        if value is None:
            return 0.0
        return self.counts.get(node.name if self.key == HOSTNAME else value, 0) * self.weight + self.skew - 1


def scores(shape: Shape, cluster: Cluster, view: View, answer: Answer, fitting: list[NodeFacts]) -> dict[str, int]:
    """0 to 100 for each fitting node, the more the fewer pods are around it; empty if the pod asks for no spreading."""
    given = [spread for spread in shape.spread if not spread.hard]
    if not given and (shape.spread or not shape.group):
        return {}
    keys = [spread.key for spread in given]
    ignored = {n.name for n in fitting if any(key not in n.labels for key in keys)}
    candidates = [n for n in fitting if n.name not in ignored]
    soft = (
        _given(given, shape, cluster, view, answer, candidates) if given else _default(shape, cluster, view, candidates)
    )
    costs = {n.name: round(sum(s.cost(n) for s in soft)) for n in candidates}
    least, most = min(costs.values(), default=0), max(costs.values(), default=0)
    found = dict.fromkeys(ignored, 0)
    for name, cost in costs.items():
        found[name] = 100 * (most + least - cost) // most if most else 100
    return found


def _weight(places: int) -> float:
    return math.log(places + 2)


def _given(
    given: list[Spread], shape: Shape, cluster: Cluster, view: View, answer: Answer, candidates: list[NodeFacts]
) -> list[_Soft]:
    nodes = _with_all([spread.key for spread in given], view)
    found = []
    for spread in given:
        counted, values = _counted(shape, spread, cluster), view.values(spread.key)
        if spread.key == HOSTNAME:
            by_node = {n.name: _present(counted, n.name) for n in candidates}
            found.append(_Soft(spread.key, spread.skew, _weight(len(candidates)), by_node))
            continue
        sums = {n.labels[spread.key]: 0 for n in candidates}
        for name in nodes:
            value = values[name]
            if value in sums and _included(spread, answer, name):
                sums[value] += _present(counted, name)
        found.append(_Soft(spread.key, spread.skew, _weight(len(sums)), sums))
    return found


def _default(shape: Shape, cluster: Cluster, view: View, candidates: list[NodeFacts]) -> list[_Soft]:
    """For pods that say nothing: those of one controller spread over nodes and zones, as far as nodes have labels."""
    counts = cluster.group(shape.tenant, shape.group)
    found = []
    for key, skew in DEFAULTS:
        if key == HOSTNAME:
            found.append(_Soft(key, skew, _weight(len(candidates)), counts))
            continue
        values = view.values(key)
        sums: dict[str, int] = {}
        for node, number in counts.items():
            if node in values:
                sums[values[node]] = sums.get(values[node], 0) + number
        places = {n.labels.get(key, "") for n in candidates}
        found.append(_Soft(key, skew, _weight(len(places)), sums))
    return found
