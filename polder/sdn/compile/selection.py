"""Who is selected: selectors of policies, the groups that they make, and how a group finds its members.

A group looks into the index of ports under the narrowest term that its selector has, one label of one namespace, so that a pod's
change is looked at by those groups alone that ask for one of its labels, or for none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from polder.api import polder as api
from polder.api.core import Namespace
from polder.api.labelselector import matcher_of
from polder.api.meta import LabelSelector
from polder.api.netpolicies import raw_selector
from polder.api.selectors import LabelMatcher
from polder.base.ref import Ref
from polder.sdn.compile.concern import Index, View
from polder.sdn.compile.errors import CompileError
from polder.sdn.topology.policies import GroupMember, Ports, group_id

ALL = LabelMatcher()
DNS_LABELS = {"k8s-app": "kube-dns"}
"""The labels that the resolver's pods have in other clusters: by them policies name it."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Pods by labels, in one ``namespace`` or in those whose labels ``namespaces`` matches; or, where ``named`` is set, whoever
    calls a port so.
    """

    namespace: str = ""
    namespaces: LabelMatcher = ALL
    pods: LabelMatcher = ALL
    named: Ports | None = None

    @property
    def id(self) -> str:
        """Equal for all selectors that say the same."""
        if self.named is not None:
            return self.named.group
        where = f"in {self.namespace}" if self.namespace else f"where {_text(self.namespaces)}"
        return group_id(f"{where} | {_text(self.pods)}")


class Seen(NamedTuple):
    """A port as selectors see it."""

    labels: dict[str, str]
    network: str
    addresses: tuple[str, ...]
    named: tuple[Ports, ...]


def in_namespace(namespace: str, pods: LabelSelector | None) -> Selector:
    """Pods of one namespace; all of them without ``pods``."""
    return Selector(namespace=namespace, pods=_matcher(pods))


def in_namespaces(namespaces: LabelSelector, pods: LabelSelector | None = None) -> Selector:
    """Pods of namespaces by labels; all of them without ``pods``."""
    return Selector(namespaces=_matcher(namespaces), pods=_matcher(pods))


def _matcher(selector: LabelSelector | None) -> LabelMatcher:
    try:
        return matcher_of(raw_selector(selector)) if selector is not None else ALL
    except ValueError as error:
        raise CompileError(str(error)) from error


def _terms(ref: Ref, port: api.Port) -> Iterable[Hashable]:
    if port.spec.router_of:
        return ()
    labels = port.spec.labels or {}
    pairs = [(ref.tenant, ref.namespace, key, value) for key, value in labels.items()]
    named = [(ref.tenant, one.group) for one in _named(port)]
    return [(ref.tenant, ref.namespace), *pairs, *named]


def _seen(port: api.Port) -> Seen:
    return Seen(port.spec.labels or {}, port.spec.network, tuple(port.spec.addresses), _named(port))


def _named(port: api.Port) -> tuple[Ports, ...]:
    known = port.spec.container_ports or []
    return tuple(Ports(one.protocol, one.container_port, one.container_port, one.name) for one in known)


PORTS: Index[api.Port, Seen] = Index("policy ports", api.Port, _terms, _seen)
"""Pods' ports by (tenant, namespace), by (tenant, namespace, label, value), and by (tenant, group) of each port they name."""
NAMESPACES: Index[Namespace, dict[str, str]] = Index(
    "policy namespaces", Namespace, lambda ref, _: (ref.tenant,), lambda one: one.metadata.labels or {}
)
"""Labels of namespaces by tenant."""


def members(selector: Selector, tenant: str, view: View) -> tuple[GroupMember, ...]:
    """Whom a selector selects among the ports."""
    if selector.named is not None:
        found = view.by(PORTS, (tenant, selector.id))
        group = selector.id
        rows = ((ref, seen, tuple(one for one in seen.named if one.group == group)) for ref, seen in found.items())
        return tuple(sorted(_member(ref, seen, named) for ref, seen, named in rows if seen.addresses))
    pods = selector.pods
    return tuple(
        sorted(
            _member(ref, seen, ())
            for namespace in _namespaces(selector, tenant, view)
            for ref, seen in _candidates(pods, tenant, namespace, view).items()
            if seen.addresses and pods.matches_labels(seen.labels)
        )
    )


def selects(selector: Selector, tenant: str, namespace: str, labels: dict[str, str], view: View) -> bool:
    """Whether a pod with these labels would be among them."""
    known = selector.named is None and selector.pods.matches_labels(labels)
    return known and namespace in _namespaces(selector, tenant, view)


def _namespaces(selector: Selector, tenant: str, view: View) -> list[str]:
    if selector.namespace:
        return [selector.namespace]
    known = view.by(NAMESPACES, tenant)
    return [ref.name for ref, labels in known.items() if selector.namespaces.matches_labels(labels)]


def _candidates(pods: LabelMatcher, tenant: str, namespace: str, view: View) -> Mapping[Ref, Seen]:
    narrow = next((one for one in pods.requirements if one.operator == "in"), None)
    if narrow is None:
        return view.by(PORTS, (tenant, namespace))
    found: dict[Ref, Seen] = {}
    for value in narrow.values:
        found.update(view.by(PORTS, (tenant, namespace, narrow.key, value)))
    return found


def _member(ref: Ref, seen: Seen, named: tuple[Ports, ...]) -> GroupMember:
    ports = tuple(Ports(one.protocol, one.first, one.last) for one in named)
    return GroupMember(f"{ref.namespace}/{ref.name}", seen.network, seen.addresses, ports)


def _text(matcher: LabelMatcher) -> str:
    return ", ".join(sorted(f"{r.key} {r.operator} ({' '.join(sorted(r.values))})" for r in matcher.requirements))
