"""The ranges that a tenant's Services get addresses from: its own, and those of its further ServiceCIDRs that are ready.

A range of a ServiceCIDR may end. Whoever takes an address from it has the commit expect the ServiceCIDR as it was read, so
that no address is given from one that is in deletion.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.errors import Field, FieldError, forbidden, invalid
from polder.api.kinds import built_in, kind_of
from polder.api.meta import Raw
from polder.api.polder import DEFAULT_ROUTER, Network
from polder.api.service_families import IPV4, IPV6
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.base.ids import TenantName
from polder.store.protocol import Check, Entry, Key, Prefix, Store

ADDRESSES: Final = built_in("networking.k8s.io/v1", "ipaddresses")
CIDRS: Final = built_in("networking.k8s.io/v1", "servicecidrs")
NETWORKS: Final = kind_of(Network)
OWN: Final = "kubernetes"
"""The ServiceCIDR that says what the tenant was given; it follows the tenant, and is always there."""
LIMIT: Final = 32
"""ServiceCIDRs of a tenant."""
_TRIES: Final = 24
"""Addresses of a range that are tried at random before all rows are looked at."""
_PAGE: Final = 500
"""Claims that are read at a time."""
_SEARCHED: Final = 1 << 20
"""Addresses of a range, from its first, among which a free one is searched for after those tries."""
Prefixes = ipaddress.IPv4Network | ipaddress.IPv6Network
_RESERVED: Final = tuple(
    (ipaddress.ip_network(text), name)
    for text, name in (
        ("0.0.0.0/8", "unspecified"), ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"), ("100.64.0.0/10", "transit"), ("::/127", "unspecified or loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast"),
    )
)  # fmt: skip


def address_key(tenant: str, address: str) -> Key:
    """The row that claims an address, in its canonical text, of a tenant."""
    return Key(ADDRESSES.resource, tenant, "", str(ipaddress.ip_address(address)))


@dataclass(frozen=True, slots=True)
class ServiceRange:
    """One prefix of one ServiceCIDR; ``check`` is what a commit must expect that takes an address of it."""

    prefix: Prefixes
    check: Check | None

    @property
    def family(self) -> str:
        """IPv4 or IPv6."""
        return IPV4 if self.prefix.version == 4 else IPV6

    @property
    def first(self) -> int:
        """The number of the first address that is given; the tenant's own range begins with the ``kubernetes`` service's."""
        return 1 if self.check is not None else 2

    @property
    def end(self) -> int:
        """The number after the last that is given: IPv4's last is the broadcast address."""
        return self.prefix.num_addresses - (1 if self.prefix.version == 4 else 0)

    @property
    def lower(self) -> int:
        """Where the part ends that is for addresses which are asked for by name."""
        size = self.prefix.num_addresses - 1
        return min(max(16, size // 16), 256) if size > 32 else self.first

    def gives(self, address: str) -> bool:
        """Whether an address may be a Service's."""
        found = ipaddress.ip_address(address)
        return found in self.prefix and 1 <= int(found) - int(self.prefix.network_address) < self.end


@dataclass(frozen=True, slots=True)
class ServiceRanges:
    """Reads ranges and finds free addresses in them."""

    store: Store

    async def of(self, tenant: TenantName) -> list[ServiceRange]:
        """The ranges that give addresses: the tenant's own first; none for a tenant that ends."""
        page = await self.store.list(Prefix(CIDRS.resource, tenant), limit=LIMIT * 2)
        found: list[ServiceRange] = []
        for entry in sorted(page.entries, key=lambda e: e.key.name != OWN):
            raw = decode_entry(entry)
            if entry.key.name == OWN or _is_ready(raw):
                check = None if entry.key.name == OWN else Check(entry.key, entry.revision)
                found += [ServiceRange(ipaddress.ip_network(text), check) for text in raw["spec"]["cidrs"]]
        return found

    async def is_taken(self, tenant: TenantName, address: str) -> bool:
        """Whether somebody has the address."""
        return await self.store.get(address_key(tenant, address)) is not None

    async def candidates(self, tenant: TenantName, ranges: Sequence[ServiceRange]) -> AsyncIterator[str]:
        """Free addresses, the upper part of each range first."""
        for found in ranges:
            for _ in range(_TRIES):
                number = random.randrange(min(found.lower, found.end - 1), found.end)  # noqa: S311 - no secret
                address = str(found.prefix[number])
                if number >= found.first and not await self.is_taken(tenant, address):
                    yield address
        for found in ranges:
            taken = await self._taken(tenant, found.prefix)
            last = min(found.end, len(taken))
            for start, end in ((found.lower, last), (found.first, min(found.lower, last))):
                number = taken.find(0, start, end)
                while number >= 0:
                    yield str(found.prefix[number])
                    number = taken.find(0, number + 1, end)

    async def _taken(self, tenant: TenantName, prefix: Prefixes) -> bytearray:
        """A byte for each address of the beginning of a range: whether it is claimed. Read in pages, with pauses."""
        taken, first = bytearray(min(prefix.num_addresses, _SEARCHED)), int(prefix.network_address)
        after: Key | None = None
        while True:
            page = await self.store.list(Prefix(ADDRESSES.resource, tenant), limit=_PAGE, after=after)
            for entry in page.entries:
                address = ipaddress.ip_address(entry.key.name)
                if address in prefix and int(address) - first < len(taken):
                    taken[int(address) - first] = 1
            after = page.after
            if after is None:
                return taken
            await asyncio.sleep(0)


def _is_ready(raw: Raw) -> bool:
    conditions = (raw.get("status") or {}).get("conditions") or ()
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    return ready and not raw["metadata"].get("deletionTimestamp")


@dataclass(frozen=True, slots=True)
class ServiceRangeRules:
    """A further ServiceCIDR is of a family that the tenant's services have, apart from its networks and from what is no
    service's; and there are not too many.
    """

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 422."""
        if not context.concerns(CIDRS.resource, "create") or context.obj is None:
            return
        ranges = ServiceRanges(self.store)
        page = await self.store.list(Prefix(CIDRS.resource, context.tenant), limit=LIMIT)
        if len(page.entries) >= LIMIT:
            raise forbidden(CIDRS, context.name, f"a tenant may have {LIMIT} ServiceCIDRs")
        families = {found.family for found in await ranges.of(context.tenant) if found.check is None}
        networks = (await self.store.list(Prefix(NETWORKS.resource, context.tenant))).entries
        problems: list[FieldError] = []
        for number, text in enumerate(context.obj["spec"]["cidrs"]):
            prefix, at = ipaddress.ip_network(text), (Field("spec") / "cidrs")[number]
            if (IPV4 if prefix.version == 4 else IPV6) not in families:
                problems.append(at.invalid(text, f"IPv{prefix.version} is not configured for this tenant's services"))
            why = _collision(prefix, networks)
            problems += [at.invalid(text, why)] if why else []
        if problems:
            raise invalid(CIDRS, context.name, problems)


def _collision(prefix: Prefixes, networks: Sequence[Entry]) -> str:
    if prefix.num_addresses < 4:
        return "a range has four addresses at least"
    for reserved, name in _RESERVED:
        if prefix.version == reserved.version and prefix.overlaps(reserved):
            return f"must not overlap the {name} range {reserved}"
    for entry in networks:
        spec = decode_entry(entry).get("spec") or {}
        if not spec.get("router", DEFAULT_ROUTER):
            continue
        for text in spec.get("cidrs") or [spec.get("cidr") or "0.0.0.0/32"]:
            taken = ipaddress.ip_network(text)
            if taken.version == prefix.version and prefix.overlaps(taken):
                return f"must not overlap network {entry.key.namespace}/{entry.key.name} ({text})"
    return ""
