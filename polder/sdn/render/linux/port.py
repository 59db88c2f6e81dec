"""A port on one node: its own link here, or the way to another node."""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Element, Fdb, Item, Neigh, PortLink
from polder.sdn.render.linux.names import INNER_NEXT_HOP, TABLE, bridge_name, network_space, vxlan_name
from polder.sdn.render.linux.network import bridge_mac_of, mtu_of
from polder.sdn.render.linux.rules import KNOWN, NEAR, PORTS4
from polder.sdn.topology.types import Network, Port


def owner_of(port: Port) -> str:
    """What stands at the kernel's objects."""
    return f"port {port.tenant}:{port.name}"


def render_port(port: Port, network: Network | None, present: bool, underlay: str, facts: NodeFacts) -> frozenset[Item]:
    """``present`` says that the tenant's router is on this node, ``underlay`` is the address of the port's node. A port
    of this node without sandbox has no items: nothing is there that could answer.
    """
    if network is None or not present:
        return frozenset()
    if port.node == facts.name:
        return frozenset(_local(port, network, facts) if port.attached else ())
    return frozenset(_remote(port, network, underlay, facts) if underlay and underlay != facts.underlay else ())


def _known(port: Port, network: Network, facts: NodeFacts) -> set[Item]:
    """Permanent neighbours, so that the host-wide neighbour table holds nothing that a pod can make it hold. Frames for the
    port, sent to the gateway or to itself, are bridged to it. The gateway's MAC names the network: no two of a space share one.
    """
    space, bridge = network_space(network), bridge_name(network.vni)
    items: set[Item] = {Element(space, "inet", TABLE, KNOWN, address) for address in port.addresses}
    items.update(Neigh(space, bridge, address, port.mac) for address in port.addresses)
    items.update(
        Element(space, "bridge", TABLE, NEAR, f"{asked} . {address}", port.mac)
        for address in port.addresses
        for asked in (bridge_mac_of(network, facts), port.mac)
    )
    return items


def _remote(port: Port, network: Network, underlay: str, facts: NodeFacts) -> set[Item]:
    space, vxlan = network_space(network), vxlan_name(network.vni)
    items = _known(port, network, facts)
    items |= {Fdb(space, vxlan, port.mac), Fdb(space, vxlan, port.mac, underlay)}
    return items


def _local(port: Port, network: Network, facts: NodeFacts) -> set[Item]:
    """The bridge's entry is static too: unknown unicast is not flooded, and nothing has to be learnt.

    The pod has its address alone (/32) and sends everything to the gateway, also to its neighbours: a pod that resolved
    addresses itself could fill the neighbour table that all namespaces of the host share, and stop other tenants.
    """
    space = network_space(network)
    link = PortLink(
        space,
        port.link,
        bridge_name(network.vni),
        mtu_of(network, facts),
        owner_of(port),
        netns=port.netns,
        interface=port.interface,
        mac=port.mac,
        addresses=tuple(f"{address}/32" for address in port.addresses),
        gateway=network.gateway or INNER_NEXT_HOP,
    )
    items = _known(port, network, facts)
    items |= {link, Fdb(space, port.link, port.mac)}
    items.update(
        Element(space, "bridge", TABLE, PORTS4, f"{port.link} . {port.mac} . {address}") for address in port.addresses
    )
    return items
