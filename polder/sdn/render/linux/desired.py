"""Parts of the topology in, items out, part by part: which part's items depend on which other part.

The items of a port depend on its network, on its tenant's router being here, and on the address of its node; those of
a network on the router's address here; those of a router on the address of each other node that it is on, and on the
network over which it reaches them. Nothing else, so that one port costs what one port costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Item
from polder.sdn.render.linux.network import render_network
from polder.sdn.render.linux.node import render_guard, render_node
from polder.sdn.render.linux.port import render_port
from polder.sdn.render.linux.router import render_peers, render_router
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router

K = TypeVar("K")


class PartKey(NamedTuple):
    """One part: the name of its type, its tenant (empty for a node), its name."""

    kind: str
    tenant: str
    name: str


GUARD = PartKey("Guard", "", "")
"""What holds on the node whatever runs there."""


def key_of(part: Part) -> PartKey:
    """The key of a part."""
    return PartKey(type(part).__name__, "" if isinstance(part, NodeAddress) else part.tenant, part.name)


class Desired:
    """The parts, indexed by what depends on them."""

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self._parts: dict[PartKey, Part] = {}
        self._by_network: dict[tuple[str, str], set[PartKey]] = {}
        self._by_node: dict[str, set[PartKey]] = {}
        self._by_tenant: dict[str, set[PartKey]] = {}

    def keys(self) -> Iterable[PartKey]:
        """All parts, and the guard."""
        return (GUARD, *self._parts)

    def put(self, key: PartKey, part: Part | None) -> set[PartKey]:
        """Take a part (None: gone). The parts whose items have to be rendered again."""
        old = self._parts.get(key)
        if old == part:
            return set()
        dirty = {key} | self._dependants(key, old, part)
        if old is not None:
            self._index(key, old, False)
            del self._parts[key]
        if part is not None:
            self._parts[key] = part
            self._index(key, part, True)
        return dirty | self._dependants(key, old, part)

    def render(self, key: PartKey) -> frozenset[Item]:
        """The items of one part."""
        if key == GUARD:
            return render_guard(self.facts)
        part = self._parts.get(key)
        if isinstance(part, NodeAddress):
            return render_node(part, self.facts)
        if isinstance(part, Router):
            nodes = {a.node: self._underlay(a.node) for a in part.addresses}
            return render_router(part, self.facts) | render_peers(part, self._carrier(part.tenant), nodes, self.facts)
        if isinstance(part, Network):
            return render_network(part, self._router_address(part.tenant), self.facts)
        if isinstance(part, Port):
            network = self._parts.get(PartKey("Network", part.tenant, part.network))
            present = bool(self._router_address(part.tenant))
            found = network if isinstance(network, Network) else None
            return render_port(part, found, present, self._underlay(part.node), self.facts)
        return frozenset()

    def _router(self, tenant: str) -> Router | None:
        keys = (key for key in self._by_tenant.get(tenant, ()) if key.kind == "Router")
        part = self._parts.get(min(keys, default=GUARD))
        return part if isinstance(part, Router) else None

    def _router_address(self, tenant: str) -> str:
        router = self._router(tenant)
        return router.address_on(self.facts.name) if router is not None else ""

    def _underlay(self, node: str) -> str:
        part = self._parts.get(PartKey("NodeAddress", "", node))
        return part.underlay if isinstance(part, NodeAddress) else ""

    def _carrier(self, tenant: str) -> Network | None:
        """The network over which a router reaches itself on other nodes: the same one everywhere."""
        parts = (self._parts[key] for key in self._by_tenant.get(tenant, ()) if key.kind == "Network")
        return min((p for p in parts if isinstance(p, Network) and p.router), default=None)

    def _dependants(self, key: PartKey, old: Part | None, new: Part | None) -> set[PartKey]:
        if key.kind == "NodeAddress":
            return set(self._by_node.get(key.name, ()))
        tenant = self._by_tenant.get(key.tenant, set())
        if key.kind == "Network":
            routers = {other for other in tenant if other.kind == "Router"}
            return routers | self._by_network.get((key.tenant, key.name), set())
        if key.kind == "Router" and _address(old, self.facts) != _address(new, self.facts):
            ports = (self._by_network.get((k.tenant, k.name), set()) for k in tenant if k.kind == "Network")
            return tenant.union(*ports)
        return set()

    def _index(self, key: PartKey, part: Part, present: bool) -> None:
        if isinstance(part, NodeAddress):
            return
        if isinstance(part, Port):
            _mark(self._by_network, (part.tenant, part.network), key, present)
            _mark(self._by_node, part.node, key, present)
            return
        _mark(self._by_tenant, part.tenant, key, present)
        if isinstance(part, Router):
            for address in part.addresses:
                _mark(self._by_node, address.node, key, present)


def _address(part: Part | None, facts: NodeFacts) -> str:
    return part.address_on(facts.name) if isinstance(part, Router) else ""


def _mark(index: dict[K, set[PartKey]], at: K, key: PartKey, present: bool) -> None:
    if present:
        index.setdefault(at, set()).add(key)
        return
    index[at].discard(key)
    if not index[at]:
        del index[at]
