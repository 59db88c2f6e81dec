"""Node affinity: which nodes a pod requires and which it prefers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from polder.api.clauses import meets
from polder.api.meta import Struct

Clause = tuple[str, str, frozenset[str]]
"""Label (or field), operator, values."""


class Requirement(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelectorRequirement: In, NotIn, Exists, DoesNotExist, Gt, Lt."""

    key: str
    operator: str
    values: list[str] | None = None


class TermForm(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelectorTerm as it is written."""

    match_expressions: list[Requirement] | None = None
    match_fields: list[Requirement] | None = None


class RequiredForm(Struct, frozen=True, kw_only=True):
    """core/v1 NodeSelector as it is written."""

    node_selector_terms: list[TermForm] = []


class PreferredForm(Struct, frozen=True, kw_only=True):
    """core/v1 PreferredSchedulingTerm as it is written."""

    weight: int
    preference: TermForm


class NodeAffinityForm(Struct, frozen=True, kw_only=True):
    """core/v1 NodeAffinity as it is written."""

    required: RequiredForm | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")
    preferred: list[PreferredForm] | None = msgspec.field(
        default=None, name="preferredDuringSchedulingIgnoredDuringExecution"
    )


@dataclass(frozen=True, slots=True)
class Term:
    """All clauses must hold; a term without any matches nothing."""

    labels: tuple[Clause, ...] = ()
    fields: tuple[Clause, ...] = ()

    def holds(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether every clause holds for a node."""
        if not self.labels and not self.fields:
            return False
        return all(_holds(operator, labels.get(key), values) for key, operator, values in self.labels) and all(
            _holds(operator, name if key == "metadata.name" else None, values) for key, operator, values in self.fields
        )


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """What is required (None: nothing is; one term must hold) and what is preferred."""

    required: tuple[Term, ...] | None = None
    preferred: tuple[tuple[int, Term], ...] = ()

    def allows(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether the node fulfils what is required."""
        return self.required is None or any(term.holds(labels, name) for term in self.required)

    def preference(self, labels: Mapping[str, str], name: str) -> int:
        """The weights of the preferences that the node fulfils; an empty preference is fulfilled by none."""
        return sum(weight for weight, term in self.preferred if term.holds(labels, name))


ANYWHERE = NodeAffinity()


def terms_of(form: RequiredForm | None) -> tuple[Term, ...] | None:
    """The terms of a node selector."""
    return None if form is None else tuple(_term(term) for term in form.node_selector_terms)


def node_affinity(form: NodeAffinityForm | None) -> NodeAffinity:
    """A pod's ``spec.affinity.nodeAffinity``."""
    if form is None:
        return ANYWHERE
    preferred = tuple((p.weight, _term(p.preference)) for p in form.preferred or [] if p.weight)
    return NodeAffinity(terms_of(form.required), preferred)


def _term(form: TermForm) -> Term:
    def clauses(found: list[Requirement] | None) -> tuple[Clause, ...]:
        return tuple((r.key, r.operator, frozenset(r.values or ())) for r in found or ())

    return Term(clauses(form.match_expressions), clauses(form.match_fields))


def _holds(operator: str, value: str | None, values: frozenset[str]) -> bool:
    return _compares(operator, value, values) if operator in ("Gt", "Lt") else meets(operator, value, values)


def _compares(operator: str, value: str | None, values: frozenset[str]) -> bool:
    try:
        have, bound = int(value or ""), int(next(iter(values)))
    except (ValueError, StopIteration):
        return False
    return have > bound if operator == "Gt" else have < bound
