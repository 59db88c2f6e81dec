"""Addresses on the outside: on the node that answers for one, the way from its uplink into the tenant's router.

The guard lets in what is for the address, to that router alone; not from machines of the cluster, in whose names tenants' own
traffic leaves: an address on the outside is for the outside, and its own tenant reaches it without leaving the router.
"""

from __future__ import annotations

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.guard import ENTRANCES, TRANSIT
from polder.sdn.render.linux.items import NODE, Announced, Element, Item, Route, Sysctl
from polder.sdn.render.linux.names import node_table, transit_name
from polder.sdn.render.linux.rules import set_for
from polder.sdn.topology.addressing import six
from polder.sdn.topology.vips import Outside


def render_outside(outside: Outside, router_address: str, facts: NodeFacts) -> frozenset[Item]:
    """Nothing where another node answers for it, the tenant's router is not here, or the node has no way for its family."""
    v6 = ":" in outside.address
    if outside.node != facts.name or not router_address or (v6 and not facts.egress6):
        return frozenset()
    link, address = transit_name(facts, router_address), outside.address
    table, key = node_table(facts), f"{transit_name(facts, router_address)} . {outside.address}"
    via = six(router_address) if v6 else router_address
    items: set[Item] = {
        Announced(NODE, facts.uplink, address),
        Route(NODE, f"{address}/{128 if v6 else 32}", link, via=via, onlink=True),
        Element(NODE, "inet", table, set_for(TRANSIT, address), key),
        Element(NODE, "inet", table, set_for(ENTRANCES, address), key),
    }
    return frozenset(items | _at_once(facts.uplink, v6))


def _at_once(uplink: str, v6: bool) -> set[Item]:
    """The kernel answers for others only after a random time, up to 0.8 s, unless it is told not to wait."""
    if not v6:
        return {Sysctl(NODE, f"net/ipv4/neigh/{uplink}/proxy_delay", "0")}
    return {
        Sysctl(NODE, f"net/ipv6/neigh/{uplink}/proxy_delay", "0"),
        Sysctl(NODE, f"net/ipv6/conf/{uplink}/proxy_ndp", "1"),
    }
