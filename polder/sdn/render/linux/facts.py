"""What rendering must know of the node itself."""

from __future__ import annotations

from dataclasses import dataclass

VXLAN_OVERHEAD = 50
"""Bytes that VXLAN over IPv4 puts before a frame, its Ethernet header included (RFC 7348, section 5)."""
MAX_PREFIX = 9
"""Characters of ``prefix`` that leave room for a transit link's name in 15."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node. ``underlay`` carries VXLAN, ``egress`` is the source of tenants' traffic to the outside, ``uplink`` the
    link towards it, ``mtu`` the underlay's. ``protected`` are addresses and ranges that no tenant may reach beside the nodes'
    own: servers, the host. ``prefix`` begins the name of everything in the node's namespace. ``egress6`` is the source of what
    leaves by IPv6; empty where the node has no way out for it, so that tenants have none either.
    ``shared_dns`` is an address of the node at which tenants may ask for names; empty where each asks its own router.
    """

    name: str
    underlay: str
    egress: str
    uplink: str
    mtu: int = 1500
    protected: tuple[str, ...] = ()
    prefix: str = "polder"
    egress6: str = ""
    shared_dns: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.prefix) <= MAX_PREFIX or not self.prefix.isalnum():
            raise ValueError(f"NodeFacts.prefix {self.prefix!r} is not of 1 to {MAX_PREFIX} letters and digits")

    @property
    def overlay_mtu(self) -> int:
        """What fits into the underlay after VXLAN's headers."""
        return self.mtu - VXLAN_OVERHEAD
