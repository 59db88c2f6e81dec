"""Counting anew what a quota's objects use: when a quota is new or limits other things, and to find what drifted.

A count is taken at one revision and written only if the row is still as it was read before that. Writers never commit a
charge past a row that is not settled, so nothing is missed or counted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import orjson

from polder.api.errors import conflict
from polder.api.kinds import built_in, kind_of
from polder.api.meta import Raw
from polder.api.polder import Tenant
from polder.apiserver.objects import decode_entry, encode, terms
from polder.apiserver.projection import Projected
from polder.apiserver.quota_scopes import in_scope
from polder.apiserver.quota_tenant_usage import is_counted, row_total
from polder.apiserver.quota_usage import (
    CLAIMS,
    PODS,
    SERVICES,
    ZERO,
    Usage,
    added,
    amounts,
    concerns,
    texts,
    usage,
)
from polder.base.ids import ROOT
from polder.store.protocol import Check, CompactedError, ConflictError, Delete, Entry, Key, Prefix, Put, Store

QUOTA: Final = built_in("v1", "resourcequotas")
QUOTAS: Final = QUOTA.resource
TENANTS: Final = kind_of(Tenant).resource
USAGES: Final = "tenant-usages"
"""The store's resource of what each tenant uses; not of the API."""
ATTEMPTS: Final = 64
PAGE: Final = 200
_KNOWN: Final = (PODS, SERVICES, CLAIMS, "configmaps", "resourcequotas", "replicationcontrollers", "secrets")


def limits_of(tenant: Raw | None) -> dict[str, str]:
    """What a Tenant is limited to."""
    return (((tenant or {}).get("spec") or {}).get("quota") or {}).get("hard") or {}


def usage_key(tenant: str) -> Key:
    """Where the row of a tenant's usage is; there is one if the tenant has a quota."""
    return Key(USAGES, tenant, "", "usage")


def is_settled(quota: Raw, resource: str = "") -> bool:
    """Whether a quota's status says what is limited, and how much of that is used (of one resource, or of all)."""
    spec, status = quota.get("spec") or {}, quota.get("status") or {}
    hard, used = spec.get("hard") or {}, status.get("used") or {}
    if amounts(hard) != amounts(status.get("hard")):
        return False
    names = [n for n in hard if (concerns(resource, n) if resource else _counts(n))]
    return all(name in used for name in names)


def _counts(name: str) -> bool:
    return bool(_resources([name]))


def _resources(names: Iterable[str]) -> set[str]:
    """The resources that names of a quota are about."""
    found: set[str] = set()
    for name in names:
        if name.startswith("count/"):
            found.add(name.removeprefix("count/"))
        else:
            found |= {resource for resource in _KNOWN if concerns(resource, name)}
    return found


@dataclass(frozen=True, slots=True)
class Recount:
    """Counts; what a tenant uses by its rows, which are less than what it sees."""

    store: Store

    @property
    def rows(self) -> Store:
        """The store without what every tenant has anyway."""
        return self.store.rows if isinstance(self.store, Projected) else self.store

    async def quota(self, key: Key) -> None:
        """Sets a ResourceQuota's status from what there is. Gone is well. Raises ApiError 409 if it never holds still."""
        for _ in range(ATTEMPTS):
            entry = await self.store.get(key)
            if entry is None:
                return
            quota = decode_entry(entry)
            hard = (quota.get("spec") or {}).get("hard") or {}
            try:
                used = await self._used(key, quota.get("spec") or {}, list(hard))
                value = encode({**quota, "status": {"hard": texts(amounts(hard)), "used": texts(used)}})
                if value != entry.value:
                    await self.store.commit([Put(key, value, entry.revision, terms(quota))])
                return
            except (ConflictError, CompactedError):
                continue
        raise conflict(QUOTA, key.name)

    async def _used(self, key: Key, spec: Raw, hard: list[str]) -> Usage:
        at = await self.store.revision()
        used: Usage = {name: ZERO for name in hard if _counts(name)}
        for resource in sorted(_resources(hard)):
            names = [name for name in hard if concerns(resource, name)]
            async with aclosing(self._entries(self.store, Prefix(resource, key.tenant, key.namespace), at)) as entries:
                async for entry in entries:
                    obj: Raw = orjson.loads(entry.value)
                    if in_scope(resource, obj, spec):
                        found = usage(resource, obj)
                        used |= {n: added(used[n], found[n]) for n in names if n in found}
        return used

    async def _entries(self, store: Store, prefix: Prefix, at: int) -> AsyncGenerator[Entry, None]:
        """What stood at a revision; others get their turn between pages. Raises CompactedError."""
        after: Key | None = None
        while True:
            page = await store.list(prefix, limit=PAGE, after=after, revision=at)
            for entry in page.entries:
                yield entry
            after = page.after
            if after is None:
                return
            await asyncio.sleep(0)

    async def tenant(self, tenant: str) -> None:
        """Sets the row of a tenant's usage from what there is and what its Tenant limits. Raises ApiError 409."""
        for _ in range(ATTEMPTS):
            try:
                if await self._count_tenant(tenant):
                    return
            except (ConflictError, CompactedError):
                continue
        raise conflict(QUOTA, tenant)

    async def _count_tenant(self, tenant: str) -> bool:
        """Whether the row is right now; where it was not about the Tenant's limits, it is to be counted once more, for from
        then on nobody writes past it. Raises ConflictError, CompactedError.
        """
        key, at = usage_key(tenant), Key(TENANTS, ROOT, "", tenant)
        owner, entry = await self.rows.get(at), await self.rows.get(key)
        hard = limits_of(orjson.loads(owner.value)) if owner is not None else {}
        if owner is None or (not hard and entry is None):
            return True
        same = Check(at, owner.revision)
        row: Raw = orjson.loads(entry.value) if entry is not None else {"hard": None, "used": {}}
        if not hard and entry is not None:
            await self.rows.commit([Delete(key, entry.revision), same])
            return True
        if row["hard"] != hard:
            known = {name: amount for name, amount in row["used"].items() if name in hard}
            new = Put(key, orjson.dumps({"hard": hard, "used": known}), entry.revision if entry is not None else 0)
            await self.rows.commit([new, same])
            return False
        used = await self._used_by(tenant, list(hard))
        value = orjson.dumps({"hard": hard, "used": texts(used)})
        if entry is not None and value != entry.value:
            await self.rows.commit([Put(key, value, entry.revision)])
        return True

    async def _used_by(self, tenant: str, hard: list[str]) -> Usage:
        at = await self.store.revision()
        used: Usage = dict.fromkeys(hard, ZERO)
        for resource in await self.rows.resources(tenant):
            if not is_counted(resource):
                continue
            async with aclosing(self._entries(self.rows, Prefix(resource, tenant), at)) as entries:
                async for entry in entries:
                    found = row_total(resource, entry.value, hard)
                    used |= {name: added(used[name], amount) for name, amount in found.items()}
        return used
