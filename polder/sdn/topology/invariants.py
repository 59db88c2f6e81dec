"""What holds in every topology. A violation is one sentence that names the object and the field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from polder.sdn.topology.types import Network, Port, Router, TenantTopology

MAX_VNI = (1 << 24) - 1
MIN_MTU = 576
MIN_MTU6 = 1280
"""RFC 8200, section 5."""
MAX_MTU = 65535
MAX_LINK = 15
"""Characters in a link's name (IFNAMSIZ less the final zero)."""

Prefix = IPv4Network | IPv6Network
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@lru_cache(4096)
def parse_prefix(text: str) -> Prefix | None:
    """A network of either family in canonical text; None if it is none (host bits set, other spelling, a zone)."""
    try:
        network = ip_network(text)
    except ValueError:
        return None
    return network if str(network) == text and "%" not in text else None


def parse_cidr(text: str) -> IPv4Network | None:
    """An IPv4 network in canonical text; None if it is none (host bits set, IPv6, other spelling)."""
    found = parse_prefix(text)
    return found if isinstance(found, IPv4Network) else None


def parse_address(text: str) -> IPv4Address | None:
    """An IPv4 address in canonical text; None if it is none."""
    found = parse_ip(text)
    return found if isinstance(found, IPv4Address) else None


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """An address of either family in canonical text; None if it is none. One with a zone (``fd00::1%…``) is none: Python takes
    any text for a zone, and rules would be read with it.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if str(address) == text and "%" not in text else None


def network_violations(network: Network) -> Iterator[str]:
    """What is wrong with one network on its own."""
    where = f"Network {network.tenant}:{network.name}"
    if not 1 <= network.vni <= MAX_VNI:
        yield f"{where}: status.vni {network.vni} is not in 1..{MAX_VNI}"
    least = MIN_MTU6 if network.cidr6 else MIN_MTU
    if network.mtu and not least <= network.mtu <= MAX_MTU:
        yield f"{where}: spec.mtu {network.mtu} is not in {least}..{MAX_MTU}"
    if not network.prefixes:
        yield f"{where}: spec.cidr '' is no network in canonical form, such as 10.0.0.0/16"
    for version, text, gateway in ((4, network.cidr, network.gateway), (6, network.cidr6, network.gateway6)):
        if text:
            yield from _prefix_violations(network, version, text, gateway)


def _prefix_violations(network: Network, version: int, text: str, gateway: str) -> Iterator[str]:
    where, cidr = f"Network {network.tenant}:{network.name}", parse_prefix(text)
    if cidr is None or cidr.version != version:
        example = "10.0.0.0/16" if version == 4 else "fd00:10::/64"
        yield f"{where}: spec.cidr {text!r} is no IPv{version} network in canonical form, such as {example}"
        return
    if cidr.max_prefixlen - cidr.prefixlen < 2:
        yield f"{where}: spec.cidr {text} has no room for a gateway and a pod; use /{cidr.max_prefixlen - 2} or larger"
    if network.router and not usable(cidr, gateway):
        yield f"{where}: spec.gateway {gateway!r} is no host address of {text}"
    if not network.router and gateway:
        yield f"{where}: spec.gateway {gateway} is set, but an isolated network has no gateway"


def port_violations(port: Port, network: Network) -> Iterator[str]:
    """What is wrong with one port on its network."""
    where = f"Port {port.tenant}:{port.name}"
    if not port.node:
        yield f"{where}: spec.node is empty"
    if not MAC.fullmatch(port.mac):
        yield f"{where}: spec.mac {port.mac!r} is no MAC address in lower case"
    elif int(port.mac[:2], 16) & 1:
        yield f"{where}: spec.mac {port.mac} is a group address"
    for address in port.addresses:
        text = network.cidr6 if ":" in address else network.cidr
        cidr = parse_prefix(text)
        if cidr is None or not usable(cidr, address):
            known = text or " or ".join(prefix for prefix, _ in network.prefixes)
            yield f"{where}: spec.addresses has {address!r}, which is no host address of {known}"
        elif address in network.gateways:
            yield f"{where}: spec.addresses has {address}, which is the gateway of Network {network.name}"
    families = [":" in address for address in port.addresses]
    if len(set(families)) < len(families):
        yield f"{where}: spec.addresses has more than one address of one family"
    if not port.addresses:
        yield f"{where}: spec.addresses is empty"
    if len(port.link) > MAX_LINK:
        yield f"{where}: status.link {port.link!r} is longer than {MAX_LINK} characters"


def router_violations(router: Router) -> Iterator[str]:
    """What is wrong with one router."""
    where = f"Router {router.tenant}:{router.name}"
    for version, text in ((4, router.service_cidr), (6, router.service_cidr6)):
        found = parse_prefix(text)
        if text and (found is None or found.version != version):
            yield f"{where}: spec.serviceCidr {text!r} is no IPv{version} network in canonical form"
    for text in router.further:
        if parse_prefix(text) is None:
            yield f"{where}: spec.furtherServiceCidrs has {text!r}, which is no network in canonical form"
    seen: set[str] = set()
    for item in router.addresses:
        if parse_address(item.address) is None:
            yield f"{where}: its address {item.address!r} on node {item.node} is no IPv4 address"
        if item.node in seen:
            yield f"{where}: it has more than one address on node {item.node}"
        seen.add(item.node)


def violations(topology: TenantTopology) -> list[str]:
    """Everything that is wrong; empty is well."""
    found = [text for router in topology.routers for text in router_violations(router)]
    found += [text for network in topology.networks for text in network_violations(network)]
    found += _overlaps(topology)
    networks = {network.name: network for network in topology.networks}
    claimed: dict[tuple[str, str], str] = {}
    for port in topology.ports:
        network = networks.get(port.network)
        if network is None:
            found.append(f"Port {port.tenant}:{port.name}: spec.network {port.network!r} is no network of the tenant")
            continue
        found += port_violations(port, network)
        for what in (*port.addresses, port.mac):
            other = claimed.setdefault((port.network, what), port.name)
            if other != port.name:
                found.append(f"Port {port.tenant}:{port.name}: {what} belongs to Port {other} already")
    return found


def overlaps(one: Network, other: Network) -> bool:
    """Whether two networks of one router share addresses."""
    if not one.router or one.router != other.router or one.name == other.name:
        return False
    return any(share(mine, theirs) for mine, _ in one.prefixes for theirs, _ in other.prefixes)


def share(one: str, other: str) -> bool:
    """Whether two prefixes have addresses in common; what is no prefix has none."""
    left, right = parse_prefix(one), parse_prefix(other)
    if isinstance(left, IPv4Network):
        return isinstance(right, IPv4Network) and left.overlaps(right)
    return isinstance(left, IPv6Network) and isinstance(right, IPv6Network) and left.overlaps(right)


def usable(cidr: Prefix, text: str) -> bool:
    """Whether ``text`` is a host address of ``cidr``: neither its first nor its last, and of IPv6 among the first 2^32, so
    that MACs which follow from the last 32 bits are unique.
    """
    address = parse_ip(text)
    if address is None or address.version != cidr.version:
        return False
    return 0 < int(address) - int(cidr.network_address) < hosts_of(cidr) + 1


def hosts_of(cidr: Prefix) -> int:
    """How many host addresses a network has, from its second address on."""
    return min(cidr.num_addresses, 1 << 32) - 2


def _overlaps(topology: TenantTopology) -> Iterator[str]:
    vnis: dict[int, str] = {}
    for index, network in enumerate(topology.networks):
        where = f"Network {network.tenant}:{network.name}"
        for other in topology.networks[:index]:
            if overlaps(network, other):
                mine, theirs = network.cidr or network.cidr6, other.cidr or other.cidr6
                yield f"{where}: spec.cidr {mine} overlaps {theirs} of Network {other.name}"
        holder = vnis.setdefault(network.vni, network.name)
        if holder != network.name:
            yield f"{where}: status.vni {network.vni} is that of Network {holder} too"
