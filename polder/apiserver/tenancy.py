"""The living tenants, and which of them a request means.

Tenants are read from the store each time (a read costs microseconds), so that an answer given after a tenant was made
or removed never rests on what stood before; only decoding is remembered, by revision.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import orjson

from polder.api.errors import ApiError, forbidden, not_found
from polder.api.kinds import kind_of
from polder.api.polder import Tenant
from polder.apiserver.members import Membership, membership
from polder.apiserver.types import Connection, Identity, Role
from polder.base.ids import EVERY_TENANT, ROOT, TenantName, Uid
from polder.store.protocol import Key, Store

TENANT_KIND = kind_of(Tenant)
CACHE_SIZE = 4096
_PLATFORM = frozenset({Role.PLATFORM_ADMIN, Role.COMPONENT})


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant as identity needs it. ``phase`` is Active or Terminating. The lists are empty where the single prefix is all."""

    name: TenantName
    uid: Uid
    pod_cidr: str
    service_cidr: str
    phase: str = "Active"
    members: Membership | None = None
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


def tenant_key(name: TenantName) -> Key:
    """Where the Tenant object is stored."""
    return Key(TENANT_KIND.resource, ROOT, "", name)


def record_of(value: bytes) -> TenantRecord:
    """What a stored Tenant says."""
    raw = orjson.loads(value)
    meta, spec, known = raw["metadata"], raw.get("spec") or {}, Tenant().spec
    return TenantRecord(
        TenantName(meta["name"]),
        Uid(meta["uid"]),
        spec.get("podCidr") or known.pod_cidr,
        spec.get("serviceCidr") or known.service_cidr,
        "Terminating" if meta.get("deletionTimestamp") else "Active",
        membership(TenantName(meta["name"]), spec.get("members") or ()),
        tuple(spec.get("podCidrs") or ()),
        tuple(spec.get("serviceCidrs") or ()),
    )


class Tenants:
    """The living tenants. ``root`` is always there and is no object; its UID is its name."""

    def __init__(self, store: Store, root_pod_cidr: str, root_service_cidr: str) -> None:
        self._store = store
        self._decoded: OrderedDict[TenantName, tuple[int, TenantRecord]] = OrderedDict()
        self.root = TenantRecord(ROOT, Uid(ROOT), root_pod_cidr, root_service_cidr)

    async def get(self, name: TenantName) -> TenantRecord | None:
        """The tenant, None if there is none of that name now."""
        if name == ROOT:
            return self.root
        entry = await self._store.get(tenant_key(name))
        if entry is None:
            self._decoded.pop(name, None)
            return None
        known = self._decoded.get(name)
        if known is not None and known[0] == entry.revision:
            self._decoded.move_to_end(name)
            return known[1]
        record = record_of(entry.value)
        self._decoded[name] = (entry.revision, record)
        if len(self._decoded) > CACHE_SIZE:
            self._decoded.popitem(last=False)
        return record


class Entrance(Protocol):
    """Who reaches into which tenant."""

    async def enters(self, who: Identity, tenant: str) -> bool:
        """Whether somebody may enter a tenant, whether it exists or not."""
        ...


class Tenancy:
    """Which tenant a request means: where the connection entered, else the path, else the credential's home."""

    def __init__(self, tenants: Tenants, entrance: Entrance) -> None:
        self._tenants = tenants
        self._entrance = entrance

    async def resolve(self, who: Identity, conn: Connection, asked: TenantName | None) -> TenantName:
        """The tenant, which the caller may enter and which exists (or ``*``). Raises ApiError 403, 404.

        Nobody (``system:anonymous``) may stand before each: what is asked of one that does not exist is answered as by
        one that grants it nothing.
        """
        tenant = asked if asked is not None else conn.pin or who.home
        if (conn.pin is not None and tenant != conn.pin) or not await self._entrance.enters(who, tenant):
            raise closed(who, tenant)
        if tenant in {EVERY_TENANT, ROOT, who.home} or who.role is Role.NONE:
            return tenant
        if await self._tenants.get(tenant) is None:
            raise not_found(TENANT_KIND, tenant) if who.role in _PLATFORM else closed(who, tenant)
        return tenant

    async def phase(self, tenant: TenantName) -> str:
        """``Active``, ``Terminating``, or empty for a tenant that does not exist."""
        if tenant == EVERY_TENANT:
            return "Active"
        record = await self._tenants.get(tenant)
        return record.phase if record else ""


def closed(who: Identity, tenant: TenantName) -> ApiError:
    """403: the one answer for a tenant that the caller cannot enter, whether it exists or not."""
    return forbidden(TENANT_KIND, tenant, f'User "{who.name}" cannot enter this tenant')
