"""A network on one node where its tenant is present."""

from __future__ import annotations

from ipaddress import IPv6Address

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Addr, Bridge, Element, Item, Route, Ruleset, Vxlan
from polder.sdn.render.linux.names import (
    INNER_NEXT_HOP,
    INNER_NEXT_HOP6,
    TABLE,
    bridge_name,
    network_space,
    vxlan_name,
)
from polder.sdn.render.linux.rules import GATEWAYS, isolated_rules, set_for
from polder.sdn.render.linux.space import render_space
from polder.sdn.render.linux.spoofing import ASKED
from polder.sdn.topology.addressing import BRIDGE6_PREFIX, ISOLATED_PREFIX, VXLAN_PREFIX, mac_of
from polder.sdn.topology.types import Network


def owner_of(network: Network) -> str:
    """What stands at the kernel's objects."""
    return f"network {network.tenant}:{network.name}"


def mtu_of(network: Network, facts: NodeFacts) -> int:
    """What was asked for, as far as the underlay allows."""
    return min(network.mtu, facts.overlay_mtu) if network.mtu else facts.overlay_mtu


def bridge_mac_of(network: Network, facts: NodeFacts) -> str:
    """What the network's pods send to: the gateway's MAC, the same on every node; without gateway one of this node. No two
    networks of a router have the same: an IPv6 gateway's last 32 bits may be another's too, so there the identifier counts.
    """
    if not network.router:
        return mac_of(facts.underlay, ISOLATED_PREFIX)
    if network.gateway:
        return mac_of(network.gateway)
    return ":".join([BRIDGE6_PREFIX, "00", *(f"{byte:02x}" for byte in network.vni.to_bytes(3, "big"))])


def asked_key(address: str) -> str:
    """The key under which questions for an address are answered."""
    return str(int(IPv6Address(address)))


def next_hop_of(network: Network, address: str) -> str:
    """Where a port with this address sends everything."""
    if ":" in address:
        return network.gateway6 or INNER_NEXT_HOP6
    return network.gateway or INNER_NEXT_HOP


def render_network(network: Network, router_address: str, facts: NodeFacts) -> frozenset[Item]:
    """Bridge, VXLAN device, gateway. ``router_address`` is the transit address of the tenant's router on this node; without
    one the tenant is not present here, and neither is the network.
    """
    if not router_address:
        return frozenset()
    space, bridge, owner, mtu = (
        network_space(network),
        bridge_name(network.vni),
        owner_of(network),
        mtu_of(network, facts),
    )
    mac = bridge_mac_of(network, facts)
    if network.router:
        items: set[Item] = set()
        for cidr, gateway in network.prefixes:
            items.add(Addr(space, bridge, gateway, int(cidr.rpartition("/")[2])))
            items.add(Element(space, "inet", TABLE, set_for(GATEWAYS, gateway), gateway))
        vxlan_mac = mac_of(router_address, VXLAN_PREFIX)
    else:
        items = render_space(space, owner)
        items.add(Ruleset(space, "inet", TABLE, isolated_rules()))
        for cidr, _ in network.prefixes:
            hop = next_hop_of(network, cidr)
            items.add(Addr(space, bridge, hop, 128 if ":" in hop else 32))
            items.add(Route(space, cidr, bridge))
        vxlan_mac = mac
    if network.cidr6:
        hop = next_hop_of(network, network.cidr6)
        items.add(Element(space, "bridge", TABLE, ASKED, asked_key(hop), mac))
    items.add(Bridge(space, bridge, mac, mtu, owner))
    items.add(Vxlan(space, vxlan_name(network.vni), network.vni, vxlan_mac, mtu, bridge, facts.underlay, owner))
    return frozenset(items)
