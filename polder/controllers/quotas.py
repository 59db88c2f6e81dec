"""Quotas whose status does not say what their spec wants, and those of tenants: the API server counts, when it is asked.

It charges what is written from then on by itself. Every quota is looked at again from time to time, as upstream does,
since users may write the status too.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from polder.api.polder import Tenant, TenantUsage
from polder.api.policy import ResourceQuota
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.reading import find


def is_settled(quota: ResourceQuota) -> bool:
    """Whether the status is about the limits that the spec has."""
    hard, said, used = quota.spec.hard or {}, quota.status.hard or {}, quota.status.used or {}
    return {n: str(v) for n, v in hard.items()} == {n: str(v) for n, v in said.items()} and bool(used or not hard)


class QuotaController:
    """Has a quota counted; key: a ResourceQuota's reference, or a Tenant's."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """One count. Raises ApiError."""
        if ref.namespace:
            if await find(self._client, ResourceQuota, ref) is not None:
                await self._count(ref.tenant, {"namespace": ref.namespace, "name": ref.name})
            return None
        tenant = await find(self._client, Tenant, ref)
        if tenant is not None and tenant.spec.quota is not None:
            await self._count(TenantName(ref.name), {})
        return None

    async def _count(self, tenant: TenantName, what: dict[str, str]) -> None:
        query = f"?{urlencode(what)}" if what else ""
        await self._client.raw("POST", f"/tenants/{quote(tenant)}/polder/v1/recount{query}")


class UsageController:
    """Shows in a Tenant's status what it uses; key: the Tenant's reference."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """One look. Raises ApiError."""
        tenant = await find(self._client, Tenant, ref)
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            return None
        shown: Any = None
        if tenant.spec.quota is not None:
            shown = msgspec.json.decode(await self._client.raw("GET", f"/tenants/{quote(ref.name)}/polder/v1/usage"))
        if shown != msgspec.to_builtins(tenant.status.quota):
            known = tenant.status.quota or TenantUsage()
            gone = dict.fromkeys((*(known.hard or ()), *(known.used or ())))
            status = {"quota": shown and {part: {**gone, **shown[part]} for part in ("hard", "used")}}
            await self._client.patch(
                Tenant, ref, {"metadata": {"uid": tenant.metadata.uid}, "status": status}, subresource="status"
            )
        return None
