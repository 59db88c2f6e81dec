"""Preemption: which pods of the same tenant would have to go so that a more important one has room. Pure.

Nobody else's pods are ever victims: a priority says something inside its tenant only. Source: upstream's DefaultPreemption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.meta import LabelSelector
from polder.api.policy import PodDisruptionBudget
from polder.api.selectors import LabelMatcher
from polder.base.errors import PermanentError
from polder.scheduler.cluster import Placement
from polder.scheduler.core import Decision, explain
from polder.scheduler.filters import FITS, Question, Verdict
from polder.scheduler.nodes import NodeFacts
from polder.scheduler.terms import label_matcher

NEVER: Final = "preemption: not eligible due to preemptionPolicy=Never."
WAITS: Final = "preemption: not eligible due to a terminating pod on the nominated node."
NOT_HELPFUL: Final = "Preemption is not helpful for scheduling"
NO_VICTIMS: Final = "No preemption victims found for incoming pod"
_SHIFT: Final = 2**31
"""Added to each priority of a sum, so that few pods of a low priority are not worth more than many."""


@dataclass(frozen=True, slots=True)
class Victims:
    """The pods that would go from a node, the most important first; ``violations``: how many against a budget."""

    node: str
    pods: tuple[Placement, ...]
    violations: int

    @property
    def worth(self) -> tuple[int, int, int, int]:
        """The less, the better: upstream's order of what is to be spared."""
        priorities = [p.demand.priority for p in self.pods]
        return self.violations, priorities[0], sum(p + _SHIFT for p in priorities), len(priorities)

    @property
    def oldest(self) -> str:
        """Since when the most important of them run, at the earliest."""
        first = self.pods[0].demand.priority
        return min(p.since for p in self.pods if p.demand.priority == first)


def ineligible(question: Question) -> str:
    """Why the pod may not preempt; empty if it may."""
    demand, cluster = question.demand, question.cluster
    if not demand.shape.preempts:
        return NEVER
    known = cluster.nomination(demand.uid)
    if known is None:
        return ""
    mine = cluster.usage(known.node).by_tenant.get(demand.tenant, {})
    for uid, placed in mine.items():
        if placed.demand.priority < demand.priority and (uid in known.victims or (placed.leaving and placed.preempted)):
            return WAITS
    return ""


def _importance(placed: Placement) -> tuple[int, str, str]:
    """Sorts the most important first: priority, then who runs the longest."""
    return -placed.demand.priority, placed.since, placed.demand.uid


def _budgets(budgets: Sequence[PodDisruptionBudget], placed: Sequence[Placement]) -> set[str]:
    """UIDs of the pods whose going, in that order, goes against a budget."""
    left = [budget.status.disruptions_allowed for budget in budgets]
    matchers = [_matcher(budget.spec.selector) for budget in budgets]
    found = set()
    for placement in placed:
        demand = placement.demand
        for number, budget in enumerate(budgets):
            matcher = matchers[number]
            if budget.metadata.namespace != demand.ref.namespace or matcher is None or not demand.shape.labels:
                continue
            if not matcher.matches_labels(demand.shape.labels):
                continue
            if demand.ref.name in (budget.status.disrupted_pods or {}):
                continue
            left[number] -= 1
            if left[number] < 0:
                found.add(demand.uid)
    return found


def _matcher(selector: LabelSelector | None) -> LabelMatcher | None:
    try:
        found = label_matcher(selector)
    except PermanentError:
        return None
    return found if found.requirements else None


def victims_on(
    question: Question, node: NodeFacts, budgets: Sequence[PodDisruptionBudget]
) -> Victims | tuple[str, ...]:
    """The fewest pods that have to leave a node for the pod to fit, or why that is not to be had."""
    demand, cluster = question.demand, question.cluster
    mine = cluster.usage(node.name).by_tenant.get(demand.tenant, {})
    lower = sorted((p for p in mine.values() if p.demand.priority < demand.priority and not p.assumed), key=_importance)
    if not lower:
        return (NO_VICTIMS,)
    violating = _budgets(budgets, lower)
    gone, why = _needed(question, node, sorted(lower, key=lambda p: p.demand.uid not in violating))
    if not gone:
        return why or (NO_VICTIMS,)
    pods = tuple(sorted(gone, key=_importance))
    return Victims(node.name, pods, sum(p.demand.uid in violating for p in pods))


def _needed(question: Question, node: NodeFacts, lower: list[Placement]) -> tuple[list[Placement], tuple[str, ...]]:
    """Of pods that may go, those that have to: each in turn is spared if the pod fits beside it. Or why nothing helps."""
    cluster, looks_around = question.cluster, question.looks_around
    gone: list[Placement] = []

    def verdict() -> Verdict:
        if looks_around:
            question.renew()
        return question.expecting(node)

    try:
        for placed in lower:
            cluster.lift(placed)
            gone.append(placed)
        if (found := verdict()) is not FITS:
            return [], found.reasons
        needed = []
        for placed in lower:
            cluster.put_back(placed)
            gone.remove(placed)
            if verdict() is not FITS:
                cluster.lift(placed)
                gone.append(placed)
                needed.append(placed)
        return needed, ()
    finally:
        for placed in gone:
            cluster.put_back(placed)
        question.renew()


def choose(found: Sequence[Victims]) -> Victims:
    """The node whose victims are to be spared the least: by budgets, importance, number; then who started last."""
    least = min(v.worth for v in found)
    equal = [v for v in found if v.worth == least]
    latest = max(v.oldest for v in equal)
    return next(v for v in equal if v.oldest == latest)


def unhelpful(decision: Decision, reasons: Counter[str]) -> str:
    """What is said of a preemption that found nobody: why, of the nodes that were tried; the others could not do anyway."""
    rest = decision.nodes - sum(reasons.values())
    said = +reasons  # a count of none is not said
    if rest > 0:
        said[NOT_HELPFUL] += rest
    return f"preemption: {explain(decision.nodes, said)}"
