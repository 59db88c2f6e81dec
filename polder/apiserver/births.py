"""When and as what each tenant was made: what its built-in objects follow."""

from __future__ import annotations

from collections import OrderedDict

import orjson

from polder.apiserver.builtin import Birth
from polder.apiserver.tenancy import record_of, tenant_key
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Entry, Key, Store

_REMEMBERED = 1024
_FIRST = Key("namespaces", ROOT, "", "default")
"""As old as root itself."""


class Births:
    """Reads tenants from the store; only decoding is remembered, by revision."""

    def __init__(self, store: Store, root_service_cidr: str) -> None:
        self._store = store
        self._root_service_cidr = root_service_cidr
        self._read: OrderedDict[TenantName, tuple[int, Birth | None]] = OrderedDict()

    async def of(self, tenant: TenantName) -> Birth | None:
        """A tenant's birth; None where there is none of that name or it is being ended."""
        entry = await self._store.get(_FIRST if tenant == ROOT else tenant_key(tenant))
        if entry is None:
            return None
        known = self._read.get(tenant)
        if known is not None and known[0] == entry.revision:
            return known[1]
        birth = self._decode(tenant, entry)
        self._read[tenant] = (entry.revision, birth)
        if len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return birth

    def _decode(self, tenant: TenantName, entry: Entry) -> Birth | None:
        raw = orjson.loads(entry.value)
        meta = raw["metadata"]
        created = meta.get("creationTimestamp", "")
        if tenant == ROOT:
            return Birth(tenant, meta["uid"], created, (self._root_service_cidr,))
        record = record_of(entry.value)
        if record.phase != "Active":
            return None
        ranges = (raw.get("spec") or {}).get("serviceCidrs") or [record.service_cidr]
        return Birth(tenant, record.uid, created, tuple(ranges))
