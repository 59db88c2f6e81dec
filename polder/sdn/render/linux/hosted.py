"""Ports of the node that lead into the platform's own network: to pods (``hostPort``) and to services (node ports).

The node translates what is for one of its own addresses; the guard lets in what was translated, and the router what is for a
pod's
port that asked for it. A pod is known to the node by a route of its own, so that it sees who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.from_node import PLATFORM, way_to
from polder.sdn.render.linux.guard import HOST_ADDRESSES, HOST_PORTS, HOSTED
from polder.sdn.render.linux.items import NODE, Element, Item, Sysctl
from polder.sdn.render.linux.names import TABLE, node_table, router_space, transit_name
from polder.sdn.render.linux.rules import LANDING, set_for
from polder.sdn.topology.addressing import six
from polder.sdn.topology.vips import Hosted, Vip


def render_hosted(hosted: Hosted, router_address: str, facts: NodeFacts) -> frozenset[Item]:
    """Nothing where the tenant's router is not here."""
    if not router_address or hosted.tenant != PLATFORM:
        return frozenset()
    space, table = router_space(hosted.tenant), node_table(facts)
    items = set(_landing(router_address, facts))
    for one in hosted.ports:
        v6 = ":" in one.address
        if v6 and not facts.egress6:
            continue
        items |= _way_to(one.address, router_address, facts)
        asked, leads = f"{one.protocol} . {one.number}", f"{one.address} . {one.port}"
        name, key = (HOST_ADDRESSES, f"{one.host} . {asked}") if one.host else (HOST_PORTS, asked)
        items.add(Element(NODE, "inet", table, set_for(name, one.address), key, leads))
        land = f"{one.address} . {one.protocol} . {one.port}"
        items.add(Element(space, "inet", TABLE, set_for(LANDING, one.address), land))
    return frozenset(items)


def _way_to(address: str, router_address: str, facts: NodeFacts) -> set[Item]:
    key = f"{transit_name(facts, router_address)} . {address}"
    let_in = Element(NODE, "inet", node_table(facts), set_for(HOSTED, address), key)
    return {*way_to(address, router_address, facts), let_in}


def render_node_ports(vip: Vip, router_address: str, facts: NodeFacts) -> Iterator[Item]:
    """The node ports and the health check of a service of the platform's, at the node's addresses: by way of the router's, where
    they answer.
    """
    ports = [(port.protocol, port.node_port) for port in vip.ports if port.node_port]
    ports += [("tcp", vip.health)] if vip.health else []
    if vip.tenant != PLATFORM or not ports:
        return
    yield from _landing(router_address, facts)
    link, table = transit_name(facts, router_address), node_table(facts)
    addresses = [router_address] + ([six(router_address)] if facts.egress6 else [])
    for own in addresses:
        yield Element(NODE, "inet", table, set_for(HOSTED, own), f"{link} . {own}")
        for protocol, number in ports:
            key, leads = f"{protocol} . {number}", f"{own} . {number}"
            yield Element(NODE, "inet", table, set_for(HOST_PORTS, own), key, leads)


def _landing(router_address: str, facts: NodeFacts) -> Iterator[Item]:
    """The machine's own processes may ask at 127.0.0.1, which leaves it by a link only where that says so."""
    yield Sysctl(NODE, f"net/ipv4/conf/{transit_name(facts, router_address)}/route_localnet", "1")
