"""Services and their EndpointSlices to Vips.

Which pods answer is decided by whoever writes the slices; a Service without selector has those that anybody wrote. Slices
belong to a Service by their label, and to its ports by the ports' names, as with kube-proxy. The two services that the router
answers itself, ``kubernetes`` and the resolver, are no Vips.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from polder.api import polder as api
from polder.api.core import Service, ServicePort
from polder.api.discovery import Endpoint, EndpointPort, EndpointSlice, HintedFor
from polder.base.ref import Ref
from polder.sdn.compile.concern import Declaration, Home, Index, View
from polder.sdn.compile.errors import CompileError
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.compile.outside import (
    OWNERS,
    balancer_addresses,
    can_answer,
    canonical,
    cluster_addresses,
    outside_addresses,
)
from polder.sdn.topology.types import Router
from polder.sdn.topology.vips import CLOSED, Backend, Vip, VipPort, arranged

OWNER_LABEL = "kubernetes.io/service-name"
"""The label of a slice that names its Service."""
PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}
MAX_PORT = 65535
DEFAULT_AFFINITY = 10800
"""Seconds, as the API's default."""
MOST_PORTS = 1000
"""Of one service; the API takes no more."""
SOURCES = "service.beta.kubernetes.io/load-balancer-source-ranges"
"""An annotation that says the same as ``loadBalancerSourceRanges``, which goes before it."""
Content = tuple[Sequence[Endpoint], Sequence[EndpointPort]]


def _owner(ref: Ref, obj: EndpointSlice) -> Iterable[Ref]:
    name = (obj.metadata.labels or {}).get(OWNER_LABEL, "")
    return (Ref(ref.tenant, ref.namespace, name),) if name else ()


SLICES: Index[EndpointSlice, Content] = Index(
    "slices", EndpointSlice, _owner, lambda one: (one.endpoints or (), one.ports or ())
)
"""(endpoints, ports) by Service."""


def _has_address(ref: Ref, service: Service) -> Iterable[Ref]:
    wished = any((*cluster_addresses(service), *balancer_addresses(service), *(service.spec.external_ips or ())))
    return (ref,) if wished and service.spec.type != "ExternalName" else ()


def _vip(ref: Ref, view: View) -> Vip | None:
    service = view.get(Service, ref)
    if service is None:
        return None
    router = view.part(Key(Concern.ROUTER, Ref(ref.tenant, api.SYSTEM_NAMESPACE, api.DEFAULT_ROUTER)), Router)
    own = {router.entry, router.dns} if router is not None else set()
    found = {*cluster_addresses(service), *outside_addresses(ref, service, router, view)}
    addresses = tuple(sorted(found - own))
    if not addresses:
        return None
    previous = view.previous
    slices = [view.by(SLICES, ref)[at] for at in sorted(view.by(SLICES, ref))]
    return compile_vip(ref, service, addresses, slices, previous if isinstance(previous, Vip) else None)


VIP = Declaration(Concern.VIP, Vip, (Home(Service, _has_address),), _vip, (SLICES, OWNERS))


def compile_vip(
    ref: Ref, service: Service, addresses: tuple[str, ...], slices: list[Content], previous: Vip | None
) -> Vip:
    """A Service with what its slices hold; backends stay in the places that they have in ``previous``."""
    spec, own, given = service.spec, set(cluster_addresses(service)), set(balancer_addresses(service))
    before = {(port.protocol, port.port): port for port in previous.ports} if previous is not None else {}
    ports = [_port(ref, port, slices, before) for port in (spec.ports or [])[:MOST_PORTS]]
    config = spec.session_affinity_config.client_ip if spec.session_affinity_config is not None else None
    timeout = (config.timeout_seconds if config is not None else None) or DEFAULT_AFFINITY
    return Vip(
        tenant=ref.tenant,
        name=f"{ref.namespace}/{ref.name}",
        addresses=addresses,
        cluster=tuple(one for one in addresses if one in own),
        ports=tuple(sorted(ports)),
        local=spec.internal_traffic_policy == "Local",
        local_outside=spec.external_traffic_policy == "Local",
        affinity=timeout if spec.session_affinity == "ClientIP" else 0,
        balanced=tuple(one for one in addresses if one in given),
        sources=_sources(service) if given else (),
        health=spec.health_check_node_port if spec.external_traffic_policy == "Local" else 0,
    )


def _sources(service: Service) -> tuple[str, ...]:
    """Who may ask a load balancer; empty is everybody."""
    texts = service.spec.load_balancer_source_ranges or (service.metadata.annotations or {}).get(SOURCES, "").split(",")
    texts = [text.strip() for text in texts if text.strip()]
    found = {str(prefix) for prefix in map(_prefix, texts) if prefix is not None}
    return tuple(sorted(found)) or ((CLOSED,) if texts else ())


def _prefix(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text if "%" not in text else "", strict=False)
    except ValueError:
        return None


def _port(ref: Ref, port: ServicePort, slices: list[Content], before: Mapping[tuple[str, int], VipPort]) -> VipPort:
    protocol = PROTOCOLS.get(port.protocol)
    if protocol is None:
        raise CompileError(f"Service {ref}: spec.ports has protocol {port.protocol!r}, which is none of TCP, UDP, SCTP")
    ready: dict[tuple[str, int], Backend] = {}
    ending: dict[tuple[str, int], Backend] = {}
    for endpoint, number in _endpoints(port, slices):
        conditions = endpoint.conditions or {}
        into = ready if conditions.get("ready", True) else ending
        if into is ending and not (conditions.get("serving", True) and conditions.get("terminating", False)):
            continue
        address = canonical(endpoint.addresses[0]) if endpoint.addresses else ""
        if address and can_answer(address):
            into[address, number] = _backend(endpoint, address, number)
    for at in ready:
        ending.pop(at, None)
    old = before.get((protocol, port.port), VipPort(protocol, port.port))
    return VipPort(
        protocol, port.port, port.name, port.node_port, _placed(ready, old.ready), _placed(ending, old.ending)
    )


def _endpoints(port: ServicePort, slices: list[Content]) -> Iterator[tuple[Endpoint, int]]:
    """Every endpoint with the number of its port that goes by the service port's name."""
    for endpoints, ports in slices:
        for one in ports:
            number = one.port or 0
            if (one.name or "") == port.name and (one.protocol or "TCP") == port.protocol and 0 < number <= MAX_PORT:
                yield from ((endpoint, number) for endpoint in endpoints)


def _backend(endpoint: Endpoint, address: str, port: int) -> Backend:
    hints = endpoint.hints
    return Backend(
        address,
        port,
        endpoint.node_name or "",
        _names(hints.for_zones if hints is not None else None),
        _names(hints.for_nodes if hints is not None else None),
    )


def _placed(backends: dict[tuple[str, int], Backend], before: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Each family has slots of its own."""
    found: list[Backend] = []
    for six in (False, True):
        of_family = {at: one for at, one in backends.items() if (":" in one.address) is six}
        found += arranged(of_family, tuple(one for one in before if (":" in one.address) is six))
    return tuple(found)


def _names(hinted: list[HintedFor] | None) -> tuple[str, ...]:
    return tuple(sorted(one.name for one in hinted or []))
