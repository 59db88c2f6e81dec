"""What a pod asks about other pods: affinity, anti-affinity and topology spread constraints, read once for many pods.

Everything here means pods of the pod's own tenant; no term can name another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import msgspec

from polder.api.labelselector import NOTHING, matcher_of
from polder.api.meta import LabelSelector, Struct
from polder.api.selectors import LabelMatcher, Requirement
from polder.base.errors import PermanentError
from polder.scheduler.affinity import ANYWHERE, NodeAffinity, NodeAffinityForm, node_affinity

HOSTNAME: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


class _PodTermForm(Struct, frozen=True, kw_only=True):
    label_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    namespaces: list[str] | None = None
    topology_key: str = ""
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class _WeightedForm(Struct, frozen=True, kw_only=True):
    weight: int
    pod_affinity_term: _PodTermForm


class _PodAffinityForm(Struct, frozen=True, kw_only=True):
    required: list[_PodTermForm] | None = msgspec.field(default=None, name=_REQUIRED)
    preferred: list[_WeightedForm] | None = msgspec.field(default=None, name=_PREFERRED)


class _AffinityForm(Struct, frozen=True, kw_only=True):
    node_affinity: NodeAffinityForm | None = None
    pod_affinity: _PodAffinityForm | None = None
    pod_anti_affinity: _PodAffinityForm | None = None


class _SpreadForm(Struct, frozen=True, kw_only=True):
    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: list[str] | None = None


_affinities = msgspec.json.Decoder(_AffinityForm | None)
_spreads = msgspec.json.Decoder(list[_SpreadForm] | None)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which pods are meant: those of these namespaces, or of namespaces with such labels (``every``), with such labels."""

    namespaces: frozenset[str]
    every: LabelMatcher | None
    selector: LabelMatcher

    def covers(self, namespace: str, labels: Mapping[str, Mapping[str, str]]) -> bool:
        """Whether a namespace's pods are meant; ``labels`` are those of the tenant's namespaces, by name."""
        if namespace in self.namespaces:
            return True
        return self.every is not None and self.every.matches_labels(dict(labels.get(namespace) or {}))


@dataclass(frozen=True, slots=True)
class PodTerm:
    """The pods of a scope, and the label that says which nodes are one place (``topologyKey``)."""

    scope: Scope
    key: str


@dataclass(frozen=True, slots=True)
class Spread:
    """core/v1 TopologySpreadConstraint; ``hard``: DoNotSchedule."""

    key: str
    selector: LabelMatcher
    skew: int
    hard: bool
    domains: int = 1
    by_affinity: bool = True
    by_taints: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a pod asks of nodes and of where other pods are. ``prefer``: weights, below zero for pods to keep away from."""

    nodes: NodeAffinity = ANYWHERE
    near: tuple[PodTerm, ...] = ()
    apart: tuple[PodTerm, ...] = ()
    prefer: tuple[tuple[int, PodTerm], ...] = ()


NO_WISHES: Final = Wishes()


@lru_cache(maxsize=512)
def _affinity_form(text: bytes) -> _AffinityForm:
    try:
        return _affinities.decode(text) or _AffinityForm()
    except msgspec.ValidationError as error:
        raise PermanentError(f"spec.affinity is malformed: {error}") from error


@lru_cache(maxsize=512)
def _spread_forms(text: bytes) -> tuple[_SpreadForm, ...]:
    try:
        return tuple(_spreads.decode(text) or ())
    except msgspec.ValidationError as error:
        raise PermanentError(f"spec.topologySpreadConstraints is malformed: {error}") from error


def wishes_of(affinity: bytes, namespace: str, labels: Mapping[str, str]) -> Wishes:
    """Of a pod's ``spec.affinity`` as JSON, its namespace and labels. Raises PermanentError."""
    if affinity == b"null":
        return NO_WISHES
    form = _affinity_form(affinity)
    near, apart = form.pod_affinity or _PodAffinityForm(), form.pod_anti_affinity or _PodAffinityForm()

    def term(found: _PodTermForm) -> PodTerm:
        return PodTerm(_scope(found, namespace, labels), found.topology_key)

    prefer = [(p.weight, term(p.pod_affinity_term)) for p in near.preferred or ()]
    prefer += [(-p.weight, term(p.pod_affinity_term)) for p in apart.preferred or ()]
    return Wishes(
        nodes=node_affinity(form.node_affinity),
        near=tuple(term(t) for t in near.required or ()),
        apart=tuple(term(t) for t in apart.required or ()),
        prefer=tuple(prefer),
    )


def spreads_of(constraints: bytes, labels: Mapping[str, str]) -> tuple[Spread, ...]:
    """Of a pod's ``spec.topologySpreadConstraints`` as JSON, and its labels. Raises PermanentError."""
    if constraints == b"null":
        return ()
    return tuple(
        Spread(
            key=form.topology_key,
            selector=_with_keys(label_matcher(form.label_selector), form.match_label_keys, labels, "in"),
            skew=form.max_skew,
            hard=form.when_unsatisfiable == "DoNotSchedule",
            domains=form.min_domains or 1,
            by_affinity=form.node_affinity_policy != "Ignore",
            by_taints=form.node_taints_policy == "Honor",
        )
        for form in _spread_forms(constraints)
    )


def _scope(form: _PodTermForm, namespace: str, labels: Mapping[str, str]) -> Scope:
    selector = _with_keys(label_matcher(form.label_selector), form.match_label_keys, labels, "in")
    selector = _with_keys(selector, form.mismatch_label_keys, labels, "notin")
    every = None if form.namespace_selector is None else label_matcher(form.namespace_selector)
    named = frozenset(form.namespaces or ())
    return Scope(named if named or every is not None else frozenset({namespace}), every, selector)


def label_matcher(selector: LabelSelector | None) -> LabelMatcher:
    """Of a selector; none means nothing. Raises PermanentError."""
    if selector is None:
        return NOTHING
    raw = {
        "matchLabels": selector.match_labels,
        "matchExpressions": [
            {"key": e.key, "operator": e.operator, "values": e.values} for e in selector.match_expressions or ()
        ],
    }
    try:
        return matcher_of(raw)
    except ValueError as error:
        raise PermanentError(f"a label selector of the pod is malformed: {error}") from error


def _with_keys(
    selector: LabelMatcher, keys: list[str] | None, labels: Mapping[str, str], operator: str
) -> LabelMatcher:
    """matchLabelKeys and mismatchLabelKeys: clauses with the pod's own values; a label that it lacks asks nothing."""
    more = [Requirement(key, operator, frozenset({labels[key]})) for key in keys or () if key in labels]
    more = [clause for clause in more if clause not in selector.requirements]
    return LabelMatcher((*selector.requirements, *more)) if more else selector
