"""Which node a pod goes to, or why none will do. Pure: one demand and the cluster in, one decision out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from polder.scheduler.claims import ClaimRules
from polder.scheduler.cluster import CLAIMS, NODE, Cluster
from polder.scheduler.demand import Demand
from polder.scheduler.filters import FITS, Question, cause_of
from polder.scheduler.scores import best

NO_NODES: Final = "no nodes available to schedule pods"
ENOUGH: Final = 100
"""Nodes that will do among which the best is looked for, at least; of many nodes a share (upstream's sampling)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The chosen node, or (``node`` empty) a message that names no node and no other tenant, what may change the answer, and
    the nodes that would do if pods left them.
    """

    node: str = ""
    message: str = ""
    causes: frozenset[str] = frozenset()
    hopeful: tuple[str, ...] = ()
    nodes: int = 0


def enough(nodes: int) -> int:
    """How many nodes that will do are looked for, of so many."""
    if nodes <= ENOUGH:
        return nodes
    return max(ENOUGH, nodes * max(5, 50 - nodes // 125) // 100)


def decide(demand: Demand, cluster: Cluster, claims: ClaimRules | None = None, start: int = 0) -> Decision:
    """The best node for the demand, or why there is none. ``start`` turns the order in which nodes are asked."""
    if demand.refusal:
        return Decision(message=demand.refusal)
    if not len(cluster):
        return Decision(message=NO_NODES, causes=frozenset({NODE}))
    if claims is not None and claims.refused:
        message = f"0/{len(cluster)} nodes are available: {claims.refused}."
        return Decision(message=message, causes=frozenset({CLAIMS}), nodes=len(cluster))
    question = Question(demand, cluster, claims)
    first = _nominated(question)
    if first:
        return Decision(node=first)
    return _decide(question, start)


def _nominated(question: Question) -> str:
    """The node that the pod is nominated for, if it will do now."""
    known = question.cluster.nomination(question.demand.uid)
    if known is None:
        return ""
    node = next((n for n in question.answer.nodes if n.name == known.node), None)
    return node.name if node is not None and question.expecting(node) is FITS else ""


def _decide(question: Question, start: int) -> Decision:
    nodes = question.answer.nodes
    wanted, fitting = enough(len(question.view)), []
    reasons = Counter(question.answer.reasons)
    hopeful: list[str] = []
    for number in range(len(nodes)):
        node = nodes[(start + number) % len(nodes)]
        verdict = question.expecting(node)
        if verdict is FITS:
            fitting.append(node)
            if len(fitting) >= wanted:
                break
            continue
        reasons.update(verdict.reasons)
        if not verdict.helpless:
            hopeful.append(node.name)
    if fitting:
        return Decision(node=best(question, fitting))
    total = len(question.view)
    return Decision("", explain(total, reasons), frozenset(map(cause_of, reasons)), tuple(hopeful), total)


def explain(nodes: int, reasons: Counter[str] | dict[str, int]) -> str:
    """Upstream's sentence: ``0/2 nodes are available: 2 Insufficient cpu.``"""
    parts = sorted(f"{count} {reason}" for reason, count in reasons.items())
    return f"0/{nodes} nodes are available: {', '.join(parts)}."
