"""How much one pod may ask: what is looked at for each node has to stay little, whoever writes it. Pure."""

from __future__ import annotations

from typing import Final

from polder.scheduler.affinity import NodeAffinity, Term
from polder.scheduler.terms import PodTerm, Spread, Wishes

CLAUSES: Final = 256
"""Clauses of node affinity, and of affinity between pods, terms without any counted as one."""
TERMS: Final = 64
"""Terms of affinity between pods: each is counted for all nodes."""
SPREADS: Final = 16
RESOURCES: Final = 64
PORTS: Final = 256
TOLERATIONS: Final = 1024
CLAIMS: Final = 64


def _clauses(nodes: NodeAffinity) -> int:
    def size(term: Term) -> int:
        return 1 + len(term.labels) + len(term.fields)

    return sum(map(size, nodes.required or ())) + sum(size(term) for _, term in nodes.preferred)


def _pod_terms(wishes: Wishes) -> list[PodTerm]:
    return [*wishes.near, *wishes.apart, *(term for _, term in wishes.prefer)]


def _of_selectors(terms: list[PodTerm]) -> int:
    def size(term: PodTerm) -> int:
        scope = term.scope
        every = scope.every.requirements if scope.every is not None else ()
        return 1 + len(scope.selector.requirements) + len(every)

    return sum(map(size, terms))


def too_much(wishes: Wishes, spread: tuple[Spread, ...], counts: dict[str, tuple[int, int]]) -> str:
    """A sentence that names what is too much; empty if nothing is. ``counts``: by field, how many there are and may be."""
    terms = _pod_terms(wishes)
    found = {
        "spec.affinity.nodeAffinity clauses": (_clauses(wishes.nodes), CLAUSES),
        "spec.affinity terms about pods": (len(terms), TERMS),
        "spec.affinity clauses about pods": (_of_selectors(terms), CLAUSES),
        "spec.topologySpreadConstraints": (len(spread), SPREADS),
        "spec.topologySpreadConstraints clauses": (sum(len(s.selector.requirements) for s in spread), CLAUSES),
        **counts,
    }
    for what, (number, most) in found.items():
        if number > most:
            return f"the scheduler takes at most {most} {what}, the pod has {number}"
    return ""
