"""Load balancers' addresses: each is claimed by creating an ExternalAddress in root, and given back with its Service.

Claims and pools are looked up in caches; what was written and is not in a cache yet is noted (``Ledger``), so that a second
look at a Service neither takes another address nor believes one that it just gave back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from polder.api.addresses import AddressPool, ExternalAddress, ExternalAddressSpec, external_name
from polder.api.core import LoadBalancerIngress, Service
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import Condition, ObjectMeta, ref_of
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.controllers.conditions import merged
from polder.controllers.pools import Wish, fitting, free, is_balancer, is_ours, wish_of
from polder.controllers.reading import find

CLAIMS = kind_of(ExternalAddress)
ASSIGNED = "polder.dev/AddressAssigned"
ANNOUNCED = "polder.dev/AddressAnnounced"
NOT_ANNOUNCED = "{}: no healthy node on which the tenant is has a ready endpoint of the Service"
RECHECK = 600.0
"""Seconds after which a Service that got nothing is looked at, beside the changes that wake it."""
WOKEN = 8
"""Services of each tenant that are looked at when an address becomes free: it is one, and they may be many."""


def service_of(claim: ExternalAddress) -> Ref:
    """The Service that has an address."""
    namespace, _, name = claim.spec.service.partition("/")
    return Ref(TenantName(claim.spec.tenant), namespace, name)


def is_wanting(service: Service) -> bool:
    """Whether a load balancer shows no address that it was given."""
    conditions = service.status.conditions or ()
    return is_balancer(service) and not any(c.type == ASSIGNED and c.status == "True" for c in conditions)


def a_few_of_each(services: Iterable[Service]) -> list[Ref]:
    """Some of each tenant's, so that one that wants many keeps nobody else from being looked at."""
    seen: Counter[str] = Counter()
    found = []
    for service in services:
        ref = ref_of(service)
        seen[ref.tenant] += 1
        if seen[ref.tenant] <= WOKEN:
            found.append(ref)
    return found


@dataclass(slots=True)
class Ledger:
    """The claims as the cache has them, with our own writes that it does not show yet."""

    claims: Informer[ExternalAddress]
    _made: dict[Ref, ExternalAddress] = field(default_factory=dict)
    _gone: dict[Ref, str] = field(default_factory=dict)

    def made(self, claim: ExternalAddress) -> None:
        """We created it."""
        self._made[ref_of(claim)] = claim

    def gone(self, claim: ExternalAddress) -> None:
        """We deleted it."""
        self._made.pop(ref_of(claim), None)
        self._gone[ref_of(claim)] = claim.metadata.uid

    def of(self, service: Ref) -> list[ExternalAddress]:
        """The addresses of a Service."""
        self._tidy()
        known = {ref_of(c): c for c in self.claims.by_index("service", service)}
        known |= {ref: claim for ref, claim in self._made.items() if service_of(claim) == service}
        return [claim for ref, claim in known.items() if self._gone.get(ref) != claim.metadata.uid]

    def is_taken(self, name: str) -> bool:
        """Whether an address is given away, or was when the cache was last heard of."""
        ref = Ref(ROOT, "", name)
        return ref in self._made or self.claims.get(ref) is not None

    def count(self, pool: str, tenant: str) -> int:
        """How many addresses of a pool a tenant has."""
        self._tidy()
        known = {ref_of(claim) for claim in self.claims.by_index("share", (pool, tenant))}
        known |= {ref for ref, c in self._made.items() if (c.spec.pool, c.spec.tenant) == (pool, tenant)}
        return len(known - self._gone.keys())

    def _tidy(self) -> None:
        for ref in [ref for ref in self._made if self.claims.get(ref) is not None]:
            del self._made[ref]
        for ref, uid in list(self._gone.items()):
            known = self.claims.get(ref)
            if known is None or known.metadata.uid != uid:
                del self._gone[ref]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a Service has got, and why it has not got more."""

    claims: list[ExternalAddress]
    reason: str = ""
    message: str = ""


class BalancerController:
    """Reconciles the outside addresses of a Service; key: its reference."""

    def __init__(
        self, client: Client, clock: Clock, ledger: Ledger, pools: Informer[AddressPool], events: Recorder
    ) -> None:
        self._client = client
        self._clock = clock
        self._ledger = ledger
        self._pools = pools
        self._events = events
        self._choosing = asyncio.Lock()

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass; the seconds until the next look. Raises ApiError."""
        service = await find(self._client, Service, ref)
        held = self._ledger.of(ref)
        if service is None or not is_balancer(service):
            await self._release(held)
            return None
        wish = wish_of(service)
        if not is_ours(wish, self._pools.values()):
            await self._release(held)
            return None
        kept = [claim for claim in held if _stays(claim, service, wish)]
        await self._release([claim for claim in held if claim not in kept])
        async with self._choosing:
            outcome = await self._complete(ref, service, wish, kept)
        await self._say(ref, service, outcome)
        return RECHECK if outcome.reason else None

    async def _release(self, claims: Sequence[ExternalAddress]) -> None:
        for claim in claims:
            try:
                await self._client.delete(ExternalAddress, ref_of(claim), uid=claim.metadata.uid)
            except ApiError as error:
                if not error.is_not_found:
                    raise
            self._ledger.gone(claim)

    async def _complete(self, ref: Ref, service: Service, wish: Wish, kept: list[ExternalAddress]) -> Outcome:
        """An address of each family; the first trouble is told, and with PreferDualStack only if there is no address."""
        found = list(kept)
        trouble = ("", "") if not wish.wrong else ("InvalidAddress", wish.wrong)
        for family in service.spec.ip_families or ["IPv4"]:
            if any((":" in c.spec.address) == (family == "IPv6") for c in found) or wish.wrong:
                continue
            got = await self._claim(ref, service, wish, family)
            if isinstance(got, ExternalAddress):
                found.append(got)
            elif not trouble[0]:
                trouble = got
        if found and service.spec.ip_family_policy == "PreferDualStack":
            trouble = ("", "")
        return Outcome(found, *trouble)

    async def _claim(self, ref: Ref, service: Service, wish: Wish, family: str) -> ExternalAddress | tuple[str, str]:
        """A new address, or why there is none: never a word about who has those that are taken."""
        pools = fitting(self._pools.values(), ref.tenant, wish, family)
        asked = next((a for a in wish.addresses if (":" in a) == (family == "IPv6")), "")
        if not pools:
            return "NoPool", f"no pool has {asked or f'an {family} address'} for this Service"
        reason = ("PoolExhausted", f"no {family} address is free in {_named(pools)}")
        for pool in pools:
            bound = pool.spec.per_tenant
            if bound and self._ledger.count(pool.metadata.name, ref.tenant) >= bound:
                reason = (
                    "TooManyAddresses",
                    f"the tenant has the {bound} addresses of pool {pool.metadata.name} that it may",
                )
                continue
            addresses = [asked] if asked else free(pool, family, service.metadata.uid, self._ledger.is_taken)
            for address in addresses:
                made = await self._create(ref, service, pool, address)
                if made is not None:
                    return made
            if asked:
                reason = ("AddressTaken", f"{asked} is given to another Service")
        return reason

    async def _create(self, ref: Ref, service: Service, pool: AddressPool, address: str) -> ExternalAddress | None:
        """The claim; None where somebody has the address."""
        claim = ExternalAddress(
            api_version=CLAIMS.api_version,
            kind=CLAIMS.kind,
            metadata=ObjectMeta(name=external_name(address)),
            spec=ExternalAddressSpec(
                address=address, pool=pool.metadata.name, tenant=ref.tenant,
                service=f"{ref.namespace}/{ref.name}", service_uid=service.metadata.uid,
            ),
        )  # fmt: skip
        try:
            made = await self._client.create(ROOT, claim)
        except ApiError as error:
            if not error.is_already_exists:
                raise
            return None
        self._ledger.made(made)
        return made

    async def _say(self, ref: Ref, service: Service, outcome: Outcome) -> None:
        """What the Service shows, if it does not show it yet; and an Event where something has changed."""
        order = service.spec.ip_families or ["IPv4"]
        claims = sorted(outcome.claims, key=lambda c: order.index("IPv6" if ":" in c.spec.address else "IPv4"))
        ingress = [LoadBalancerIngress(ip=claim.spec.address, ip_mode="VIP") for claim in claims]
        assigned = Condition(
            type=ASSIGNED, status="False" if outcome.reason else "True", reason=outcome.reason or "Assigned",
            message=outcome.message or ", ".join(point.ip for point in ingress),
        )  # fmt: skip
        silent = [claim.spec.address for claim in claims if not claim.status.node]
        answering = ", ".join(f"{claim.spec.address} on node {claim.status.node}" for claim in claims)
        announced = Condition(
            type=ANNOUNCED, status="False" if silent else "True", reason="NoNode" if silent else "Announced",
            message=NOT_ANNOUNCED.format(", ".join(silent)) if silent else answering,
        )  # fmt: skip
        said = merged(
            service.status.conditions, [assigned, announced] if ingress else [assigned], stamp(self._clock.now())
        )
        known = [(p.ip, p.hostname, p.ip_mode) for p in service.status.load_balancer.ingress or ()]
        changed = known != [(p.ip, p.hostname, p.ip_mode) for p in ingress]
        if said is None and not changed:
            return
        status = {"loadBalancer": {"ingress": msgspec.to_builtins(ingress) or None}}
        if said is not None:
            status["conditions"] = [whole_condition(c) for c in said]  # type: ignore[assignment]  # a JSON object
        patch = {"metadata": {"uid": service.metadata.uid}, "status": status}
        await self._client.patch(Service, ref, patch, subresource="status")
        if outcome.reason:
            self._events.event(service, "Warning", outcome.reason, outcome.message)
        elif changed:
            self._events.event(service, "Normal", "AddressAssigned", f"assigned {', '.join(p.ip for p in ingress)}")


def _stays(claim: ExternalAddress, service: Service, wish: Wish) -> bool:
    """Whether the Service keeps an address: it is its own, of a family that it has, and what it asks for."""
    family = "IPv6" if ":" in claim.spec.address else "IPv4"
    if claim.spec.service_uid != service.metadata.uid or family not in (service.spec.ip_families or ["IPv4"]):
        return False
    asked = next((a for a in wish.addresses if (":" in a) == (family == "IPv6")), "")
    return (not asked or asked == claim.spec.address) and wish.pool in ("", claim.spec.pool)


def _named(pools: Sequence[AddressPool]) -> str:
    return ", ".join(pool.metadata.name for pool in pools)


def whole_condition(found: Condition) -> dict[str, object]:
    """With all that the API wants of it."""
    return {
        "type": found.type, "status": found.status, "reason": found.reason, "message": found.message,
        "lastTransitionTime": found.last_transition_time,
    }  # fmt: skip
