"""From the kind that an owner reference names to the resource that URLs name, per tenant."""

from __future__ import annotations

from collections import OrderedDict

from polder.api.errors import ApiError
from polder.api.kinds import BUILT_IN
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.client.client import Client
from polder.controllers.resources import Resource, serves

KEPT = 256
"""Group versions of tenants that are remembered."""
LIFETIME = 30.0
"""Seconds for which they are believed."""

_BUILT_IN = {(k.api_version, k.kind): Resource.of(k) for k in BUILT_IN}


class Mapper:
    """The table of kinds, and discovery for what is not in it."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: OrderedDict[tuple[TenantName, str], tuple[float, dict[str, Resource]]] = OrderedDict()

    async def find(self, tenant: TenantName, api_version: str, kind: str) -> Resource | None:
        """The resource; None if the tenant's API has no such kind. Raises ApiError, UnreachableError."""
        built_in = _BUILT_IN.get((api_version, kind))
        if built_in is not None:
            return built_in
        key, now = (tenant, api_version), self._clock.monotonic()
        known = self._known.get(key)
        if known is None or now - known[0] > LIFETIME:
            known = self._known[key] = (now, {r.kind: r for r in await self._discover(tenant, api_version)})
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known[1].get(kind)

    async def _discover(self, tenant: TenantName, api_version: str) -> list[Resource]:
        try:
            return await serves(self._client, tenant, api_version)
        except ApiError as error:
            if error.is_not_found:
                return []
            raise
