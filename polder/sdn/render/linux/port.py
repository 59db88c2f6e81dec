"""A port on one node: its own link here, or the way to another node."""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import EVERYBODY, Element, Fdb, Item, Neigh, PortLink
from polder.sdn.render.linux.names import TABLE, bridge_name, network_space, vxlan_name
from polder.sdn.render.linux.network import asked_key, bridge_mac_of, mtu_of, next_hop_of
from polder.sdn.render.linux.rules import KNOWN, set_for
from polder.sdn.render.linux.spoofing import ASKED, NEAR, PORTS4, PORTS6, TOLD
from polder.sdn.topology.addressing import link_local_of
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
    port, sent to the gateway or to itself, are bridged to it. The bridge's MAC names the network: no two of a space share one.
    """
    space, bridge = network_space(network), bridge_name(network.vni)
    items: set[Item] = set()
    for address in port.addresses:
        items.add(Element(space, "inet", TABLE, set_for(KNOWN, address), address))
        items.add(Neigh(space, bridge, address, port.mac))
        if ":" in address:
            items.add(Element(space, "bridge", TABLE, ASKED, asked_key(address), port.mac))
        for asked in (bridge_mac_of(network, facts), port.mac):
            items.add(Element(space, "bridge", TABLE, set_for(NEAR, address), f"{asked} . {address}", port.mac))
    return items


def _remote(port: Port, network: Network, underlay: str, facts: NodeFacts) -> set[Item]:
    """What is for groups goes to each node that has ports of the network: the entry for the MAC of zeros."""
    space, vxlan = network_space(network), vxlan_name(network.vni)
    items = _known(port, network, facts)
    items |= {
        Fdb(space, vxlan, port.mac),
        Fdb(space, vxlan, port.mac, underlay),
        Fdb(space, vxlan, EVERYBODY, underlay),
    }
    return items


def _local(port: Port, network: Network, facts: NodeFacts) -> set[Item]:
    """The bridge's entry is static too: unknown unicast is not flooded, and nothing has to be learnt.

    The pod has its addresses alone (/32, /128) and sends everything to the gateway, also to its neighbours: a pod that resolved
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
        addresses=tuple(alone(address) for address in port.addresses),
        gateways=tuple(next_hop_of(network, address) for address in port.addresses),
    )
    items = _known(port, network, facts)
    items |= {link, Fdb(space, port.link, port.mac)}
    for address in port.addresses:
        items |= _sender6(port, network, address) if ":" in address else _sender4(port, space, address)
    return items


def _sender4(port: Port, space: str, address: str) -> set[Item]:
    return {Element(space, "bridge", TABLE, PORTS4, f"{port.link} . {port.mac} . {address}")}


def _sender6(port: Port, network: Network, address: str) -> set[Item]:
    """A pod asks for its gateway from its link-local address too, and the answer needs a neighbour."""
    space, own = network_space(network), link_local_of(port.mac)
    items: set[Item] = {Neigh(space, bridge_name(network.vni), own, port.mac)}
    for one in (address, own):
        items.add(Element(space, "bridge", TABLE, PORTS6, f"{port.link} . {port.mac} . {one}"))
        items.add(Element(space, "bridge", TABLE, TOLD, f"{port.link} . {port.mac} . {asked_key(one)}"))
    return items


def alone(address: str) -> str:
    """An address with the length that says that nobody else is on the link."""
    return f"{address}/{128 if ':' in address else 32}"
