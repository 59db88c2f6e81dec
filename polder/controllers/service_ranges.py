"""ServiceCIDRs: ready when their finalizer stands, and gone when no Service has an address that only they give.

The API server gives no address of a range that is in deletion, whatever it read before; so what is found here stays found.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Sequence

from polder.api.addresses import CIDR_FINALIZER, IPAddress, ServiceCIDR, ServiceCIDRStatus
from polder.api.core import Service
from polder.api.kinds import kind_of
from polder.api.meta import Condition
from polder.base.clock import Clock, stamp
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import a_few, merged
from polder.controllers.reading import find
from polder.controllers.resources import Resource, patch_metadata

CIDRS = Resource.of(kind_of(ServiceCIDR))
OWN = "kubernetes"
"""What the tenant was given. It is back at once when it is deleted."""
RECHECK = 30.0
"""Seconds after which a range that waits is looked at, beside the changes of Services that wake it."""
_MANAGED = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io"
Networks = list[ipaddress.IPv4Network | ipaddress.IPv6Network]


def prefixes_of(found: ServiceCIDR) -> Networks:
    """Its prefixes."""
    return [ipaddress.ip_network(text) for text in found.spec.cidrs]


def is_ready(found: ServiceCIDR) -> bool:
    """Whether the condition says that addresses are given from it."""
    return any(c.type == "Ready" and c.status == "True" for c in found.status.conditions or ())


def is_settled(found: ServiceCIDR) -> bool:
    """Whether it needs no look."""
    meta = found.metadata
    return meta.deletion_timestamp is None and is_ready(found) and CIDR_FINALIZER in (meta.finalizers or ())


def only_here(going: ServiceCIDR, others: Iterable[ServiceCIDR], addresses: Iterable[str]) -> list[str]:
    """The addresses that no other range has."""
    own, rest = prefixes_of(going), [prefix for other in others for prefix in prefixes_of(other)]
    if all(any(_covers(prefix, mine) for prefix in rest) for mine in own):
        return []
    found = []
    for text in addresses:
        address = ipaddress.ip_address(text)
        if any(address in prefix for prefix in own) and not any(address in prefix for prefix in rest):
            found.append(text)
    return found


def _covers(outer: object, inner: object) -> bool:
    if isinstance(outer, ipaddress.IPv4Network) and isinstance(inner, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, ipaddress.IPv6Network) and isinstance(inner, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


class ServiceRangeController:
    """Reconciles a ServiceCIDR; key: its reference. ``services`` are a tenant's, as a cache knows them."""

    def __init__(self, client: Client, clock: Clock, services: Callable[[TenantName], Sequence[Service]]) -> None:
        self._client = client
        self._clock = clock
        self._services = services

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass; the seconds until the next look. Raises ApiError."""
        found = await find(self._client, ServiceCIDR, ref)
        if found is None:
            return None
        finalizers = found.metadata.finalizers or []
        if found.metadata.deletion_timestamp is not None:
            return await self._release(ref, found) if CIDR_FINALIZER in finalizers else None
        if CIDR_FINALIZER not in finalizers:
            await patch_metadata(self._client, CIDRS, ref, found, {"finalizers": [*finalizers, CIDR_FINALIZER]})
        ready = Condition(type="Ready", status="True", message="Kubernetes Service CIDR is ready")
        await self._say(ref, found, ready)
        return None

    async def _release(self, ref: Ref, found: ServiceCIDR) -> float | None:
        held = [] if ref.name == OWN else await self._held(ref, found)
        if held:
            said = (
                "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR: "
                f"{a_few(held)}"
            )
            await self._say(ref, found, Condition(type="Ready", status="False", reason="Terminating", message=said))
            return RECHECK
        kept = [name for name in found.metadata.finalizers or [] if name != CIDR_FINALIZER]
        await patch_metadata(self._client, CIDRS, ref, found, {"finalizers": kept or None})
        return None

    async def _held(self, ref: Ref, found: ServiceCIDR) -> list[str]:
        """The addresses that keep it: those of known Services at once, else what the server has."""
        listed = (await self._client.list(ServiceCIDR, ref.tenant)).items
        others = [o for o in listed if o.metadata.name != ref.name and o.metadata.deletion_timestamp is None]
        known = [ip for service in self._services(ref.tenant) for ip in service.spec.cluster_ips or () if ip != "None"]
        held = only_here(found, others, known)
        if held:
            return held
        claims = await self._client.list(IPAddress, ref.tenant, labels=_MANAGED)
        return only_here(found, others, [claim.metadata.name for claim in claims.items])

    async def _say(self, ref: Ref, found: ServiceCIDR, condition: Condition) -> None:
        said = merged(found.status.conditions, [condition], stamp(self._clock.now()))
        if said is not None:
            status = ServiceCIDRStatus(conditions=said)
            await self._client.patch(ServiceCIDR, ref, {"status": _whole(status)}, subresource="status")


def _whole(status: ServiceCIDRStatus) -> dict[str, object]:
    """Conditions with all that the API wants of them, also what equals a default."""
    return {
        "conditions": [
            {"type": c.type, "status": c.status, "reason": c.reason, "message": c.message,
             "lastTransitionTime": c.last_transition_time}
            for c in status.conditions or ()
        ]
    }  # fmt: skip
