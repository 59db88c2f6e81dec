"""The nodes with what is placed on them: kept up to date by events, so that a decision reads and never counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from polder.api.core import Node, Taint
from polder.base.ids import TenantName
from polder.scheduler.demand import Amounts, Demand, amounts


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node, as the decision needs it."""

    name: str
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool
    ready: bool
    allocatable: Amounts
    own_taints: tuple[Taint, ...] = ()
    """Those of ``taints`` that the pod's tenant itself put on the node."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """What a tenant put on a node, for its own pods."""

    labels: dict[str, str]
    taints: tuple[Taint, ...]
    unschedulable: bool

    def on(self, facts: NodeFacts) -> NodeFacts:
        """The node as the tenant's pods find it."""
        return replace(
            facts,
            labels={**facts.labels, **self.labels},
            taints=(*facts.taints, *self.taints),
            unschedulable=facts.unschedulable or self.unschedulable,
            own_taints=self.taints,
        )


def overlay_of(node: Node) -> Overlay:
    """The overlay that a Node in the view over all tenants, of a tenant, stands for."""
    return Overlay(node.metadata.labels or {}, tuple(node.spec.taints or ()), node.spec.unschedulable)


def facts_of(node: Node) -> NodeFacts:
    """The facts of a Node; allocatable defaults to the capacity. Raises PermanentError."""
    ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions or [])
    return NodeFacts(
        name=node.metadata.name,
        labels=node.metadata.labels or {},
        taints=tuple(node.spec.taints or ()),
        unschedulable=node.spec.unschedulable,
        ready=ready,
        allocatable=amounts(node.status.allocatable or node.status.capacity),
    )


@dataclass(slots=True)
class Usage:
    """What the pods of one node take together."""

    requests: Counter[str] = field(default_factory=Counter)
    scored: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    ports: Counter[tuple[str, int]] = field(default_factory=Counter)
    pods: int = 0

    def change(self, demand: Demand, sign: int) -> None:
        """Adds (1) or takes away (-1) one pod."""
        for name, value in demand.requests.items():
            self.requests[name] += sign * value
        for name, value in demand.scored.items():
            self.scored[name] += sign * value
        for port in demand.ports:
            self.ports[port] += sign
            if not self.ports[port]:
                del self.ports[port]
        self.groups[demand.group] += sign
        if not self.groups[demand.group]:
            del self.groups[demand.group]
        self.pods += sign


@dataclass(frozen=True, slots=True)
class Placement:
    """A pod on a node; ``assumed`` until the API shows the binding."""

    node: str
    demand: Demand
    assumed: bool


class Cluster:
    """Nodes and placements. ``changes`` grows whenever something happened that may let a refused pod fit."""

    def __init__(self) -> None:
        self._facts: dict[str, NodeFacts] = {}
        self._overlays: dict[TenantName, dict[str, Overlay]] = {}
        self._usage: dict[str, Usage] = {}
        self._placed: dict[str, Placement] = {}
        self.changes = 0

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._facts)

    def __iter__(self) -> Iterator[tuple[NodeFacts, Usage]]:
        """All nodes with what is on them."""
        for name, facts in self._facts.items():
            yield facts, self.usage(name)

    def seen_by(self, tenant: TenantName) -> Iterator[tuple[NodeFacts, Usage]]:
        """The same, with what the tenant put on them."""
        overlays = self._overlays.get(tenant)
        if not overlays:
            yield from self
            return
        for facts, usage in self:
            overlay = overlays.get(facts.name)
            yield (overlay.on(facts) if overlay else facts), usage

    def set_overlay(self, tenant: TenantName, node: str, overlay: Overlay | None) -> None:
        """What a tenant put on a node came, changed or (None) went."""
        known = self._overlays.setdefault(tenant, {})
        known.pop(node, None)
        if overlay is not None:
            known[node] = overlay
        if not known:
            del self._overlays[tenant]
        self.changes += 1

    def usage(self, node: str) -> Usage:
        """What is on a node, known or not (pods may be seen before their node)."""
        return self._usage.setdefault(node, Usage())

    def set_node(self, facts: NodeFacts) -> None:
        """A node came or changed."""
        if self._facts.get(facts.name) != facts:
            self._facts[facts.name] = facts
            self.changes += 1

    def remove_node(self, name: str) -> None:
        """A node went."""
        if self._facts.pop(name, None) is not None:
            self.changes += 1
        if name in self._usage and not self._usage[name].pods:
            del self._usage[name]

    def place(self, demand: Demand, node: str, *, assumed: bool) -> None:
        """The pod is on the node, or is assumed to be soon. Takes the place of what was known of the pod."""
        self.remove_pod(demand.uid)
        self._placed[demand.uid] = Placement(node, demand, assumed)
        self.usage(node).change(demand, 1)

    def remove_pod(self, uid: str) -> bool:
        """The pod takes nothing any more; whether it took something."""
        placed = self._placed.pop(uid, None)
        if placed is None:
            return False
        usage = self.usage(placed.node)
        usage.change(placed.demand, -1)
        if not usage.pods and placed.node not in self._facts:
            del self._usage[placed.node]
        return True

    def free_pod(self, uid: str) -> None:
        """The pod ended or went: its room may let others fit."""
        if self.remove_pod(uid):
            self.changes += 1

    def forget(self, uid: str) -> None:
        """An assumption did not come true; a placement that the API has shown stays."""
        placed = self._placed.get(uid)
        if placed is not None and placed.assumed:
            self.free_pod(uid)

    def placement(self, uid: str) -> Placement | None:
        """Where the pod is, or is assumed to be."""
        return self._placed.get(uid)
