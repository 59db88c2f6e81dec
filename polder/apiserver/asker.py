"""Who somebody is to one tenant: under which names its roles and bindings know them, and as what they are a member.

Identity is (tenant, user). A user of the platform who is let into a tenant keeps name and groups there, but nothing that
begins with ``system:``: such names mean somebody else in each tenant. Another tenant's service account has no name at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from polder.api.rbac import identity_keys
from polder.apiserver.tenancy import Tenants
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT, TenantName

SYSTEM: Final = "system:"
AUTHENTICATED: Final = "system:authenticated"


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks in a tenant. ``role`` is the member's: admin, edit, view or empty; ``keys`` are for RBAC."""

    who: Identity
    tenant: TenantName
    name: str
    groups: tuple[str, ...]
    keys: tuple[str, ...]
    role: str = ""


def local_names(who: Identity, tenant: str) -> tuple[str, tuple[str, ...]]:
    """The name and groups that somebody has in a tenant; the name is empty where it has none."""
    if who.home == tenant or who.role is Role.NONE:
        return who.name, who.groups
    if who.role is Role.SERVICE_ACCOUNT or who.home != ROOT or who.name.startswith(SYSTEM):
        return "", (AUTHENTICATED,)
    return who.name, (*(g for g in who.groups if not g.startswith(SYSTEM)), AUTHENTICATED)


@dataclass(frozen=True, slots=True)
class Members:
    """Reads ``Tenant.spec.members``."""

    tenants: Tenants

    async def role(self, who: Identity, tenant: str) -> str:
        """As what somebody is a member of a tenant: admin, edit, view; empty if not at all."""
        if tenant == ROOT or who.role not in {Role.USER, Role.SERVICE_ACCOUNT}:
            return ""
        record = await self.tenants.get(TenantName(tenant))
        if record is None or not record.members:
            return ""
        home = await self.tenants.get(who.home) if who.role is Role.SERVICE_ACCOUNT else None
        return record.members.role(who, home.uid if home is not None else "")

    async def asker(self, who: Identity, tenant: str) -> Asker:
        """Somebody in a tenant that it has entered. Whether one of the tenant's own is a member too, ``inside`` says."""
        name, groups = local_names(who, tenant)
        role = await self.role(who, tenant) if who.home != tenant else ""
        return Asker(who, TenantName(tenant), name, groups, identity_keys(name, groups), role)

    async def inside(self, who: Identity, tenant: str) -> Asker | None:
        """One of the tenant's own as the member that it is; None if it is none."""
        role = await self.role(who, tenant) if who.home == tenant else ""
        return replace(await self.asker(who, tenant), role=role) if role else None
