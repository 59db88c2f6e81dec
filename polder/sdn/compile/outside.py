"""At which addresses of the outside a Service may answer.

``externalIPs`` are whatever somebody with a right to write Services wrote, in any namespace of the tenant. So they never take an
address that has a meaning inside already: one of the tenant's networks (its pods and gateways), of its service ranges, of another
Service, or of routers and links. What is left out of these is as if it were not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

from polder.api.core import Service
from polder.base.ref import Ref
from polder.sdn.compile.concern import Index, View
from polder.sdn.compile.prefixes import has_network
from polder.sdn.topology.addressing import PLATFORM6
from polder.sdn.topology.types import Router

TRANSIT_RANGE = IPv4Network("100.64.0.0/10")
"""Routers' own addresses."""
MOST = 16
"""Addresses of one Service that were written by hand; the API takes no more."""


def canonical(text: str) -> str:
    """An address as maps have it; empty for what is none. Python takes any text for the zone of an IPv6 address (``fd00::1%…``);
    rules would be read with it.
    """
    if "%" in text:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""  # "None" of a headless service, and what no address is


def cluster_addresses(service: Service) -> Iterator[str]:
    """Those that the tenant's service ranges gave it."""
    spec = service.spec
    yield from filter(None, map(canonical, spec.cluster_ips or [spec.cluster_ip]))


def balancer_addresses(service: Service) -> Iterator[str]:
    """Those that a load balancer was given."""
    given = [one.ip for one in service.status.load_balancer.ingress or [] if one.ip and one.ip_mode != "Proxy"]
    yield from filter(None, map(canonical, given))


def _owned(ref: Ref, service: Service) -> Iterable[tuple[str, str]]:
    return [(ref.tenant, one) for one in (*cluster_addresses(service), *balancer_addresses(service))]


OWNERS: Index[Service, frozenset[str]] = Index(
    "services by address", Service, _owned, lambda one: frozenset(cluster_addresses(one))
)
"""Services by (tenant, address that they were given), each with its cluster addresses."""


def outside_addresses(ref: Ref, service: Service, router: Router | None, view: View) -> Iterator[str]:
    """The Service's addresses of the outside that it may have. An address that a load balancer was given goes before what others
    wrote by hand.
    """
    for address in balancer_addresses(service):
        others = (held for other, held in view.by(OWNERS, (ref.tenant, address)).items() if other != ref)
        if _is_free(ref, address, router, view) and not any(address in held for held in others):
            yield address
    for address in filter(None, map(canonical, (service.spec.external_ips or [])[:MOST])):
        owners = view.by(OWNERS, (ref.tenant, address)).keys()
        if _is_free(ref, address, router, view) and owners <= {ref}:
            yield address


def _is_free(ref: Ref, text: str, router: Router | None, view: View) -> bool:
    ranges = (router.service_cidr, router.service_cidr6) if router is not None else ()
    address = ip_address(text)
    served = any(address in ip_network(one) for one in ranges if one)
    return can_answer(text) and not served and not has_network(ref.tenant, text, view)


def can_answer(text: str) -> bool:
    """Not what means the router itself or nobody: the API refuses these of its own writers, slices may be anybody's."""
    address = ip_address(text)
    if isinstance(address, IPv6Address) and (address.ipv4_mapped is not None or address in PLATFORM6):
        return False
    special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return not special and not (isinstance(address, IPv4Address) and address in TRANSIT_RANGE)
