"""The node's own namespace: the guard."""

from __future__ import annotations

from collections.abc import Iterable

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import NODE, Element, Item, Ruleset, Sysctl
from polder.sdn.render.linux.names import node_table
from polder.sdn.render.linux.rules import NODES, PROTECTED, guard_rules
from polder.sdn.topology.types import NodeAddress


def render_guard(facts: NodeFacts) -> frozenset[Item]:
    """What holds on a node whatever runs there; its own address is a node's even before the API says so."""
    table = node_table(facts)
    items: set[Item] = {
        Sysctl(NODE, "net/ipv4/ip_forward", "1"),
        Ruleset(NODE, "inet", table, guard_rules(facts)),
        Element(NODE, "inet", table, NODES, facts.underlay),
    }
    items.update(Element(NODE, "inet", table, PROTECTED, address.removesuffix("/32")) for address in facts.protected)
    return frozenset(items)


def render_node(node: NodeAddress, facts: NodeFacts) -> frozenset[Item]:
    """Another machine: VXLAN is accepted from it, and no tenant reaches it."""
    if node.name == facts.name:
        return frozenset()
    return frozenset(render_nodes([node.underlay], facts))


def render_nodes(underlays: Iterable[str], facts: NodeFacts) -> Iterable[Item]:
    """The guard's elements of some machines."""
    return (Element(NODE, "inet", node_table(facts), NODES, address) for address in underlays)
