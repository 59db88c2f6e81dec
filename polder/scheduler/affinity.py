"""Node affinity: which nodes a pod requires and which it prefers. Pod affinity is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from polder.api.clauses import meets
from polder.api.meta import Struct


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


class _NodeAffinity(Struct, frozen=True, kw_only=True):
    required: Required | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[Preferred] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


class _Affinity(Struct, frozen=True, kw_only=True):
    node_affinity: _NodeAffinity | None = None
    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


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


def node_affinity(affinity: dict[str, Any] | None) -> tuple[NodeAffinity, str]:
    """The pod's ``spec.affinity``, and a sentence that refuses it if it asks for what is not supported."""
    if not affinity:
        return NodeAffinity(), ""
    try:
        parsed = msgspec.convert(affinity, _Affinity)
    except msgspec.ValidationError as error:
        return NodeAffinity(), f"spec.affinity is malformed: {error}"
    for name, given in (("podAffinity", parsed.pod_affinity), ("podAntiAffinity", parsed.pod_anti_affinity)):
        if given:
            return NodeAffinity(), f"spec.affinity.{name} is not supported, only spec.affinity.nodeAffinity is"
    wanted = parsed.node_affinity or _NodeAffinity()
    required = None if wanted.required is None else tuple(wanted.required.node_selector_terms)
    return NodeAffinity(required, tuple((p.weight, p.preference) for p in wanted.preferred or [])), ""


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
