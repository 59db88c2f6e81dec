"""Names of spaces, links and tables. Each is injective in what it is made of."""

from __future__ import annotations

from ipaddress import IPv4Address

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.topology.addressing import PLATFORM6, six
from polder.sdn.topology.types import Network

DIGITS = "0123456789abcdefghijklmnopqrstuv"

TABLE = "polder"
"""The nftables tables in a space."""
UP = "up"
"""The router's end of the transit link."""
LOOPBACK = "lo"
TRANSIT_NEXT_HOP = "169.254.1.1"
"""The node's end of every transit link (unnumbered)."""
INNER_NEXT_HOP = "169.254.1.1"
"""Where pods of an isolated network send everything; its space passes on what is for the network, and nothing else."""
TRANSIT_RANGE = "100.64.0.0/10"
"""RFC 6598 shared address space: routers' addresses."""
TRANSIT_NEXT_HOP6, INNER_NEXT_HOP6 = six(TRANSIT_NEXT_HOP), six(INNER_NEXT_HOP)
"""The same for IPv6."""
TRANSIT_RANGE6 = str(PLATFORM6)
LINK_LOCAL_RANGE = "169.254.0.0/16"


def bridge_name(vni: int) -> str:
    """At most 9 characters."""
    return f"br-{vni:x}"


def vxlan_name(vni: int) -> str:
    """At most 9 characters."""
    return f"vx-{vni:x}"


def router_space(tenant: str) -> str:
    """A tenant's name is a DNS label, so it has no dot."""
    return tenant


def network_space(network: Network) -> str:
    """The router's space, or for an isolated network one of its own: no tenant's name has a dot."""
    return router_space(network.tenant) if network.router else f"{network.tenant}.{network.vni:x}"


def transit_pattern(facts: NodeFacts) -> str:
    """What matches the node's ends of all transit links in nft."""
    return f"{facts.prefix}+*"


def transit_name(facts: NodeFacts, address: str) -> str:
    """The node's end of a transit link: the 22 bits by which a router's address differs from all others, as
    five digits. No prefix has a plus sign, so no other cluster's pattern matches.
    """
    number = int(IPv4Address(address)) & 0x3FFFFF
    digits = (DIGITS[number >> shift & 31] for shift in (20, 15, 10, 5, 0))
    return f"{facts.prefix}+{''.join(digits)}"


def node_table(facts: NodeFacts) -> str:
    """The node's own tables: two clusters may share a machine's namespace."""
    return facts.prefix
