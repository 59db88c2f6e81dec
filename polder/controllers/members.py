"""What a Tenant's status says of members that give nothing: accounts of another tenant that is gone."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from polder.api.meta import Condition
from polder.api.polder import Tenant, TenantMember
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.conditions import merged
from polder.controllers.reading import find

CONDITION = "MembersResolved"
SHOWN = 10
"""Members that a message names."""
UidOf = Callable[[str], str]
"""The UID of a tenant, empty if there is none, as a cache knows it."""


def elsewhere(tenant: Tenant) -> list[tuple[int, TenantMember]]:
    """The members that are accounts of other tenants, with their places in the list."""
    own = ("", tenant.metadata.name)
    return [
        (n, m) for n, m in enumerate(tenant.spec.members or ()) if m.kind == "ServiceAccount" and m.tenant not in own
    ]


def speaks_of_members(tenant: Tenant) -> bool:
    """Whether the status has, or should have, something to say."""
    return bool(elsewhere(tenant)) or any(c.type == CONDITION for c in tenant.status.conditions or ())


def verdict(tenant: Tenant, uid_of: UidOf) -> Condition | None:
    """What to say; None where no member is another tenant's."""
    members = elsewhere(tenant)
    if not members:
        return None
    lost = [
        number
        for number, member in members
        if not member.tenant_uid or member.tenant_uid != (ROOT if member.tenant == ROOT else uid_of(member.tenant))
    ]
    if not lost:
        return Condition(type=CONDITION, status="True", reason="AllFound", message="the tenants of all members stand")
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    which = ", ".join(f"spec.members[{number}]" for number in lost[:SHOWN])
    why = "the tenant that it was written for is gone; remove it, or write it with the tenantUid of the one meant"
    return Condition(
        type=CONDITION, status="False", reason="TenantGone", message=f"no right follows from {which}{more}: {why}"
    )


class MemberController:
    """Keeps the condition of Tenants; key: the Tenant's reference."""

    def __init__(self, client: Client, clock: Clock, uid_of: UidOf) -> None:
        self._client = client
        self._clock = clock
        self._uid_of = uid_of

    async def reconcile(self, ref: Ref) -> float | None:
        """One look. Raises ApiError."""
        tenant = await find(self._client, Tenant, ref)
        if tenant is None or tenant.metadata.deletion_timestamp is not None:
            return None
        have, wanted = tenant.status.conditions or [], verdict(tenant, self._uid_of)
        if wanted is None:
            kept = [c for c in have if c.type != CONDITION]
            said = kept if kept != have else None
        else:
            said = merged(have, [wanted], stamp(self._clock.now()))
        if said is not None:
            meta = {"uid": tenant.metadata.uid, "resourceVersion": tenant.metadata.resource_version}
            body = {"metadata": meta, "status": {"conditions": msgspec.to_builtins(said)}}
            await self._client.patch(Tenant, ref, body, subresource="status")
        return None
