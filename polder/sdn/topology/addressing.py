"""Addresses that follow from other addresses: MACs, the service entry, names of links. Pure."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Address

from polder.sdn.topology.invariants import parse_cidr

POD_PREFIX = "0a:58"
"""Pods, gateways and the router's transit end: this, then the IPv4 address."""
VXLAN_PREFIX = "0e:58"
"""A router's VXLAN devices on one node: this, then its transit address there."""
ISOLATED_PREFIX = "0e:59"
"""The VXLAN device of an isolated network: this, then the node's underlay address."""
RESERVED_PREFIXES = (POD_PREFIX, VXLAN_PREFIX, ISOLATED_PREFIX)


def mac_of(address: str, prefix: str = POD_PREFIX) -> str:
    """A locally administered MAC that is as unique as the IPv4 address is."""
    return ":".join([prefix, *(f"{byte:02x}" for byte in IPv4Address(address).packed)])


def entry_of(service_cidr: str) -> str:
    """The address of a tenant's ``kubernetes`` service: the first host of its service range; empty without a range."""
    cidr = parse_cidr(service_cidr)
    return str(cidr.network_address + 1) if cidr is not None else ""


def gateway_of(cidr: str) -> str:
    """The gateway of a network that names none: the first host."""
    return entry_of(cidr)


def link_name(port: str, sandbox: str, attempt: int = 0) -> str:
    """The router's end of a port's link: ``p`` and 65 bits that follow from the port (``tenant:namespace/name``), the
    sandbox and the attempt. Another sandbox gets another name, so that detaching the old never meets the new.
    """
    digest = hashlib.blake2b(f"{port}\0{sandbox}\0{attempt}".encode(), digest_size=9).digest()
    return "p" + base64.b32encode(digest)[:13].decode().lower()
