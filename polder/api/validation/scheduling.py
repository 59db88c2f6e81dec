"""Where pods may run: affinities and how they spread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.rules import validate_selector

_OPERATORS: Final = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def validate_affinity(affinity: Raw, at: Field) -> Iterator[FieldError]:
    """core/v1 Affinity."""
    if (nodes := affinity.get("nodeAffinity")) is not None:
        yield from _nodes(nodes, at / "nodeAffinity")
    for name in ("podAffinity", "podAntiAffinity"):
        pods, where = affinity.get(name) or {}, at / name
        for number, term in enumerate(pods.get(_REQUIRED) or ()):
            yield from _pod_term(term, (where / _REQUIRED)[number])
        for number, weighted in enumerate(pods.get(_PREFERRED) or ()):
            item = (where / _PREFERRED)[number]
            yield from _weight(weighted, item)
            yield from _pod_term(weighted.get("podAffinityTerm") or {}, item / "podAffinityTerm")


def _nodes(nodes: Raw, at: Field) -> Iterator[FieldError]:
    if (required := nodes.get(_REQUIRED)) is not None:
        yield from validate_node_selector(required, at / _REQUIRED)
    for number, weighted in enumerate(nodes.get(_PREFERRED) or ()):
        item = (at / _PREFERRED)[number]
        yield from _weight(weighted, item)
        yield from _node_term(weighted.get("preference") or {}, item / "preference")


def _weight(weighted: Raw, at: Field) -> Iterator[FieldError]:
    if not 1 <= weighted.get("weight", 0) <= 100:
        yield (at / "weight").invalid(weighted.get("weight", 0), "must be in the range 1-100")


def validate_node_selector(selector: Raw, at: Field) -> Iterator[FieldError]:
    """core/v1 NodeSelector."""
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        yield (at / "nodeSelectorTerms").required("must have at least one node selector term")
    for number, term in enumerate(terms):
        yield from _node_term(term, (at / "nodeSelectorTerms")[number])


def _node_term(term: Raw, at: Field) -> Iterator[FieldError]:
    for group in ("matchExpressions", "matchFields"):
        for number, clause in enumerate(term.get(group) or ()):
            yield from _clause(clause, (at / group)[number], fields=group == "matchFields")


def _clause(clause: Raw, at: Field, *, fields: bool) -> Iterator[FieldError]:
    operator, values, key = clause.get("operator", ""), clause.get("values") or [], clause.get("key", "")
    if operator in ("In", "NotIn"):
        if not values:
            yield (at / "values").required("must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            yield (at / "values").forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            why = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            yield (at / "values").required(why)
    else:
        yield (at / "operator").invalid(operator, "not a valid selector operator")
    if fields:
        if key != "metadata.name":
            yield (at / "key").invalid(key, "not a valid field selector key")
        return
    yield from ((at / "key").invalid(key, said) for said in names.qualified_name(key))
    if operator not in ("Gt", "Lt"):
        for number, value in enumerate(values):
            yield from ((at / "values")[number].invalid(value, said) for said in names.label_value(value))


def _pod_term(term: Raw, at: Field) -> Iterator[FieldError]:
    for name in ("labelSelector", "namespaceSelector"):
        if (selector := term.get(name)) is not None:
            yield from validate_selector(selector, at / name)
    for namespace in term.get("namespaces") or ():
        yield from ((at / "namespace").invalid(namespace, said) for said in names.dns_label(namespace))
    key = term.get("topologyKey", "")
    if not key:
        yield (at / "topologyKey").required("can not be empty")
    else:
        yield from ((at / "topologyKey").invalid(key, said) for said in names.qualified_name(key))


def validate_spread(spread: Raw, at: Field) -> Iterator[FieldError]:
    """core/v1 TopologySpreadConstraint."""
    if spread.get("maxSkew", 0) <= 0:
        yield (at / "maxSkew").invalid(spread.get("maxSkew", 0), "must be greater than zero")
    key, action = spread.get("topologyKey", ""), spread.get("whenUnsatisfiable", "")
    if not key:
        yield (at / "topologyKey").required("can not be empty")
    if action not in ("DoNotSchedule", "ScheduleAnyway"):
        yield (at / "whenUnsatisfiable").not_supported(action, ("DoNotSchedule", "ScheduleAnyway"))
    if (domains := spread.get("minDomains")) is not None:
        if domains <= 0:
            yield (at / "minDomains").invalid(domains, "must be greater than zero")
        if action != "DoNotSchedule":
            why = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"
            yield (at / "minDomains").invalid(domains, why)
    for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
        if spread.get(name) not in (None, "Honor", "Ignore"):
            yield (at / name).not_supported(spread[name], ("Honor", "Ignore"))
    if (selector := spread.get("labelSelector")) is not None:
        yield from validate_selector(selector, at / "labelSelector")
