"""Pools of addresses: what of them is given away, and that they stay while something is."""

from __future__ import annotations

from polder.api.addresses import AddressPool, ExternalAddress
from polder.api.core import Service
from polder.api.kinds import kind_of
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.controllers.balancers import service_of
from polder.controllers.pools import capacity, is_balancer
from polder.controllers.reading import find, remove
from polder.controllers.resources import Resource, patch_metadata

POOLS = Resource.of(kind_of(AddressPool))
POOL_FINALIZER = "polder.dev/address-pool"


class PoolController:
    """Reconciles an AddressPool; key: its reference. ``claims`` has an index by pool."""

    def __init__(self, client: Client, claims: Informer[ExternalAddress]) -> None:
        self._client = client
        self._claims = claims

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        pool = await find(self._client, AddressPool, ref)
        if pool is None:
            return None
        finalizers = pool.metadata.finalizers or []
        given = len(self._claims.by_index("pool", ref.name))
        if pool.metadata.deletion_timestamp is not None and not given and POOL_FINALIZER in finalizers:
            listed = (await self._client.list(ExternalAddress, ROOT)).items
            if not any(claim.spec.pool == ref.name for claim in listed):
                kept = [name for name in finalizers if name != POOL_FINALIZER]
                await patch_metadata(self._client, POOLS, ref, pool, {"finalizers": kept or None})
            return None
        if pool.metadata.deletion_timestamp is None and POOL_FINALIZER not in finalizers:
            await patch_metadata(self._client, POOLS, ref, pool, {"finalizers": [*finalizers, POOL_FINALIZER]})
        if (pool.status.capacity, pool.status.allocated) != (str(capacity(pool)), given):
            status = {"capacity": str(capacity(pool)), "allocated": given}
            patch = {"metadata": {"uid": pool.metadata.uid}, "status": status}
            await self._client.patch(AddressPool, ref, patch, subresource="status")
        return None


class ClaimController:
    """Gives back addresses of Services that are gone or want none; key: the ExternalAddress's reference."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def reconcile(self, ref: Ref) -> float | None:
        """One pass. Raises ApiError."""
        claim = await find(self._client, ExternalAddress, ref)
        if claim is None:
            return None
        service = await find(self._client, Service, service_of(claim))
        if service is None or service.metadata.uid != claim.spec.service_uid or not is_balancer(service):
            await remove(self._client, ExternalAddress, ref, claim)
        return None
