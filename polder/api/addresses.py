"""Addresses that are given away: a tenant's ranges for Services, and the platform's pools of addresses on the outside.

AddressPool and ExternalAddress are cluster-scoped in ``root``; the platform writes pools, Polder alone ExternalAddresses.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Condition, Object, Raw, Struct

CIDR_FINALIZER: Final = "networking.k8s.io/service-cidr-finalizer"
POOL_ANNOTATION: Final = "polder.dev/address-pool"
"""On a Service: the pool that its load balancer's addresses are from."""
ADDRESSES_ANNOTATION: Final = "polder.dev/load-balancer-ips"
"""On a Service: the addresses that its load balancer wants, with a comma between them, one of each family."""
EVERY_TENANT_NAME: Final = "*"
"""In a pool's list of tenants: all of them."""
MOST_RANGES: Final = 64
"""Entries of a pool."""
_SPEC: Final = Field("spec")


class ServiceCIDRSpec(Struct, frozen=True, kw_only=True):
    """One prefix of each family at most."""

    cidrs: list[str] = []


class ServiceCIDRStatus(Struct, frozen=True, kw_only=True):
    """Ready: addresses are given from it."""

    conditions: list[Condition] | None = None


class ServiceCIDR(Object, frozen=True, kw_only=True):
    """networking.k8s.io/v1 ServiceCIDR."""

    spec: ServiceCIDRSpec = ServiceCIDRSpec()
    status: ServiceCIDRStatus = ServiceCIDRStatus()


class IPAddress(Object, frozen=True, kw_only=True):
    """networking.k8s.io/v1 IPAddress; its name is the address."""


class AddressPoolSpec(Struct, frozen=True, kw_only=True):
    """``addresses`` are prefixes, ranges (``192.0.2.10-192.0.2.20``) and single addresses. ``tenants``: who may have some, or
    ``*``. A pool with a ``load_balancer_class`` is for Services of that class, others for those without. From one that is
    not ``auto_assign`` only those get something who name it, or an address of it. ``per_tenant`` 0 is no bound.
    """

    addresses: list[str] = []
    tenants: list[str] | None = None
    load_balancer_class: str = ""
    auto_assign: bool = True
    per_tenant: int = 0


class AddressPoolStatus(Struct, frozen=True, kw_only=True):
    """How many addresses are given, of how many (a text: IPv6 has more than numbers in JSON hold)."""

    capacity: str = ""
    allocated: int = 0
    conditions: list[Condition] | None = None


class AddressPool(Object, frozen=True, kw_only=True):
    """Addresses on the outside that the platform has, for load balancers."""

    spec: AddressPoolSpec = AddressPoolSpec()
    status: AddressPoolStatus = AddressPoolStatus()


class ExternalAddressSpec(Struct, frozen=True, kw_only=True):
    """Whose it is: the Service, as namespace/name, of a tenant."""

    address: str
    pool: str
    tenant: str
    service: str
    service_uid: str


class ExternalAddressStatus(Struct, frozen=True, kw_only=True):
    """Which node answers for the address on the uplink; empty while none does."""

    node: str = ""
    conditions: list[Condition] | None = None


class ExternalAddress(Object, frozen=True, kw_only=True):
    """The atomic claim of an address on the outside: creating it, named by the address, is the claim."""

    spec: ExternalAddressSpec
    status: ExternalAddressStatus = ExternalAddressStatus()


def external_name(address: str) -> str:
    """The ExternalAddress of an address: in a form that a name can have (``fd00-0000-…-0007.v6``)."""
    found = ipaddress.ip_address(address)
    return str(found) if found.version == 4 else f"{found.exploded.replace(':', '-')}.v6"


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses of one family from ``first`` to ``last``, as numbers."""

    version: int
    first: int
    last: int

    @property
    def size(self) -> int:
        """How many."""
        return self.last - self.first + 1

    def at(self, number: int) -> str:
        """The address of a number from the first on."""
        value = self.first + number
        return str(ipaddress.IPv4Address(value) if self.version == 4 else ipaddress.IPv6Address(value))

    def has(self, address: str) -> bool:
        """Whether the address is among them."""
        found = ipaddress.ip_address(address)
        return found.version == self.version and self.first <= int(found) <= self.last


def span_of(text: str) -> Span:
    """What an entry of a pool means; of an IPv4 prefix, up to /30, without its first and its last. Raises ValueError."""
    first, dash, last = text.partition("-")
    if dash:
        begin, end = ipaddress.ip_address(first.strip()), ipaddress.ip_address(last.strip())
        if begin.version != end.version or int(begin) > int(end):
            raise ValueError("a range goes from a lower to a higher address of one family")
        return Span(begin.version, int(begin), int(end))
    prefix = ipaddress.ip_network(text)
    whole = Span(prefix.version, int(prefix.network_address), int(prefix.broadcast_address))
    if prefix.version == 4 and prefix.prefixlen < 31:
        return Span(4, whole.first + 1, whole.last - 1)
    return whole


def validate_pool(pool: Raw) -> Iterator[FieldError]:
    """Entries that mean something, do not meet, and are nobody's own."""
    spec = pool.get("spec") or {}
    entries, at = spec.get("addresses") or [], _SPEC / "addresses"
    if not entries:
        yield at.required("at least one prefix, range or address")
    if len(entries) > MOST_RANGES:
        yield at.too_many(len(entries), MOST_RANGES)
        return
    spans: list[Span] = []
    for number, text in enumerate(entries):
        try:
            span = span_of(text)
        except ValueError as error:
            yield at[number].invalid(text, f"must be a prefix, a range (192.0.2.10-192.0.2.20) or an address: {error}")
            continue
        if (what := _of_another_use(span)) is not None:
            yield at[number].invalid(text, f"{what} addresses cannot be a load balancer's")
        if any(s.version == span.version and s.first <= span.last and span.first <= s.last for s in spans):
            yield at[number].invalid(text, "overlaps another entry of the pool")
        spans.append(span)
    if not spec.get("tenants"):
        yield (_SPEC / "tenants").required('the tenants that may have addresses of the pool, or "*" for all')
    if spec.get("perTenant", 0) < 0:
        yield (_SPEC / "perTenant").invalid(spec["perTenant"], "must be 0 (no bound) or more")


def _of_another_use(span: Span) -> str | None:
    for text, what in (
        ("0.0.0.0/8", "unspecified"), ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"),
        ("100.64.0.0/10", "transit"), ("224.0.0.0/3", "multicast or reserved"), ("::/127", "unspecified or loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast"),
    ):  # fmt: skip
        other = ipaddress.ip_network(text)
        begin, end = int(other.network_address), int(other.broadcast_address)
        if other.version == span.version and span.first <= end and begin <= span.last:
            return what
    return None


def validate_external_address(claim: Raw) -> Iterator[FieldError]:
    """An address, and the name that follows from it."""
    text = str((claim.get("spec") or {}).get("address", ""))
    try:
        name = external_name(text)
    except ValueError:
        yield (_SPEC / "address").invalid(text, "must be an IP address")
        return
    if (claim.get("metadata") or {}).get("name") != name:
        yield (_SPEC / "address").invalid(
            text, f"must be the address that the name stands for; this one is named {name}"
        )
