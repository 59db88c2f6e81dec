"""What holds in every topology. A violation is one sentence that names the object and the field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from polder.sdn.topology.types import Network, Port, Router, TenantTopology

MAX_VNI = (1 << 24) - 1
MIN_MTU = 576
MAX_MTU = 65535
MAX_LINK = 15
"""Characters in a link's name (IFNAMSIZ less the final zero)."""

MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def parse_cidr(text: str) -> IPv4Network | None:
    """An IPv4 network in canonical text; None if it is none (host bits set, IPv6, other spelling)."""
    try:
        network = IPv4Network(text)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None
    return network if str(network) == text else None


def parse_address(text: str) -> IPv4Address | None:
    """An IPv4 address in canonical text; None if it is none."""
    try:
        return IPv4Address(text)
    except (AddressValueError, ValueError):
        return None


def network_violations(network: Network) -> Iterator[str]:
    """What is wrong with one network on its own."""
    where = f"Network {network.tenant}:{network.name}"
    cidr = parse_cidr(network.cidr)
    if not 1 <= network.vni <= MAX_VNI:
        yield f"{where}: status.vni {network.vni} is not in 1..{MAX_VNI}"
    if network.mtu and not MIN_MTU <= network.mtu <= MAX_MTU:
        yield f"{where}: spec.mtu {network.mtu} is not in {MIN_MTU}..{MAX_MTU}"
    if cidr is None:
        yield f"{where}: spec.cidr {network.cidr!r} is no IPv4 network in canonical form, such as 10.0.0.0/16"
        return
    if cidr.prefixlen > 30:
        yield f"{where}: spec.cidr {network.cidr} has no room for a gateway and a pod; use /30 or larger"
    if network.router and not usable(cidr, network.gateway):
        yield f"{where}: spec.gateway {network.gateway!r} is no host address of {network.cidr}"
    if not network.router and network.gateway:
        yield f"{where}: spec.gateway {network.gateway} is set, but an isolated network has no gateway"


def port_violations(port: Port, network: Network) -> Iterator[str]:
    """What is wrong with one port on its network."""
    where = f"Port {port.tenant}:{port.name}"
    cidr = parse_cidr(network.cidr)
    if not port.node:
        yield f"{where}: spec.node is empty"
    if not MAC.fullmatch(port.mac):
        yield f"{where}: spec.mac {port.mac!r} is no MAC address in lower case"
    elif int(port.mac[:2], 16) & 1:
        yield f"{where}: spec.mac {port.mac} is a group address"
    for address in port.addresses:
        if cidr is None or not usable(cidr, address):
            yield f"{where}: spec.addresses has {address!r}, which is no host address of {network.cidr}"
        elif address == network.gateway:
            yield f"{where}: spec.addresses has {address}, which is the gateway of Network {network.name}"
    if not port.addresses:
        yield f"{where}: spec.addresses is empty"
    if len(port.link) > MAX_LINK:
        yield f"{where}: status.link {port.link!r} is longer than {MAX_LINK} characters"


def router_violations(router: Router) -> Iterator[str]:
    """What is wrong with one router."""
    where = f"Router {router.tenant}:{router.name}"
    if router.service_cidr and parse_cidr(router.service_cidr) is None:
        yield f"{where}: spec.serviceCidr {router.service_cidr!r} is no IPv4 network in canonical form"
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
    left, right = parse_cidr(one.cidr), parse_cidr(other.cidr)
    return left is not None and right is not None and left.overlaps(right)


def usable(cidr: IPv4Network, text: str) -> bool:
    """Whether ``text`` is a host address of ``cidr``: neither its first nor its last."""
    address = parse_address(text)
    return address is not None and cidr.network_address < address < cidr.broadcast_address


def _overlaps(topology: TenantTopology) -> Iterator[str]:
    vnis: dict[int, str] = {}
    for index, network in enumerate(topology.networks):
        where = f"Network {network.tenant}:{network.name}"
        for other in topology.networks[:index]:
            if overlaps(network, other):
                yield f"{where}: spec.cidr {network.cidr} overlaps {other.cidr} of Network {other.name}"
        holder = vnis.setdefault(network.vni, network.name)
        if holder != network.name:
            yield f"{where}: status.vni {network.vni} is that of Network {holder} too"
