"""Addresses that follow from other addresses: MACs, the service entry, names of links. Pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from polder.sdn.topology.invariants import parse_prefix

POD_PREFIX = "0a:58"
"""Pods, gateways and the router's transit end: this, then the IPv4 address."""
VXLAN_PREFIX = "0e:58"
"""A router's VXLAN devices on one node: this, then its transit address there."""
ISOLATED_PREFIX = "0e:59"
"""The VXLAN device of an isolated network: this, then the node's underlay address."""
POD6_PREFIX = "0a:59"
"""Pods that have no IPv4 address: this, then the last 32 bits of the IPv6 address."""
BRIDGE6_PREFIX = "0e:5a"
"""The bridge of a network without IPv4: this, a zero, then the network's identifier."""
RESERVED_PREFIXES = (POD_PREFIX, VXLAN_PREFIX, ISOLATED_PREFIX, POD6_PREFIX, BRIDGE6_PREFIX)
PLATFORM6 = IPv6Network("fd70:6f6c:6465:7200::/64")
"""Polder's own unique local addresses (RFC 4193): routers and next hops, by their IPv4 addresses. No tenant has any of them."""

DNS_HOST = 10


def mac_of(address: str, prefix: str = "") -> str:
    """A locally administered MAC that is as unique as the address is: in the cluster for IPv4, in a network for IPv6, whose
    addresses differ in their last 32 bits (``invariants.usable``).
    """
    parsed = ip_address(address)
    default = POD_PREFIX if parsed.version == 4 else POD6_PREFIX
    return ":".join([prefix or default, *(f"{byte:02x}" for byte in parsed.packed[-4:])])


def mac_of_port(addresses: Iterable[str]) -> str:
    """The MAC of a port that asks for none: by its IPv4 address if it has one."""
    return mac_of(min(addresses, key=lambda address: ":" in address))


def six(address: str) -> str:
    """Polder's IPv6 address that goes with an IPv4 address of its own."""
    return str(PLATFORM6.network_address + int(IPv4Address(address)))


def link_local_of(mac: str) -> str:
    """The link-local address of an interface (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:]))


def entry_of(service_cidr: str) -> str:
    """The address of a tenant's ``kubernetes`` service: the first host of its service range; empty without a range."""
    cidr = parse_prefix(service_cidr)
    return str(cidr[1]) if cidr is not None else ""


def gateway_of(cidr: str) -> str:
    """The gateway of a network that names none: the first host."""
    return entry_of(cidr)


def dns_of(service_cidr: str) -> str:
    """The address of a tenant's resolver: the tenth host of a service range, as with kubeadm; empty without a range that has
    so many.
    """
    cidr = parse_prefix(service_cidr)
    return str(cidr[DNS_HOST]) if cidr is not None and cidr.num_addresses > DNS_HOST + 1 else ""


def link_name(port: str, sandbox: str, attempt: int = 0) -> str:
    """The router's end of a port's link: ``p`` and 65 bits that follow from the port (``tenant:namespace/name``), the
    sandbox and the attempt. Another sandbox gets another name, so that detaching the old never meets the new.
    """
    digest = hashlib.blake2b(f"{port}\0{sandbox}\0{attempt}".encode(), digest_size=9).digest()
    return "p" + base64.b32encode(digest)[:13].decode().lower()
