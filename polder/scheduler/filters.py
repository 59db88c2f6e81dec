"""Whether a node will do for a pod, with what is on it and around it. The order of rules is upstream's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from polder.scheduler import around, spread, static
from polder.scheduler.claims import ClaimRules
from polder.scheduler.cluster import AROUND, CLAIMS, NODE, PODS, PORTS, Cluster, Usage
from polder.scheduler.demand import Demand
from polder.scheduler.nodes import NodeFacts, View

NO_PORTS: Final = "node(s) didn't have free ports for the requested pod ports"
TOO_MANY_PODS: Final = "Too many pods"
INSUFFICIENT: Final = "Insufficient "
_FOR_GOOD: Final = frozenset(
    {static.NOT_READY, static.UNSCHEDULABLE, static.TAINTED, static.NO_AFFINITY, around.NOT_NEAR, spread.NO_LABEL}
)
"""Reasons that no pod's leaving ends."""


def cause_of(reason: str) -> str:
    """What may end a refusal for that reason."""
    if reason.startswith(INSUFFICIENT):
        return reason.removeprefix(INSUFFICIENT)
    if reason == TOO_MANY_PODS:
        return PODS
    if reason == NO_PORTS:
        return PORTS
    if reason in (around.NOT_NEAR, around.NOT_APART, around.REPELLED, spread.UNEVEN):
        return AROUND
    return NODE if reason in _FOR_GOOD else CLAIMS


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a node will not do; ``helpless``: it would not without any of its pods either."""

    reasons: tuple[str, ...] = ()
    helpless: bool = False


FITS: Final = Verdict()


@dataclass(slots=True)
class Question:
    """One pod that looks for a node: what is the same for all nodes is found once."""

    demand: Demand
    cluster: Cluster
    claims: ClaimRules | None = None
    view: View = field(init=False)
    answer: static.Answer = field(init=False)
    around: around.Around | None = field(init=False)
    spread: list[spread.Hard] = field(init=False)

    def __post_init__(self) -> None:
        """Reads what is around."""
        shape = self.demand.shape
        self.view = self.cluster.seen_by(shape.tenant)
        self.answer = static.answer(shape.place, self.view)
        self.renew()

    def renew(self) -> None:
        """Reads again where other pods are."""
        shape = self.demand.shape
        self.around = around.around(shape, self.cluster, self.view)
        self.spread = spread.hard(shape, self.cluster, self.view, self.answer) if shape.spread else []

    @property
    def looks_around(self) -> bool:
        """Whether the answer rests on where other pods are."""
        return self.around is not None or bool(self.spread)

    def verdict(self, node: NodeFacts) -> Verdict:
        """Of a node that may do by its own properties."""
        usage, shape = self.cluster.usage(node.name), self.demand.shape
        if shape.ports and usage.conflicts(shape.ports):
            return Verdict((NO_PORTS,))
        short = tuple(insufficient(self.demand, node, usage))
        if short:
            allocatable = node.allocatable
            return Verdict(short, any(n > allocatable.get(name, 0) for name, n in shape.requests.items()))
        if self.claims is not None and (why := self.claims.refusal(node)):
            return Verdict((why,), why not in self.claims.RESOLVABLE)
        for rule in self.spread:
            if why := rule.refusal(node):
                return Verdict((why,), why in _FOR_GOOD)
        if self.around is not None and (why := self.around.refusal(node)):
            return Verdict((why,), why in _FOR_GOOD)
        return FITS

    def expecting(self, node: NodeFacts) -> Verdict:
        """The same, with the pods that have nominations for the node which this one has to respect."""
        verdict = self.verdict(node)
        if verdict is not FITS:
            return verdict
        expected = self.cluster.expected(self.demand, node.name)
        if not expected:
            return verdict
        with self.cluster.supposing(expected):
            self.renew()
            verdict = self.verdict(node)
        self.renew()
        return verdict


def insufficient(demand: Demand, node: NodeFacts, usage: Usage) -> Iterator[str]:
    """Every resource of which too little is left."""
    allocatable, used = node.allocatable, usage.requests
    if usage.pods + 1 > allocatable.get("pods", 0):
        yield TOO_MANY_PODS
    for name, wanted in demand.shape.requests.items():
        if wanted > 0 and used[name] + wanted > allocatable.get(name, 0):
            yield INSUFFICIENT + name
