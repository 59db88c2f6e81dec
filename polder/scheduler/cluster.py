"""The nodes with what is placed on them: kept up to date by events, so that a decision reads and never counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from polder.base.ids import TenantName
from polder.scheduler.crowd import Counts, Crowd, Pull, Tally
from polder.scheduler.demand import ANY_ADDRESS, Demand, Port, Shape
from polder.scheduler.nodes import NodeFacts, Nodes, Overlay, View
from polder.scheduler.terms import Scope

NODE: Final = "node"
"""Cause of a refusal that a change of a node may end. The other causes are names of resources, and these:"""
PODS: Final = "pods"
PORTS: Final = "ports"
AROUND: Final = "around"
"""Affinity and spreading: what the tenant's own pods do may end it."""
CLAIMS: Final = "claims"
"""Volumes of the tenant."""

Wake = tuple[str, TenantName | None]
"""A cause that may have ended, for one tenant or (None) for all."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A pod on a node; ``assumed`` until the API shows the binding, ``leaving`` once it is being deleted. ``since`` is when it
    started, or was made; ``preempted``: it leaves to make room.
    """

    node: str
    demand: Demand
    assumed: bool = False
    leaving: bool = False
    since: str = ""
    preempted: bool = False


@dataclass(slots=True)
class Usage:
    """What the pods of one node take together."""

    requests: Counter[str] = field(default_factory=Counter)
    scored_cpu: int = 0
    scored_memory: int = 0
    ports: dict[tuple[str, int], Counter[str]] = field(default_factory=dict)
    """Addresses by protocol and number."""
    by_tenant: dict[TenantName, dict[str, Placement]] = field(default_factory=dict)
    pods: int = 0

    def change(self, shape: Shape, sign: int) -> None:
        """Adds (1) or takes away (-1) what one pod takes."""
        requests = self.requests
        for name, value in shape.requests.items():
            requests[name] += sign * value
        self.scored_cpu += sign * shape.scored[0]
        self.scored_memory += sign * shape.scored[1]
        for protocol, number, address in shape.ports:
            taken = self.ports.setdefault((protocol, number), Counter())
            taken[address] += sign
            if not taken[address]:
                del taken[address]
                if not taken:
                    del self.ports[protocol, number]
        self.pods += sign

    def conflicts(self, wanted: frozenset[Port]) -> bool:
        """Whether one of the ports is taken: of the same protocol and number, at the same address or one at all addresses."""
        for protocol, number, address in wanted:
            taken = self.ports.get((protocol, number))
            if taken and (address == ANY_ADDRESS or address in taken or ANY_ADDRESS in taken):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Nomination:
    """A pod that is to have room on a node. ``earned``: this scheduler made the room, by taking it from pods of the same
    tenant (``victims``, UIDs), so it is kept from everybody; what a pod's status says counts inside its tenant only.
    """

    demand: Demand
    node: str
    earned: bool
    victims: frozenset[str] = frozenset()


_NO_COUNTS: Final[Counts] = {}


class Cluster:
    """Nodes and placements. ``changes`` grows whenever something happened that may let a refused pod fit, ``moves`` with
    whatever happened; ``wakes`` collects why.
    """

    def __init__(self) -> None:
        self._nodes = Nodes()
        self._usage: dict[str, Usage] = {}
        self._placed: dict[str, Placement] = {}
        self._crowds: dict[TenantName, Crowd] = {}
        self._groups: dict[tuple[TenantName, str], Counts] = {}
        self._priorities: dict[TenantName, Counter[int]] = {}
        self._nominated: dict[str, Nomination] = {}
        self._nominated_on: dict[str, dict[str, Nomination]] = {}
        self.images: dict[tuple[TenantName, str], Counts] = {}
        """How many pods of a tenant use an image, by node."""
        self.claims: dict[tuple[TenantName, str], Counts] = {}
        """How many pods of a tenant use a claim (``namespace/name``), by node."""
        self.changes = 0
        self.moves = 0
        self.wakes: set[Wake] = set()

    def __len__(self) -> int:
        """How many nodes there are."""
        return len(self._nodes)

    def __iter__(self) -> Iterator[NodeFacts]:
        """All nodes, as root sees them."""
        return iter(self._nodes)

    def tell(self, *wakes: Wake) -> None:
        """Causes of refusals may have ended."""
        self.changes += 1
        self.moves += 1
        self.wakes.update(wakes)

    # nodes

    def seen_by(self, tenant: TenantName) -> View:
        """The nodes as the tenant's pods find them."""
        return self._nodes.seen_by(tenant)

    def node(self, name: str) -> NodeFacts | None:
        """A node as root sees it."""
        return self._nodes.get(name)

    def set_overlay(self, tenant: TenantName, node: str, overlay: Overlay | None) -> None:
        """What a tenant put on a node came, changed or (None) went."""
        self._nodes.set_overlay(tenant, node, overlay)
        self.tell((NODE, tenant), (AROUND, tenant))

    def set_node(self, facts: NodeFacts) -> None:
        """A node came or changed."""
        known = self._nodes.get(facts.name)
        if known == facts:
            return
        self._nodes.put(facts)
        if known is None or replace(known, allocatable=facts.allocatable, images=facts.images) != facts:
            self.tell(("", None))
            return
        more = [n for n, amount in facts.allocatable.items() if amount > known.allocatable.get(n, 0)]
        if more:
            self.tell(*((name, None) for name in more))
        else:
            self.moves += 1

    def remove_node(self, name: str) -> None:
        """A node went."""
        if self._nodes.remove(name):
            self.tell((AROUND, None))
        if name in self._usage and not self._usage[name].pods:
            del self._usage[name]

    def usage(self, node: str) -> Usage:
        """What is on a node, known or not (pods may be seen before their node)."""
        found = self._usage.get(node)
        if found is None:
            found = self._usage[node] = Usage()
        return found

    def set_namespace(self, tenant: TenantName, name: str, labels: Mapping[str, str] | None) -> None:
        """A tenant's namespace has these labels, or (None) is gone."""
        crowd = self._crowds.get(tenant) or self._crowds.setdefault(tenant, Crowd())
        if crowd.set_namespace(name, labels):
            self.tell((AROUND, tenant))
        if not crowd:
            del self._crowds[tenant]

    # pods

    def place(self, placement: Placement) -> None:
        """The pod is on the node, or is assumed to be soon. Takes the place of what was known of the pod."""
        uid, demand = placement.demand.uid, placement.demand
        known = self._placed.get(uid)
        if known is not None:
            self.remove_pod(uid)
        self.withdraw(uid)
        self._placed[uid] = placement
        self._take_up(placement, 1)
        self.moves += 1
        self.wakes.add((AROUND, demand.tenant))
        if known is not None and not known.assumed and known != placement:
            self.tell(*((name, None) for name in known.demand.shape.requests))

    def _take_up(self, placement: Placement, sign: int) -> None:
        """Counts a pod's presence (1), or its absence (-1)."""
        shape, node = placement.demand.shape, placement.node
        usage = self.usage(node)
        usage.change(shape, sign)
        tenant, uid = shape.tenant, placement.demand.uid
        if sign > 0:
            usage.by_tenant.setdefault(tenant, {})[uid] = placement
        else:
            mine = usage.by_tenant[tenant]
            del mine[uid]
            if not mine:
                del usage.by_tenant[tenant]
        crowd = self._crowds.get(tenant)
        if crowd is None:
            crowd = self._crowds[tenant] = Crowd()
        crowd.change(shape, node, placement.leaving, sign)
        if not crowd:
            del self._crowds[tenant]
        if shape.group and not placement.leaving:
            _add(self._groups, (tenant, shape.group), node, sign)
        for image in shape.images:
            _add(self.images, (tenant, image), node, sign)
        for claim in placement.demand.claims:
            _add(self.claims, (tenant, f"{shape.namespace}/{claim}"), node, sign)
        priorities = self._priorities.setdefault(tenant, Counter())
        priorities[shape.priority] += sign
        if not priorities[shape.priority]:
            del priorities[shape.priority]
            if not priorities:
                del self._priorities[tenant]

    def lift(self, placement: Placement) -> None:
        """As if a pod had left, until ``put_back``. Nothing else may happen meanwhile."""
        self._take_up(placement, -1)

    def put_back(self, placement: Placement) -> None:
        """Ends ``lift``."""
        self._take_up(placement, 1)

    @contextmanager
    def supposing(self, there: list[Placement]) -> Iterator[None]:
        """As if pods were there. Nothing else may happen meanwhile."""
        for placement in there:
            self._take_up(placement, 1)
        try:
            yield
        finally:
            for placement in there:
                self._take_up(placement, -1)

    def remove_pod(self, uid: str) -> Placement | None:
        """The pod takes nothing any more; what it took."""
        placed = self._placed.pop(uid, None)
        if placed is not None:
            self._take_up(placed, -1)
            self.moves += 1
            if self._nodes.get(placed.node) is None and not self.usage(placed.node).pods:
                del self._usage[placed.node]
        return placed

    def free_pod(self, uid: str) -> None:
        """The pod ended or went: its room may let others fit."""
        self.withdraw(uid)
        placed = self.remove_pod(uid)
        if placed is not None:
            shape = placed.demand.shape
            self.tell(
                (PODS, None), (AROUND, shape.tenant), (CLAIMS, shape.tenant),
                *((name, None) for name in shape.requests), *(((PORTS, None),) if shape.ports else ()),
            )  # fmt: skip

    def forget(self, uid: str) -> None:
        """An assumption did not come true; a placement that the API has shown stays."""
        placed = self._placed.get(uid)
        if placed is not None and placed.assumed:
            self.free_pod(uid)

    def placement(self, uid: str) -> Placement | None:
        """Where the pod is, or is assumed to be."""
        return self._placed.get(uid)

    # what is asked about pods

    def tally(self, tenant: TenantName, scopes: tuple[Scope, ...]) -> Tally:
        """Where the tenant's pods are that all scopes mean."""
        crowd = self._crowds.get(tenant)
        return Tally(scopes) if crowd is None else crowd.tally(scopes)

    def pulls(self, shape: Shape) -> list[tuple[Pull, Counts]]:
        """What placed pods of the same tenant ask about such a pod."""
        crowd = self._crowds.get(shape.tenant)
        return [] if crowd is None else crowd.pulls(shape)

    def claim_users(self, demand: Demand) -> dict[str, int]:
        """How many placed pods use each of a pod's claims."""
        where = f"{demand.ref.namespace}/"
        return {c: sum(self.claims.get((demand.tenant, where + c), _NO_COUNTS).values()) for c in demand.claims}

    def group(self, tenant: TenantName, group: str) -> Counts:
        """Where the pods of a group are."""
        return self._groups.get((tenant, group), _NO_COUNTS)

    def has_below(self, tenant: TenantName, priority: int) -> bool:
        """Whether the tenant has placed pods of a lower priority."""
        return any(known < priority for known in self._priorities.get(tenant, ()))

    def namespace_labels(self, tenant: TenantName) -> Mapping[str, Mapping[str, str]]:
        """The labels of a tenant's namespaces, where they are known."""
        crowd = self._crowds.get(tenant)
        return {} if crowd is None else crowd.namespaces

    # nominations

    def nominate(self, nomination: Nomination) -> None:
        """The pod is to have room on a node."""
        self.withdraw(nomination.demand.uid)
        self._nominated[nomination.demand.uid] = nomination
        self._nominated_on.setdefault(nomination.node, {})[nomination.demand.uid] = nomination
        self.moves += 1

    def withdraw(self, uid: str) -> Nomination | None:
        """The pod needs no room any more, or found it elsewhere; what it had."""
        known = self._nominated.pop(uid, None)
        if known is not None:
            on = self._nominated_on[known.node]
            del on[uid]
            if not on:
                del self._nominated_on[known.node]
            self.tell((PODS, None), *((name, None) for name in known.demand.shape.requests))
        return known

    def overrule(self, demand: Demand, node: str) -> None:
        """Less important pods of the tenant, for which the node was to have room, look for another one."""
        for uid, other in list(self._nominated_on.get(node, {}).items()):
            if other.demand.tenant == demand.tenant and other.demand.priority < demand.priority:
                self.withdraw(uid)

    def nomination(self, uid: str) -> Nomination | None:
        """Where the pod is to have room."""
        return self._nominated.get(uid)

    def expected(self, demand: Demand, node: str) -> list[Placement]:
        """Pods that have nominations for the node which the pod has to respect, as if they were there."""
        on = self._nominated_on.get(node)
        if not on:
            return []
        return [
            Placement(node, n.demand)
            for uid, n in on.items()
            if uid != demand.uid
            and uid not in self._placed
            and (n.demand.priority >= demand.priority if n.demand.tenant == demand.tenant else n.earned)
        ]


def _add(counts: dict[tuple[TenantName, str], Counts], key: tuple[TenantName, str], node: str, sign: int) -> None:
    found = counts.get(key)
    if found is None:
        found = counts[key] = {}
    now = found.get(node, 0) + sign
    if now:
        found[node] = now
    else:
        del found[node]
        if not found:
            del counts[key]
