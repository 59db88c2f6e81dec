"""VXLAN network identifiers: pure. Where the search for a free one starts, and how it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from polder.api.polder import NetworkSpec

FIRST = 4096
"""Lower identifiers are left to people who number by hand (and equal VLAN ids)."""
END = 1 << 24
"""RFC 7348: 24 bits."""
TRIES = 64
"""Candidates of one reconciliation. At half a million networks, 64 taken ones in a row are not met."""


def segment_name(vni: int) -> str:
    """The Segment whose creation claims the identifier."""
    return f"vni-{vni}"


def candidates(network_uid: str) -> Iterator[int]:
    """Identifiers to try, in an order that only the network's UID decides, so that a search which broke off meets its
    own claim again.
    """
    for number in range(TRIES):
        digest = hashlib.blake2b(f"{network_uid}/{number}".encode(), digest_size=8).digest()
        yield FIRST + int.from_bytes(digest, "big") % (END - FIRST)


def gateway_of(spec: NetworkSpec) -> str:
    """The gateway's address: as given, else the first of the CIDR; none for an isolated network. Raises ValueError."""
    if not spec.router:
        return ""
    if spec.gateway:
        return spec.gateway
    network: IPv4Network | IPv6Network = ip_network(spec.cidr)
    return str(network[1])
