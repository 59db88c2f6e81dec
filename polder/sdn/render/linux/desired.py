"""Parts of the topology in, items out, part by part: which part's items depend on which other part.

The items of a port depend on its network, on its tenant's router being here, and on the address of its node; those of
a network on the router's address here; those of a router on the address of each other node that it is on, and on the
network over which it reaches them. Nothing else, so that one port costs what one port costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.from_node import PLATFORM, render_from_node
from polder.sdn.render.linux.hosted import render_hosted
from polder.sdn.render.linux.items import Item
from polder.sdn.render.linux.names import network_space, router_space
from polder.sdn.render.linux.network import render_network
from polder.sdn.render.linux.node import render_guard, render_node
from polder.sdn.render.linux.outside import render_outside
from polder.sdn.render.linux.policy import drop_titles, render_group, render_policy, render_way
from polder.sdn.render.linux.port import render_port
from polder.sdn.render.linux.quiet import render_quiet
from polder.sdn.render.linux.router import render_peers, render_router
from polder.sdn.render.linux.selected import Selected
from polder.sdn.render.linux.space import bridged_too
from polder.sdn.render.linux.vips import Place, has_node_port, render_vip
from polder.sdn.topology.policies import DIRECTIONS, Group, Policy
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router
from polder.sdn.topology.vips import Hosted, Outside, Vip

K = TypeVar("K")


class PartKey(NamedTuple):
    """One part: the name of its type, its tenant (empty for a node), its name."""

    kind: str
    tenant: str
    name: str


GUARD = PartKey("Guard", "", "")
"""What holds on the node whatever runs there."""
WAY = "Way"
"""The kind of key under which stands what policies say of a port of this node. It is there before the port's link is."""


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
        self._policies = Selected()
        self._vips: dict[str, set[PartKey]] = {}
        self._nodes: set[PartKey] = set()
        self._at: dict[str, set[PartKey]] = {}
        self._node_ports: set[PartKey] = set()

    def keys(self) -> Iterable[PartKey]:
        """All parts, the guard, and the ways of this node's ports."""
        return (GUARD, *self._parts, *self._ways(self._parts))

    def put(self, key: PartKey, part: Part | None) -> set[PartKey]:
        """Take a part (None: gone). The parts whose items have to be rendered again."""
        old = self._parts.get(key)
        if old == part:
            return set()
        dirty = {key} | self._dependants(key, old, part)
        saw = self._sees_bridged(key.tenant)
        if old is not None:
            self._index(key, old, False)
            del self._parts[key]
        if part is not None:
            self._parts[key] = part
            self._index(key, part, True)
        dirty |= self._dependants(key, old, part)
        if saw != (sees := self._sees_bridged(key.tenant)):
            dirty |= {one for one in self._by_tenant.get(key.tenant, ()) if one.kind in ("Router", "Network")}
        return dirty | self._ways(dirty) if saw or sees else dirty

    def render(self, key: PartKey) -> frozenset[Item]:
        """The items of one part."""
        if key == GUARD:
            return render_guard(self.facts)
        part = self._parts.get(key)
        if isinstance(part, NodeAddress):
            return render_node(part, self.facts)
        if isinstance(part, Router):
            nodes = {a.node: self._underlay(a.node) for a in part.addresses}
            items = render_router(part, self.facts)
            peers = render_peers(part, self._carrier(part.tenant), nodes, self.facts)
            return (bridged_too(items) if self._sees_bridged(part.tenant) else items) | peers
        if isinstance(part, Network):
            items = render_network(part, self._router_address(part.tenant), self.facts)
            return bridged_too(items) if self._sees_bridged(part.tenant) else items
        if isinstance(part, Port):
            network = self._parts.get(PartKey("Network", part.tenant, part.network))
            present = bool(self._router_address(part.tenant))
            found = network if isinstance(network, Network) else None
            items = render_port(part, found, present, self._underlay(part.node), self.facts)
            return items | self._from_node(part, found) if items and found else items
        if isinstance(part, Policy):
            return render_policy(part, set(self._spaces(part.tenant).values()))
        if isinstance(part, Group):
            return render_group(part, self._spaces(part.tenant))
        if isinstance(part, Vip):
            place = Place(
                self._router_address(part.tenant), self._zone(), self._machines() if has_node_port(part) else ()
            )
            return render_vip(part, place, self.facts)
        if isinstance(part, Outside):
            return render_outside(part, self._router_address(part.tenant), self.facts)
        if isinstance(part, Hosted):
            return render_hosted(part, self._router_address(part.tenant), self.facts)
        return self._render_way(key) if key.kind == WAY else frozenset()

    def _sees_bridged(self, tenant: str) -> bool:
        """Whether rules of the tenant have to see what stays within a network (ADR 6)."""
        return tenant == PLATFORM or bool(self._vips.get(tenant) or self._policies.names(tenant))

    def _from_node(self, port: Port, network: Network) -> frozenset[Item]:
        """The node's own way to a port, but where its address is a machine's."""
        kinds = {address: {key.kind for key in self._at.get(address, ())} for address in port.addresses}
        free = [address for address in port.addresses if "NodeAddress" not in kinds[address]]
        return render_from_node(port, network, free, self._router_address(port.tenant), self.facts)

    def _zone(self) -> str:
        own = self._parts.get(PartKey("NodeAddress", "", self.facts.name))
        return own.zone if isinstance(own, NodeAddress) else ""

    def _machines(self) -> tuple[tuple[str, str], ...]:
        """The machines with their addresses, this one first."""
        own, known = self.facts.name, (self._parts[key] for key in self._nodes)
        others = sorted((one.name, one.underlay) for one in known if isinstance(one, NodeAddress) and one.name != own)
        return ((own, self.facts.underlay), *others)

    def _render_way(self, key: PartKey) -> frozenset[Item]:
        """What policies say of a port of this node."""
        port = self._parts.get(PartKey("Port", key.tenant, key.name))
        if not isinstance(port, Port):
            return frozenset()
        space = self._spaces(key.tenant).get(port.network, "")
        policies = self._policies.of(key.tenant, key.name)
        if not space or not policies:
            return frozenset()
        return render_way(port.addresses, space, policies) | render_quiet(port.link, space, policies)

    def droppers(self, tenant: str) -> dict[tuple[str, str], list[str]]:
        """By space and chain, which policy drops by each of its rules, as (direction, title) joined by a space."""
        found: dict[tuple[str, str], list[str]] = {}
        spaces = self._spaces(tenant)
        for key in self._ways(key for key in self._parts if key.tenant == tenant):
            port = self._parts.get(PartKey("Port", tenant, key.name))
            space = spaces.get(port.network, "") if isinstance(port, Port) else ""
            for direction in DIRECTIONS if space else ():
                for chain, titles in drop_titles(direction, self._policies.of(tenant, key.name)).items():
                    found[space, chain] = [f"{direction} {title}" if title else "" for title in titles]
        return found

    def _spaces(self, tenant: str) -> dict[str, str]:
        """Where the packets of a tenant's networks pass on this node; the empty name is for the router's own."""
        if not self._router_address(tenant):
            return {}
        parts = (self._parts[key] for key in self._by_tenant.get(tenant, ()) if key.kind == "Network")
        return {one.name: network_space(one) for one in parts if isinstance(one, Network)} | {"": router_space(tenant)}

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
            moved = _underlay_of(old) != _underlay_of(new)
            same = {
                one for at in {*_addresses(old), *_addresses(new)} for one in self._at.get(at, ()) if one.kind == "Port"
            }
            return same.union(self._by_node.get(key.name, ()), self._node_ports if moved else ())
        tenant = self._by_tenant.get(key.tenant, set())
        if key.kind == "Network":
            routers = {other for other in tenant if other.kind == "Router"}
            moved = _space(old) != _space(new)
            policies = self._of_policies(key.tenant) if moved else set()
            return routers | policies | self._by_network.get((key.tenant, key.name), set())
        if key.kind == "Router" and _address(old, self.facts) != _address(new, self.facts):
            ports = (self._by_network.get((k.tenant, k.name), set()) for k in tenant if k.kind == "Network")
            return tenant.union(self._of_policies(key.tenant), self._vips.get(key.tenant, ()), *ports)
        if isinstance(old or new, Policy | Group):
            found = self._policies.ports(*(one if isinstance(one, Policy | Group) else None for one in (old, new)))
            return self._ways([PartKey("Port", key.tenant, name) for name in found])
        return set()

    def _of_policies(self, tenant: str) -> set[PartKey]:
        return {PartKey(kind, tenant, name) for kind, name in self._policies.names(tenant)}

    def _ways(self, keys: Iterable[PartKey]) -> set[PartKey]:
        """The ways of those ports that are of this node, or gone."""
        ports = ((key, self._parts.get(key)) for key in keys if key.kind == "Port")
        return {
            PartKey(WAY, key.tenant, key.name)
            for key, port in ports
            if not isinstance(port, Port) or port.node == self.facts.name
        }

    def _index(self, key: PartKey, part: Part, present: bool) -> None:
        for address in _addresses(part):
            _mark(self._at, address, key, present)
        if isinstance(part, NodeAddress):
            (self._nodes.add if present else self._nodes.discard)(key)
            return
        if isinstance(part, Port):
            _mark(self._by_network, (part.tenant, part.network), key, present)
            _mark(self._by_node, part.node, key, present)
            return
        if isinstance(part, Policy | Group):
            self._policies.put(part, present)
            return
        if isinstance(part, Vip):
            _mark(self._vips, part.tenant, key, present)
            if has_node_port(part):
                (self._node_ports.add if present else self._node_ports.discard)(key)
            if part.hinted:
                _mark(self._by_node, self.facts.name, key, present)
            return
        _mark(self._by_tenant, part.tenant, key, present)
        if isinstance(part, Router):
            for own in part.addresses:
                _mark(self._by_node, own.node, key, present)


def _address(part: Part | None, facts: NodeFacts) -> str:
    return part.address_on(facts.name) if isinstance(part, Router) else ""


def _addresses(part: Part | None) -> tuple[str, ...]:
    """What a machine or a port of the platform's is known by in the node's own network."""
    if isinstance(part, NodeAddress):
        return tuple({part.underlay, *part.others})
    return part.addresses if isinstance(part, Port) and part.tenant == PLATFORM else ()


def _underlay_of(part: Part | None) -> str:
    return part.underlay if isinstance(part, NodeAddress) else ""


def _space(part: Part | None) -> str:
    return network_space(part) if isinstance(part, Network) else ""


def _mark(index: dict[K, set[PartKey]], at: K, key: PartKey, present: bool) -> None:
    if present:
        index.setdefault(at, set()).add(key)
        return
    index[at].discard(key)
    if not index[at]:
        del index[at]
