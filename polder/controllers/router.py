"""Every tenant has its router: made again if it is missing, and true to the tenant's service range."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ObjectMeta
from polder.api.polder import DEFAULT_ROUTER, SYSTEM_NAMESPACE, Router, RouterSpec, Tenant, service_cidrs_of
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find

ROUTERS = kind_of(Router)


class RouterController:
    """Reconciles a tenant's router; key: the Tenant's reference. ``further`` are the prefixes of a tenant's own ServiceCIDRs, as
    a cache knows them. Root's router is the API server's to make, but for those.
    """

    def __init__(self, client: Client, further: Callable[[TenantName], list[str]]) -> None:
        self._client = client
        self._further = further

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass."""
        name = TenantName(ref.name)
        at = Ref(name, SYSTEM_NAMESPACE, DEFAULT_ROUTER)
        router = await find(self._client, Router, at)
        further = self._further(name) or None
        if name == ROOT:
            wanted = msgspec.structs.replace(router.spec, further_service_cidrs=further) if router is not None else None
        else:
            wanted = await self._wanted(ref, further)
        if wanted is None:
            return None
        if router is None:
            await self._create(at, wanted)
        elif router.spec != wanted:
            spec = {
                "serviceCidr": wanted.service_cidr,
                "serviceCidrs": wanted.service_cidrs,
                "furtherServiceCidrs": further,
            }
            await self._client.patch(Router, at, {"metadata": {"uid": router.metadata.uid}, "spec": spec})
        return None

    async def _wanted(self, ref: Ref, further: list[str] | None) -> RouterSpec | None:
        """What the router of a tenant says; None for one that ends."""
        tenant = await find(self._client, Tenant, ref)
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            return None
        ranges = service_cidrs_of(tenant.spec)
        return RouterSpec(service_cidr=ranges[0], service_cidrs=ranges, further_service_cidrs=further)

    async def _create(self, at: Ref, spec: RouterSpec) -> None:
        router = Router(
            api_version=ROUTERS.api_version,
            kind=ROUTERS.kind,
            metadata=ObjectMeta(name=at.name, namespace=at.namespace),
            spec=spec,
        )
        try:
            await self._client.create(at.tenant, router)
        except ApiError as error:
            if not error.is_already_exists:
                raise
