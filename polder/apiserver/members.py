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

    def role(self, who: Identity) -> str:
        """admin, edit, view, or empty. The strongest counts where several are meant."""
        if who.role is Role.SERVICE_ACCOUNT:
            return self.roles.get(("ServiceAccount", who.home, who.name), "")
        if who.home not in {ROOT, self.tenant}:
            return ""
        found = [self.roles.get(("User", "", who.name), "")]
        found += [self.roles.get(("Group", "", group), "") for group in who.groups]
        return max(found, key=RANK.index)


def membership(tenant: TenantName, members: Iterable[Raw]) -> Membership:
    """The index of a stored list."""
    roles: dict[_Name, str] = {}
    for member in members:
        kind, name, role = member.get("kind", ""), member.get("name", ""), member.get("role", "")
        key: _Name = (kind, "", name)
        if kind == "ServiceAccount":
            user = f"system:serviceaccount:{member.get('namespace', '')}:{name}"
            key = (kind, member.get("tenant") or tenant, user)
        if role in RANK:
            roles[key] = max(role, roles.get(key, ""), key=RANK.index)
    return Membership(tenant, roles)
