"""Every tenant has its router: made again if it is missing, and true to the tenant's service range."""

from __future__ import annotations

from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ObjectMeta
from polder.api.polder import DEFAULT_ROUTER, SYSTEM_NAMESPACE, Router, RouterSpec, Tenant, service_cidrs_of
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client

ROUTERS = kind_of(Router)


class RouterController:
    """Reconciles a tenant's router; key: the Tenant's reference. (Root's is the API server's own to make.)"""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass."""
        try:
            tenant = await self._client.get(Tenant, ref)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if tenant.metadata.deletion_timestamp is not None:
            return None
        name = TenantName(ref.name)
        ranges = service_cidrs_of(tenant.spec)
        wanted = RouterSpec(service_cidr=ranges[0], service_cidrs=ranges)
        at = Ref(name, SYSTEM_NAMESPACE, DEFAULT_ROUTER)
        try:
            router = await self._client.get(Router, at)
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._create(at, wanted)
            return None
        if router.spec != wanted:
            patch = {
                "metadata": {"uid": router.metadata.uid},
                "spec": {"serviceCidr": ranges[0], "serviceCidrs": ranges},
            }
            await self._client.patch(Router, at, patch)
        return None

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
