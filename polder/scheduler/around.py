"""Affinity and anti-affinity between pods: where a pod may be for the sake of others, and where it would rather be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from polder.scheduler.cluster import Cluster
from polder.scheduler.crowd import MUST_BE_APART, Counts
from polder.scheduler.demand import Shape
from polder.scheduler.nodes import NodeFacts, View
from polder.scheduler.terms import PodTerm

NOT_NEAR: Final = "node(s) didn't match pod affinity rules"
NOT_APART: Final = "node(s) didn't match pod anti-affinity rules"
REPELLED: Final = "node(s) didn't satisfy existing pods anti-affinity rules"


def _places(counts: Counts, values: Mapping[str, str]) -> frozenset[str]:
    """The values of a label that the nodes have on which there are pods."""
    return frozenset(values[node] for node in counts if node in values)


def means_itself(shape: Shape, term: PodTerm, namespaces: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a term means the pod that has it."""
    return term.scope.covers(shape.namespace, namespaces) and term.scope.selector.matches_labels(shape.labels)


@dataclass(frozen=True, slots=True)
class Around:
    """What is required, by label: near these values, and away from those."""

    near: tuple[tuple[str, frozenset[str]], ...] = ()
    is_first: bool = False
    apart: tuple[tuple[str, frozenset[str]], ...] = ()
    repelled: tuple[tuple[str, frozenset[str]], ...] = ()

    def refusal(self, node: NodeFacts) -> str:
        """Why the node will not do, by upstream's order of rules; empty if it will."""
        labels = node.labels
        if self.near and any(key not in labels for key, _ in self.near):
            return NOT_NEAR
        if not self.is_first and any(labels[key] not in values for key, values in self.near):
            return NOT_NEAR
        if any(labels.get(key) in values for key, values in self.apart):
            return NOT_APART
        return REPELLED if any(labels.get(key) in values for key, values in self.repelled) else ""


def around(shape: Shape, cluster: Cluster, view: View) -> Around | None:
    """What other pods require of the place of such a pod, and it of theirs; None if nothing."""
    wishes, tenant = shape.wishes, shape.tenant
    repelled = tuple(
        (pull.term.key, _places(counts, view.values(pull.term.key)))
        for pull, counts in cluster.pulls(shape)
        if pull.weight == MUST_BE_APART
    )
    if not (wishes.near or wishes.apart or repelled):
        return None
    near: tuple[tuple[str, frozenset[str]], ...] = ()
    is_first = False
    if wishes.near:
        # A pod counts for affinity only if all the terms mean it, as upstream has it.
        counts = cluster.tally(tenant, tuple(term.scope for term in wishes.near)).counts
        near = tuple((term.key, _places(counts, view.values(term.key))) for term in wishes.near)
        namespaces = cluster.namespace_labels(tenant)
        nowhere = not any(values for _, values in near)
        is_first = nowhere and all(means_itself(shape, term, namespaces) for term in wishes.near)
    apart = tuple(
        (term.key, _places(cluster.tally(tenant, (term.scope,)).counts, view.values(term.key))) for term in wishes.apart
    )
    return Around(near, is_first, apart, repelled)


def leanings(shape: Shape, cluster: Cluster, view: View) -> dict[str, dict[str, int]]:
    """By label and its value, how much the pod would rather be there: what it prefers, and what placed pods prefer."""
    found: dict[str, dict[str, int]] = {}

    def add(key: str, counts: Counts, weight: int) -> None:
        values = view.values(key)
        sums = found.setdefault(key, {})
        for node, number in counts.items():
            value = values.get(node)
            if value is not None:
                sums[value] = sums.get(value, 0) + weight * number

    for weight, term in shape.wishes.prefer:
        add(term.key, cluster.tally(shape.tenant, (term.scope,)).counts, weight)
    for pull, counts in cluster.pulls(shape):
        if pull.weight != MUST_BE_APART:
            add(pull.term.key, counts, pull.weight)
    return found
