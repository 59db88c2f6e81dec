"""The quota that the platform gives a tenant, ``Tenant.spec.quota``: charged as ResourceQuotas are, over all namespaces.

What a tenant uses stands in a row of its own, not in its Tenant, which many watch. The row has the limits too, and changes
with them in the commit that changes the Tenant; so from that moment on nothing gets past them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from polder.api.errors import forbidden
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.quota import exceeded, refusal
from polder.apiserver.quota_recount import TENANTS, Recount, limits_of, usage_key
from polder.apiserver.quota_tenant_usage import is_counted, row_total, total
from polder.apiserver.quota_usage import ZERO, Usage, added, amounts, difference, texts
from polder.apiserver.types import Role
from polder.base.ids import ROOT
from polder.store.protocol import Check, Delete, Entry, Key, Put, Store

AUTOMATIC: Final = frozenset(
    {
        "configmaps",
        "controllerrevisions.apps",
        "endpoints",
        "endpointslices.discovery.k8s.io",
        "events",
        "leases.coordination.k8s.io",
        "secrets",
        "serviceaccounts",
    }
)
"""What Polder's parts write for what a tenant has already: charged, but not refused to them."""


@dataclass(frozen=True, slots=True)
class TenantQuotas:
    """Charges the quota of a tenant. It comes last: what the others add to the commit is charged too."""

    store: Store
    recount: Recount

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Adds the usage's new row to ``context.along``. Raises ApiError 403, ConflictError for a race that was lost."""
        if context.tenant == ROOT:
            if context.resource.kind.resource == TENANTS and not context.subresource:
                await self._keep(context, value)
            return
        key = usage_key(context.tenant)
        entry = await self.store.get(key)
        if entry is None:
            if value is None or context.verb == "create":
                context.along.append(Check(key, 0))
            return
        delta = await self._delta(context, value, entry)
        if not delta:
            return
        row: Raw = orjson.loads(entry.value)
        if any(name not in row["used"] for name in delta):
            await self.recount.tenant(context.tenant)
            await self.accompany(context, value)
            return
        used, hard = amounts(row["used"]), amounts(row["hard"])
        over = exceeded(delta, used, hard)
        if over and _is_refusable(context, value):
            why = refusal(f"tenant {context.tenant}", over, delta, used, hard)
            raise forbidden(context.resource.kind, context.name, why)
        now = {**used, **{name: added(used[name], amount) for name, amount in delta.items()}}
        context.along.append(Put(key, orjson.dumps({"hard": row["hard"], "used": texts(now)}), entry.revision))

    async def _delta(self, context: AdmissionContext, value: bytes | None, entry: Entry) -> Usage:
        """What the commit as it is composed so far adds to the tenant's usage."""
        resource, hard = context.resource.kind.resource, list(orjson.loads(entry.value)["hard"])
        after: Usage = total(resource, value, hard) if value is not None else {}
        before = await self._standing(Key(resource, context.tenant, context.namespace, context.name), hard)
        for op in context.along:
            if op.key.tenant != context.tenant or not is_counted(op.key.resource):
                continue
            if isinstance(op, Put) and op.expect == 0:
                _add(after, total(op.key.resource, op.value, hard))
            elif isinstance(op, Delete):
                _add(before, await self._standing(op.key, hard))
        return difference(after, before)

    async def _standing(self, key: Key, hard: list[str]) -> Usage:
        """What the row under a key costs now. (Of a changed object the commit expects that it is as it was read.)"""
        entry = await self.recount.rows.get(key)
        return row_total(key.resource, entry.value if entry is not None else None, hard)

    async def _keep(self, context: AdmissionContext, value: bytes | None) -> None:
        """Lets the row follow the Tenant's quota."""
        key = usage_key(context.name)
        entry = await self.store.get(key)
        hard = limits_of(context.obj) if value is not None and context.verb != "delete" else limits_of(context.old)
        if value is None or not hard:
            if entry is not None:
                context.along.append(Delete(key, entry.revision))
            return
        if context.verb == "create":
            used: Usage = dict.fromkeys(hard, ZERO)
            for op in context.along:
                if isinstance(op, Put) and op.key.tenant == context.name:
                    _add(used, total(op.key.resource, op.value, list(hard)))
            known = texts(used)
        elif entry is None:
            known = {}
        else:
            row: Raw = orjson.loads(entry.value)
            if row["hard"] == hard:
                return
            known = {name: amount for name, amount in row["used"].items() if name in hard}
        row_now = orjson.dumps({"hard": hard, "used": known})
        context.along.append(Put(key, row_now, entry.revision if entry else 0))


def _add(usage: Usage, more: Usage) -> None:
    for name, amount in more.items():
        usage[name] = added(usage.get(name, ZERO), amount)


def _is_refusable(context: AdmissionContext, value: bytes | None) -> bool:
    """Whether a write may be refused: none that takes something away, none of a status, none that only follows."""
    if value is None or context.verb == "delete" or context.subresource == "status":
        return False
    if context.who.role not in {Role.COMPONENT, Role.NODE}:
        return True
    return context.verb == "create" and context.resource.kind.resource not in AUTOMATIC
