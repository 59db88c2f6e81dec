"""``Tenant.spec.members``, indexed: as what somebody is a member of a tenant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from polder.api.meta import Raw
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT, TenantName

RANK: Final = ("", "view", "edit", "admin")
"""Roles of members; each has the rights of those before it."""
_Name = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Membership:
    """Who is a member of ``tenant``: users and groups of the platform or of the tenant itself, and service accounts."""

    tenant: TenantName
    roles: Mapping[_Name, str]

    def __bool__(self) -> bool:
        return bool(self.roles)

    def role(self, who: Identity, home_uid: str = "") -> str:
        """admin, edit, view, or empty. The strongest counts where several are meant. ``home_uid`` is the UID of the tenant
        whose account ``who`` is: for another tenant's accounts it counts, and not the name.
        """
        if who.role is Role.SERVICE_ACCOUNT:
            if who.home != self.tenant and not home_uid:
                return ""
            return self.roles.get(("ServiceAccount", "" if who.home == self.tenant else home_uid, who.name), "")
        if who.home not in {ROOT, self.tenant}:
            return ""
        found = [self.roles.get(("User", "", who.name), "")]
        found += [self.roles.get(("Group", "", group), "") for group in who.groups]
        return max(found, key=RANK.index)


def membership(tenant: TenantName, members: Iterable[Raw]) -> Membership:
    """The index of a stored list."""
    roles: dict[_Name, str] = {}
    for member in members:
        key, role = _key(tenant, member), member.get("role", "")
        if key is not None and role in RANK:
            roles[key] = max(role, roles.get(key, ""), key=RANK.index)
    return Membership(tenant, roles)


def _key(tenant: TenantName, member: Raw) -> _Name | None:
    """Whom a member means; None where that cannot be said: it names another tenant without the UID that it had."""
    kind, name, home = member.get("kind", ""), member.get("name", ""), member.get("tenant", "")
    if kind != "ServiceAccount":
        return kind, "", name
    user = f"system:serviceaccount:{member.get('namespace', '')}:{name}"
    if home in ("", tenant):
        return kind, "", user
    return (kind, member["tenantUid"], user) if member.get("tenantUid") else None
