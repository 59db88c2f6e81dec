"""The nodes as the pods of root, and those of each tenant, find them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from polder.api.core import Taint
from polder.api.nodefacts import ScheduledNode
from polder.api.nodeview import NODE_LABELS
from polder.base.ids import ROOT, TenantName
from polder.scheduler.amounts import Amounts, amounts

VIEWS: Final = 64
"""Views of tenants with overlays that are kept."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as the decision needs it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    allocatable: Amounts
    images: Mapping[str, int]
    """Sizes in bytes by name."""
    platform: Mapping[str, str] = field(default_factory=dict)
    """The labels as root sees them."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a tenant put on a node, for its own pods."""

    labels: dict[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool

    def on(self, facts: NodeFacts) -> NodeFacts:
        """The node (as tenants see it) as the tenant's pods find it: what the platform says of it stands."""
        return replace(
            facts,
            labels={**self.labels, **facts.labels},
            taints=(*facts.taints, *self.taints),
            unschedulable=facts.unschedulable or self.unschedulable,
        )


def overlay_of(node: ScheduledNode) -> Overlay:
    """The overlay that a Node in the view over all tenants, of a tenant, stands for."""
    return Overlay(node.metadata.labels or {}, tuple(node.spec.taints or ()), node.spec.unschedulable)


def facts_of(node: ScheduledNode) -> NodeFacts:
    """The facts of a Node; allocatable defaults to the capacity. Raises PermanentError."""
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])
    return NodeFacts(
        name=node.metadata.name,
        labels=node.metadata.labels or {},
        platform=node.metadata.labels or {},
        taints=tuple(node.spec.taints or ()),
        unschedulable=node.spec.unschedulable,
        ready=ready,
        allocatable=amounts(node.status.allocatable or node.status.capacity),
        images={name: image.size_bytes for image in node.status.images or () for name in image.names or ()},
    )


def projected(facts: NodeFacts) -> NodeFacts:
    """The node as a tenant sees it: with the labels alone that its projection shows."""
    return replace(facts, labels={key: facts.labels[key] for key in NODE_LABELS if key in facts.labels})


class View:
    """All nodes, in one order, as the pods of one tenant (or of all without overlays) find them."""

    def __init__(self, nodes: list[NodeFacts]) -> None:
        self.nodes = nodes
        self.by_name = {facts.name: facts for facts in nodes}
        self._values: dict[str, dict[str, str]] = {}

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)

    def values(self, key: str) -> Mapping[str, str]:
        """By node, what its label says; nodes without it are left out."""
        found = self._values.get(key)
        if found is None:
            found = {n.name: n.labels[key] for n in self.nodes if key in n.labels}
            if len(self._values) >= VIEWS:
                self._values.clear()
            self._values[key] = found
        return found


class Nodes:
    """What is known of nodes, and what tenants put on them."""

    def __init__(self) -> None:
        self._facts: dict[str, NodeFacts] = {}
        self._overlays: dict[TenantName, dict[str, Overlay]] = {}
        self._views: OrderedDict[TenantName, View] = OrderedDict()
        self._root: View | None = None
        self._common: View | None = None

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._facts)

    def __iter__(self) -> Iterator[NodeFacts]:
        """All of them, as root sees them."""
        return iter(self._facts.values())

    def get(self, name: str) -> NodeFacts | None:
        """One, as root sees it."""
        return self._facts.get(name)

    def put(self, facts: NodeFacts) -> None:
        """A node came or changed."""
        self._facts[facts.name] = facts
        self._forget()

    def remove(self, name: str) -> bool:
        """A node went; whether it was there."""
        if self._facts.pop(name, None) is None:
            return False
        self._forget()
        return True

    def set_overlay(self, tenant: TenantName, node: str, overlay: Overlay | None) -> None:
        """What a tenant put on a node came, changed or (None) went."""
        known = self._overlays.setdefault(tenant, {})
        known.pop(node, None)
        if overlay is not None:
            known[node] = overlay
        if not known:
            del self._overlays[tenant]
        self._views.pop(tenant, None)

    def seen_by(self, tenant: TenantName) -> View:
        """The nodes as the tenant's pods find them. The same object as long as nothing changes."""
        if tenant == ROOT:
            if self._root is None:
                self._root = View([self._facts[name] for name in sorted(self._facts)])
            return self._root
        if self._common is None:
            self._common = View([projected(self._facts[name]) for name in sorted(self._facts)])
        overlays = self._overlays.get(tenant)
        return self._overlaid(tenant, overlays, self._common) if overlays else self._common

    def _overlaid(self, tenant: TenantName, overlays: Mapping[str, Overlay], common: View) -> View:
        view = self._views.get(tenant)
        if view is None:
            view = View([overlays[n.name].on(n) if n.name in overlays else n for n in common.nodes])
            self._views[tenant] = view
            if len(self._views) > VIEWS:
                self._views.popitem(last=False)
        return view

    def _forget(self) -> None:
        self._root = self._common = None
        self._views.clear()
