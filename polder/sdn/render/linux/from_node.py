"""The node's own way to pods of the platform, as on a plain Kubernetes: for processes and host-network pods of the machine.

The node knows each of these pods by a route of its own and asks in the name of its own address, which nobody else's packets
have on the way to a router (the guard forwards none, the kernel takes none from the wire). The router lets that in; pods on this
node see it, those on others see the router's address here, so that the answer comes back here. Nothing but answers goes the
other way (``guard``). Other tenants have none of this: their addresses mean nothing in the node's network.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.guard import TRANSIT
from polder.sdn.render.linux.items import NODE, Element, Item, Route
from polder.sdn.render.linux.names import TABLE, node_table, router_space, transit_name
from polder.sdn.render.linux.node import protected_of
from polder.sdn.render.linux.rules import LOCAL, set_for
from polder.sdn.topology.addressing import six
from polder.sdn.topology.types import Network, Port

PLATFORM = "root"
"""The tenant whose the machines' addresses are."""
ADMINISTRATED = "kube-system/"
"""Where its administrators' networks are. Who has another namespace may make networks of any prefix, and so would draw to pods
what the machine asks of others.
"""


def machine_of(tenant: str, facts: NodeFacts) -> tuple[str, ...]:
    """The addresses in whose name the node asks pods of a tenant, one of a family; none for whom it may not ask."""
    return tuple(filter(None, (facts.underlay, facts.egress6))) if tenant == PLATFORM else ()


def render_from_node(
    port: Port, network: Network, free: Iterable[str], router_address: str, facts: NodeFacts
) -> frozenset[Item]:
    """What leads from the node to a port that is known to its router here; ``free`` are those of its addresses that no machine
    has. What is protected from tenants keeps its meaning on the node, too.
    """
    if port.tenant != PLATFORM or not network.router or not network.name.startswith(ADMINISTRATED):
        return frozenset()
    items: set[Item] = set()
    kept = (facts.underlay, facts.egress, *protected_of(facts))
    for address in free:
        if (":" in address and not facts.egress6) or any(_within(address, one) for one in kept):
            continue
        items |= way_to(address, router_address, facts)
        if port.node == facts.name:
            space = router_space(port.tenant)
            items.add(Element(space, "inet", TABLE, set_for(LOCAL, address), address))
    return frozenset(items)


def _within(address: str, text: str) -> bool:
    """Whether an address is of an address, prefix or range."""
    first, _, last = text.partition("-")
    if not last:
        return ip_address(address) in ip_network(text)
    low, high, own = ip_address(first.strip()), ip_address(last.strip()), ip_address(address)
    return own.version == low.version == high.version and int(low) <= int(own) <= int(high)


def way_to(address: str, router_address: str, facts: NodeFacts) -> set[Item]:
    """The node's route to a pod, and that the pod's own address may come back by it."""
    v6, link = ":" in address, transit_name(facts, router_address)
    via, own = (six(router_address), facts.egress6) if v6 else (router_address, facts.underlay)
    return {
        Route(NODE, f"{address}/{128 if v6 else 32}", link, via=via, src=own, onlink=True),
        Element(NODE, "inet", node_table(facts), set_for(TRANSIT, address), f"{link} . {address}"),
    }
