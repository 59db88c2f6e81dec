"""Node affinity and tolerations: which nodes a pod requires and prefers, and which taints it bears. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from polder.api.clauses import meets
from polder.api.core import Taint
from polder.api.meta import Struct
from polder.api.podspec import Toleration


class Requirement(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelectorRequirement: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: list[str] | None = None


class Term(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelectorTerm: all clauses must hold; an empty term matches nothing."""

    match_expressions: list[Requirement] | None = None
    match_fields: list[Requirement] | None = None


class Required(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelector: one term must hold."""

    node_selector_terms: list[Term] = []


class Preferred(Struct, frozen=True, kw_only=True):
    """core/v1 PreferredSchedulingTerm."""

    weight: int
    preference: Term


class NodeAffinityTerms(Struct, frozen=True, kw_only=True):
    """core/v1 NodeAffinity."""

    required: Required | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[Preferred] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """What is required (None: nothing is) and what is preferred."""

    required: tuple[Term, ...] | None = None
    preferred: tuple[tuple[int, Term], ...] = ()

    def allows(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether the node fulfils what is required."""
        return self.required is None or any(term_holds(term, labels, name) for term in self.required)

    def preference(self, labels: Mapping[str, str], name: str) -> int:
        """The weights of the preferences that the node fulfils."""
        return sum(weight for weight, term in self.preferred if term_holds(term, labels, name))


def affinity_of(wanted: NodeAffinityTerms | None) -> NodeAffinity:
    """What a pod's ``spec.affinity.nodeAffinity`` says."""
    found = wanted or NodeAffinityTerms()
    required = None if found.required is None else tuple(found.required.node_selector_terms)
    return NodeAffinity(required, tuple((p.weight, p.preference) for p in found.preferred or []))


def term_holds(term: Term, labels: Mapping[str, str], name: str) -> bool:
    """Whether every clause of the term holds for a node; no clause means no node."""
    expressions, fields = term.match_expressions or [], term.match_fields or []
    if not expressions and not fields:
        return False
    return all(_holds(r, labels.get(r.key)) for r in expressions) and all(
        _holds(r, name if r.key == "metadata.name" else None) for r in fields
    )


def _holds(requirement: Requirement, value: str | None) -> bool:
    operator, values = requirement.operator, requirement.values or []
    return _compares(operator, value, values) if operator in ("Gt", "Lt") else meets(operator, value, values)


def _compares(operator: str, value: str | None, values: list[str]) -> bool:
    try:
        have, bound = int(value or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return have > bound if operator == "Gt" else have < bound


class Tolerations:
    """Which taints are borne (core/v1 ToleratesTaint); found at once, however many there are of either."""

    def __init__(self, tolerations: Iterable[Toleration]) -> None:
        self._known: dict[tuple[str, str, str | None], tuple[int, Toleration]] = {}
        for number, found in enumerate(tolerations):
            exists = found.operator == "Exists"
            if exists or found.key:
                self._known.setdefault((found.key, found.effect, None if exists else found.value), (number, found))

    def first(self, taint: Taint) -> Toleration | None:
        """The first one that bears the taint."""
        ways = ((taint.key, None), (taint.key, taint.value), ("", None))
        asked = ((key, effect, value) for key, value in ways for effect in (taint.effect, ""))
        found = [known for way in asked if (known := self._known.get(way)) is not None]
        return min(found, key=lambda known: known[0])[1] if found else None

    def bear(self, taint: Taint) -> bool:
        """Whether one of them does."""
        return self.first(taint) is not None
