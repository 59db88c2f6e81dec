"""VXLAN network identifiers: pure. Where the search for a free one starts, and how it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import ip_network

from polder.api.polder import NetworkSpec, cidrs_of
from polder.api.polder import gateways_of as named_gateways

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


def gateways_of(spec: NetworkSpec) -> list[str]:
    """The gateways' addresses, in the order of the prefixes: as given, else the first of each; none for an isolated network.
    Raises ValueError.
    """
    if not spec.router:
        return []
    given = {":" in gateway: gateway for gateway in named_gateways(spec)}
    return [given.get(":" in cidr) or str(ip_network(cidr)[1]) for cidr in cidrs_of(spec)]
