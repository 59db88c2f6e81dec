"""A network on one node where its tenant is present."""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Addr, Bridge, Element, Item, Route, Ruleset, Vxlan
from polder.sdn.render.linux.names import INNER_NEXT_HOP, TABLE, bridge_name, network_space, vxlan_name
from polder.sdn.render.linux.rules import GATEWAYS, isolated_rules
from polder.sdn.render.linux.space import render_space
from polder.sdn.topology.addressing import ISOLATED_PREFIX, VXLAN_PREFIX, mac_of
from polder.sdn.topology.invariants import parse_cidr
from polder.sdn.topology.types import Network


def owner_of(network: Network) -> str:
    """What stands at the kernel's objects."""
    return f"network {network.tenant}:{network.name}"


def mtu_of(network: Network, facts: NodeFacts) -> int:
    """What was asked for, as far as the underlay allows."""
    return min(network.mtu, facts.overlay_mtu) if network.mtu else facts.overlay_mtu


def bridge_mac_of(network: Network, facts: NodeFacts) -> str:
    """What the network's pods send to: the gateway's MAC, the same on every node; without gateway one of this node."""
    return mac_of(network.gateway) if network.router else mac_of(facts.underlay, ISOLATED_PREFIX)


def render_network(network: Network, router_address: str, facts: NodeFacts) -> frozenset[Item]:
    """Bridge, VXLAN device, gateway. ``router_address`` is the transit address of the tenant's router on this node; without
    one the tenant is not present here, and neither is the network.
    """
    cidr = parse_cidr(network.cidr)
    if not router_address or cidr is None:
        return frozenset()
    space, bridge, owner, mtu = (
        network_space(network),
        bridge_name(network.vni),
        owner_of(network),
        mtu_of(network, facts),
    )
    if network.router:
        items: set[Item] = {
            Addr(space, bridge, network.gateway, cidr.prefixlen),
            Element(space, "inet", TABLE, GATEWAYS, network.gateway),
        }
        vxlan_mac = mac_of(router_address, VXLAN_PREFIX)
    else:
        items = render_space(space, owner)
        items.add(Ruleset(space, "inet", TABLE, isolated_rules()))
        items.add(Addr(space, bridge, INNER_NEXT_HOP, 32))
        items.add(Route(space, network.cidr, bridge))
        vxlan_mac = bridge_mac_of(network, facts)
    items.add(Bridge(space, bridge, bridge_mac_of(network, facts), mtu, owner))
    items.add(Vxlan(space, vxlan_name(network.vni), network.vni, vxlan_mac, mtu, bridge, facts.underlay, owner))
    return frozenset(items)
