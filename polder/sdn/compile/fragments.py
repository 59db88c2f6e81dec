"""One fragment for each object: ``compile_X(its declared inputs) -> topology``. Pure; raises CompileError."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address

from polder.api import core
from polder.api import polder as api
from polder.api.meta import ref_of
from polder.base.ref import Ref
from polder.sdn.compile.errors import CompileError, NotReadyError
from polder.sdn.topology import types as t
from polder.sdn.topology.addressing import dns_of, entry_of, gateway_of
from polder.sdn.topology.invariants import (
    network_violations,
    parse_address,
    parse_ip,
    port_violations,
    router_violations,
    share,
)

MOST_EGRESS = 8
"""Addresses from which one node's tenants leave it; more are not read."""


def local_name(ref: Ref) -> str:
    """``namespace/name``, as objects of one tenant refer to each other."""
    return f"{ref.namespace}/{ref.name}"


def compile_node(node: core.Node) -> t.NodeAddress:
    """A machine by its InternalIP."""
    own = [address.address for address in node.status.addresses or [] if address.type == "InternalIP"]
    others = tuple(sorted(address for address in own if isinstance(parse_ip(address), IPv6Address)))
    for address in own:
        if parse_address(address) is not None:
            zone = (node.metadata.labels or {}).get("topology.kubernetes.io/zone", "")
            said = (node.metadata.annotations or {}).get(api.EGRESS_ANNOTATION, "").split(",")
            egress = tuple(sorted({str(one) for text in said[:MOST_EGRESS] if (one := parse_ip(text)) is not None}))
            return t.NodeAddress(node.metadata.name, address, others, zone, egress)
    raise NotReadyError(f"Node {node.metadata.name}: status.addresses has no InternalIP of IPv4")


def compile_network(network: api.Network, rivals: Iterable[api.Network] = ()) -> t.Network:
    """A network. ``rivals`` are the tenant's other networks: of two that overlap on one router, the older holds."""
    ref = ref_of(network)
    spec, status = network.spec, network.status
    if not status.vni:
        raise NotReadyError(f"Network {ref}: status.vni is not assigned yet")
    compiled = _network(network)
    _raise_first(network_violations(compiled))
    for rival in rivals:
        if not rival.status.vni or not _overlap(spec, rival.spec) or _age(rival) >= _age(network):
            continue
        mine, theirs = (", ".join(api.cidrs_of(one)) for one in (spec, rival.spec))
        raise CompileError(f"Network {ref}: spec.cidr {mine} overlaps {theirs} of Network {ref_of(rival)}")
    return compiled


def compile_router(router: api.Router, tenant: api.Tenant | None, transit: Iterable[api.Port]) -> t.Router:
    """A router with its addresses: ``transit`` are root's Ports with ``routerOf`` this tenant. One in deletion gives none,
    so that the node takes the router down.
    """
    ref = ref_of(router)
    ranges = api.service_cidrs_of(router.spec)
    if not ranges and tenant is not None:
        ranges = api.service_cidrs_of(tenant.spec)
    by_family = _by_family(ranges)
    living = [port for port in transit if port.spec.addresses and port.metadata.deletion_timestamp is None]
    addresses = {port.spec.node: port.spec.addresses[0] for port in sorted(living, key=_age, reverse=True)}
    compiled = t.Router(
        tenant=ref.tenant,
        name=local_name(ref),
        service_cidr=by_family[4],
        entry=entry_of(ranges[0]) if ranges else "",
        addresses=tuple(t.RouterAddress(node, addresses[node]) for node in sorted(addresses)),
        service_cidr6=by_family[6],
        dns=dns_of(ranges[0]) if ranges else "",
        further=tuple(sorted(set(router.spec.further_service_cidrs or ()))),
    )
    _raise_first(router_violations(compiled))
    return compiled


def compile_port(port: api.Port, network: t.Network | None) -> t.Port:
    """A port. One in deletion is attached to nothing."""
    ref = ref_of(port)
    spec, status = port.spec, port.status
    if network is None:
        raise NotReadyError(f"Port {ref}: spec.network {spec.network!r} is not ready")
    if not spec.addresses:
        raise NotReadyError(f"Port {ref}: spec.addresses is not assigned yet")
    living = port.metadata.deletion_timestamp is None
    attached = living and bool(status.sandbox)
    compiled = t.Port(
        tenant=ref.tenant,
        name=local_name(ref),
        network=spec.network,
        node=spec.node,
        addresses=tuple(spec.addresses),
        mac=spec.mac,
        pod=f"{ref.namespace}/{spec.pod}" if spec.pod else "",
        interface=spec.interface,
        sandbox=status.sandbox if attached else "",
        netns=status.netns if attached else "",
        link=status.link if attached else "",
    )
    _raise_first(port_violations(compiled, network))
    return compiled


def _network(network: api.Network) -> t.Network:
    ref, spec = ref_of(network), network.spec
    cidrs, given = _by_family(api.cidrs_of(spec)), _by_family(api.gateways_of(spec))
    gateways = {f: (given[f] or gateway_of(cidrs[f])) if spec.router and cidrs[f] else given[f] for f in cidrs}
    return t.Network(
        tenant=ref.tenant,
        name=local_name(ref),
        vni=network.status.vni,
        cidr=cidrs[4],
        gateway=gateways[4] if spec.router else "",
        router=spec.router,
        mtu=spec.mtu,
        cidr6=cidrs[6],
        gateway6=gateways[6] if spec.router else "",
    )


def _overlap(one: api.NetworkSpec, other: api.NetworkSpec) -> bool:
    """Whether two networks of one router share addresses: asked of each pair of a tenant's, so nothing is made for it."""
    if not one.router or one.router != other.router:
        return False
    return any(share(mine, theirs) for mine in api.cidrs_of(one) for theirs in api.cidrs_of(other))


def _by_family(texts: Iterable[str]) -> dict[int, str]:
    """The first of each family; empty for a family that is not there."""
    found = {4: "", 6: ""}
    for text in texts:
        family = 6 if ":" in text else 4
        found[family] = found[family] or text
    return found


def _age(obj: api.Network | api.Port) -> tuple[str, str, str]:
    meta = obj.metadata
    return meta.creation_timestamp or "", meta.namespace, meta.name


def _raise_first(violations: Iterable[str]) -> None:
    for text in violations:
        raise CompileError(text)
