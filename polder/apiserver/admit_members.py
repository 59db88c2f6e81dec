"""Members of a Tenant that are service accounts of another: they mean the tenant that has the name when they are written."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.errors import FieldError, forbidden, invalid
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.polder import Tenant
from polder.api.validation.members import AT, LIMIT
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.hooks import Authorizer
from polder.apiserver.objects import decode_entry
from polder.apiserver.tenancy import tenant_key
from polder.apiserver.types import RequestInfo
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Store

TENANTS = kind_of(Tenant)
_Whose = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class MemberTenants:
    """Writes the tenant's UID beside its name.

    What stood there already keeps its UID, though the writer left it out: nobody meant a successor by sending an old list
    again. Who names a tenant that was not named there must be somebody who may read it; so nobody learns from the answer
    whether it exists.
    """

    store: Store
    authorizer: Authorizer

    async def admit(self, context: AdmissionContext) -> None:
        """Changes members. Raises ApiError 403, 422."""
        if not context.concerns(TENANTS.resource, "create", "update") or context.obj is None:
            return
        members = _members(context.obj)
        if len(members) > LIMIT:
            return  # validation refuses it
        standing: dict[_Whose, list[str]] = {}
        for member in _members(context.old or {}):
            standing.setdefault(_whose(member), []).append(member.get("tenantUid", ""))
        living: dict[str, str] = {}
        errors: list[FieldError] = []
        for number, member in enumerate(members):
            tenant, given = member.get("tenant", ""), member.get("tenantUid", "")
            if member.get("kind") != "ServiceAccount" or tenant in ("", context.name):
                continue
            before = standing.get(_whose(member), [])
            if before and (not given or given in before):
                member.update({"tenantUid": given or before[0]} if given or before[0] else {})
                continue
            if tenant not in living:
                living[tenant] = await self._uid(context, tenant)
            if not living[tenant]:
                errors.append((AT[number] / "tenant").not_found(tenant))
            elif given and given != living[tenant]:
                why = f"the tenant {tenant} has another UID; leave it out, and the server writes the UID"
                errors.append((AT[number] / "tenantUid").invalid(given, why))
            else:
                member["tenantUid"] = living[tenant]
        if errors:
            raise invalid(TENANTS, context.name, errors)

    async def _uid(self, context: AdmissionContext, tenant: str) -> str:
        """The UID of a tenant, empty if there is none. Raises ApiError 403."""
        path = f"/apis/{TENANTS.api_version}/{TENANTS.plural}/{tenant}"
        asked = RequestInfo(ROOT, "get", path, TENANTS.group, TENANTS.version, TENANTS.plural, name=tenant)
        if not (await self.authorizer.decide(context.who, asked)).allowed:
            why = f'User "{context.who.name}" may name in spec.members only tenants that it may get, and not "{tenant}"'
            raise forbidden(TENANTS, context.name, why)
        if tenant == ROOT:
            return ROOT
        entry = await self.store.get(tenant_key(TenantName(tenant)))
        return str(decode_entry(entry)["metadata"]["uid"]) if entry is not None else ""


def _members(tenant: Raw) -> list[Raw]:
    return (tenant.get("spec") or {}).get("members") or []


def _whose(member: Raw) -> _Whose:
    return member.get("tenant", ""), member.get("namespace", ""), member.get("name", "")
