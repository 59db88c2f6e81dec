"""The node's own namespace: the guard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.guard import EGRESS, NODES, PROTECTED, guard_rules
from polder.sdn.render.linux.items import NODE, Element, Item, Ruleset, Sysctl
from polder.sdn.render.linux.names import node_table
from polder.sdn.render.linux.rules import set_for
from polder.sdn.topology.types import NodeAddress

WIRE = 64
"""The length of the prefix that machines on one wire share (RFC 4291, section 2.5.4)."""


def render_guard(facts: NodeFacts) -> frozenset[Item]:
    """What holds on a node whatever runs there; its own address is a node's even before the API says so. Whoever shares the
    wire with the node's IPv6 address is protected as well: other machines of the cluster do not say theirs.
    """
    table = node_table(facts)
    items: set[Item] = {
        Sysctl(NODE, "net/ipv4/ip_forward", "1"),
        Ruleset(NODE, "inet", table, guard_rules(facts)),
        Element(NODE, "inet", table, NODES, facts.underlay),
    }
    if facts.egress6:
        items.add(Sysctl(NODE, "net/ipv6/conf/all/forwarding", "1"))
    for own in filter(None, (facts.egress, facts.egress6)):
        items.add(Element(NODE, "inet", table, set_for(EGRESS, own), own))
    items.update(Element(NODE, "inet", table, set_for(PROTECTED, one), one) for one in protected_of(facts))
    return frozenset(items)


def protected_of(facts: NodeFacts) -> Iterator[str]:
    """What no tenant may reach beside the nodes: apart from each other, as a set of intervals asks; a single address without
    its length. Ranges stay as they are.
    """
    yield from (text for text in facts.protected if "-" in text)
    texts = [text for text in facts.protected if "-" not in text]
    texts += [f"{facts.egress6}/{WIRE}"] if facts.egress6 else []
    known = [ip_network(text, strict=False) for text in texts]
    for one in collapse_addresses(found for found in known if isinstance(found, IPv4Network)):
        yield str(one).removesuffix("/32")
    for other in collapse_addresses(found for found in known if isinstance(found, IPv6Network)):
        yield str(other).removesuffix("/128")


def render_node(node: NodeAddress, facts: NodeFacts) -> frozenset[Item]:
    """Another machine: VXLAN is accepted from it, and no tenant reaches it."""
    addresses = node.others if node.name == facts.name else (node.underlay, *node.others)
    table = node_table(facts)
    found = frozenset(Element(NODE, "inet", table, set_for(EGRESS, one), one) for one in node.egress)
    return found.union(render_nodes(addresses, facts))


def render_nodes(addresses: Iterable[str], facts: NodeFacts) -> Iterable[Item]:
    """The guard's elements of some machines."""
    return (Element(NODE, "inet", node_table(facts), set_for(NODES, address), address) for address in addresses)
