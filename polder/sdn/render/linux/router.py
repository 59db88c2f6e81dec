"""A tenant's router on one node."""

from __future__ import annotations

from collections.abc import Mapping

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.from_node import machine_of
from polder.sdn.render.linux.guard import TRANSIT
from polder.sdn.render.linux.items import NODE, Addr, Element, Fdb, Item, Neigh, Route, Ruleset, Transit
from polder.sdn.render.linux.names import (
    LOOPBACK,
    TABLE,
    TRANSIT_NEXT_HOP,
    TRANSIT_NEXT_HOP6,
    UP,
    bridge_name,
    node_table,
    router_space,
    transit_name,
    vxlan_name,
)
from polder.sdn.render.linux.rules import DIRECT, DIRECT_TABLE, set_for, space_rules
from polder.sdn.render.linux.space import render_space
from polder.sdn.topology.addressing import VXLAN_PREFIX, mac_of, six
from polder.sdn.topology.types import Network, Router


def owner_of(router: Router) -> str:
    """What stands at the kernel's objects."""
    return f"router {router.tenant}:{router.name}"


def render_router(router: Router, facts: NodeFacts) -> frozenset[Item]:
    """Space, rules, transit, entry and resolver; nothing where the router has no address on this node."""
    address = router.address_on(facts.name)
    if not address:
        return frozenset()
    space = router_space(router.tenant)
    items = render_space(space, owner_of(router))
    items.add(Ruleset(space, "inet", TABLE, space_rules(router, address, machine_of(router.tenant, facts))))
    items.add(Ruleset(space, "inet", DIRECT_TABLE, DIRECT))
    items |= _transit(router, address, facts)
    for own in filter(None, (router.entry, router.dns)):
        items.add(Addr(space, LOOPBACK, own, 128 if ":" in own else 32))
    return frozenset(items)


def render_peers(
    router: Router, network: Network | None, nodes: Mapping[str, str], facts: NodeFacts
) -> frozenset[Item]:
    """The ways to the same router on other nodes, over ``network``. ``nodes`` gives their underlay addresses."""
    if network is None or not router.address_on(facts.name):
        return frozenset()
    space, bridge, vxlan = router_space(router.tenant), bridge_name(network.vni), vxlan_name(network.vni)
    items: set[Item] = set()
    for peer in router.addresses:
        underlay = nodes.get(peer.node)
        if peer.node == facts.name or not underlay:
            continue
        mac = mac_of(peer.address, VXLAN_PREFIX)
        items |= {
            Route(space, f"{peer.address}/32", bridge),
            Neigh(space, bridge, peer.address, mac),
            Route(space, f"{six(peer.address)}/128", bridge),
            Neigh(space, bridge, six(peer.address), mac),
            Fdb(space, vxlan, mac),
            Fdb(space, vxlan, mac, underlay),
        }
    return frozenset(items)


def _transit(router: Router, address: str, facts: NodeFacts) -> set[Item]:
    """The unnumbered link to the node. Both neighbours are permanent: 1,000 routers would fill the host-wide table."""
    space, link = router_space(router.tenant), transit_name(facts, address)
    mac, node_mac = mac_of(address), mac_of(TRANSIT_NEXT_HOP)
    items: set[Item] = {
        Transit(space, UP, link, facts.mtu, owner_of(router), mac, node_mac),
        Addr(space, UP, address, 32),
        Route(space, f"{TRANSIT_NEXT_HOP}/32", UP),
        Route(space, "0.0.0.0/0", UP, via=TRANSIT_NEXT_HOP, src=address, onlink=True),
        Neigh(space, UP, TRANSIT_NEXT_HOP, node_mac),
        Addr(NODE, link, TRANSIT_NEXT_HOP, 32),
        Route(NODE, f"{address}/32", link),
        Neigh(NODE, link, address, mac),
        Element(NODE, "inet", node_table(facts), TRANSIT, f"{link} . {address}"),
        Addr(space, UP, six(address), 128),
    }
    return items | _transit6(space, link, address, facts) if facts.egress6 else items


def _transit6(space: str, link: str, address: str, facts: NodeFacts) -> set[Item]:
    """The same for IPv6, only on a node with a way out: else a router has no default route, and says so to its pods. The node
    needs no address of its own here, since nobody asks for its MAC.
    """
    own, mac, node_mac = six(address), mac_of(address), mac_of(TRANSIT_NEXT_HOP)
    return {
        Route(space, "::/0", UP, via=TRANSIT_NEXT_HOP6, src=own, onlink=True),
        Neigh(space, UP, TRANSIT_NEXT_HOP6, node_mac),
        Route(NODE, f"{own}/128", link),
        Neigh(NODE, link, own, mac),
        Element(NODE, "inet", node_table(facts), set_for(TRANSIT, own), f"{link} . {own}"),
    }
