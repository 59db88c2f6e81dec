"""EndpointSlices."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_TYPES: Final = ("IPv4", "IPv6", "FQDN")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_MAX_ENDPOINTS, _MAX_ADDRESSES, _MAX_PORTS = 1000, 100, 20000


def validate_slice(piece: Raw) -> Iterator[FieldError]:
    """Addresses fit the type; ports have unique names."""
    family = piece.get("addressType", "")
    if not family:
        yield Field("addressType").required()
    elif family not in _TYPES:
        yield Field("addressType").not_supported(family, _TYPES)
    endpoints = piece.get("endpoints") or []
    if len(endpoints) > _MAX_ENDPOINTS:
        yield Field("endpoints").too_many(len(endpoints), _MAX_ENDPOINTS)
        return
    for number, endpoint in enumerate(endpoints):
        yield from _endpoint(endpoint, family, Field("endpoints")[number])
    yield from _ports(piece.get("ports") or [])


def _endpoint(endpoint: Raw, family: str, at: Field) -> Iterator[FieldError]:
    addresses = endpoint.get("addresses") or []
    if not addresses:
        yield (at / "addresses").required("must contain at least 1 address")
    if len(addresses) > _MAX_ADDRESSES:
        yield (at / "addresses").too_many(len(addresses), _MAX_ADDRESSES)
    for number, address in enumerate(addresses):
        where = (at / "addresses")[number]
        if family == "FQDN":
            yield from (where.invalid(address, said) for said in names.dns_subdomain(address))
        elif family in _TYPES and (said := _address(address, family)):
            yield where.invalid(address, said)


def _address(text: str, family: str) -> str:
    try:
        found = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        return f"must be a valid {family} address"
    if f"IPv{found.version}" != family:
        return f"must be an {family} address"
    if found.is_unspecified:
        return f"may not be unspecified ({text})"
    if found.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if found.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if found.is_multicast:
        return "may not be in the multicast range (224.0.0.0/4, ff00::/8)"
    return ""


def _ports(ports: list[Raw]) -> Iterator[FieldError]:
    if len(ports) > _MAX_PORTS:
        yield Field("ports").too_many(len(ports), _MAX_PORTS)
    seen: set[str] = set()
    for number, port in enumerate(ports):
        at, name = Field("ports")[number], port.get("name", "")
        if name in seen:
            yield (at / "name").duplicate(name)
        seen.add(name)
        if name:
            yield from ((at / "name").invalid(name, said) for said in names.dns_label(name))
        if port.get("protocol") not in _PROTOCOLS:
            yield (at / "protocol").not_supported(port.get("protocol", ""), _PROTOCOLS)
        if "port" in port:
            yield from ((at / "port").invalid(port["port"], said) for said in names.port_number(port["port"]))


def validate_slice_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """The address family stays."""
    if new.get("addressType") != old.get("addressType"):
        yield Field("addressType").invalid(new.get("addressType", ""), "field is immutable")
