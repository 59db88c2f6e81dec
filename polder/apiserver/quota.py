"""ResourceQuota: what an object uses is charged to the quotas of its namespace in the very commit that writes the object.

So usage is exact, under concurrency and with several servers: a quota's row is put only as it was read, and a commit that
loses that race is composed anew (``commits``). Also given back in the same commit is what an object used that goes, or
that ends. A row beside the quotas of each namespace that has some, the guard, changes with every change of what they
limit: a write that read the quotas as they were before cannot be committed.

Refusals are upstream's: see its resourcequota admission plugin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from polder.api.errors import forbidden
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry, encode, terms
from polder.apiserver.quota_pods import is_terminating
from polder.apiserver.quota_recount import QUOTAS, Recount, is_settled
from polder.apiserver.quota_scopes import in_scope
from polder.apiserver.quota_usage import (
    CLAIMS,
    EVENTS,
    PODS,
    SERVICES,
    ZERO,
    Usage,
    added,
    amounts,
    concerns,
    difference,
    missing,
    shown,
    texts,
    usage,
)
from polder.store.protocol import Check, Delete, Entry, Key, Prefix, Put, Store

GUARDS: Final = "quota-guards"
"""The store's resource of guards; not of the API."""
VARYING: Final = frozenset({PODS, SERVICES, CLAIMS})
"""Kinds whose objects use more or less of a quota as they change."""


def guard_key(tenant: str, namespace: str) -> Key:
    """Where the guard of a namespace's quotas is."""
    return Key(GUARDS, tenant, namespace, "guard")


def is_charged(context: AdmissionContext) -> bool:
    """Whether upstream refuses this kind of write for the sake of a quota."""
    if context.verb == "delete" or context.obj is None:
        return False
    if context.verb == "create":
        return not context.subresource
    match context.resource.kind.resource:
        case "pods" if context.subresource == "resize":
            return True
        case "pods" if not context.subresource:
            return is_terminating(context.obj) != is_terminating(context.old or {})
        case "services":
            return not context.subresource
        case "persistentvolumeclaims":
            return context.subresource in {"", "status"}
    return False


@dataclass(frozen=True, slots=True)
class Quotas:
    """Charges the quotas of a namespace."""

    store: Store
    recount: Recount

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Adds the quotas' new rows to ``context.along``. Raises ApiError 403, ConflictError for a race that was lost."""
        resource = context.resource.kind.resource
        if resource == "namespaces" and value is None:
            await self._forget(context)
        if not context.namespace or resource == EVENTS:
            return
        if resource == QUOTAS and await self._guard(context, value):
            return
        new, old = (context.obj if value is not None else None), context.old
        if new is not None and old is not None and not _varies(context):
            return
        if context.verb == "delete" and value is not None:
            return  # marked only
        key = guard_key(context.tenant, context.namespace)
        guard = await self.store.get(key)
        context.along.append(Check(key, guard.revision if guard else 0))
        if guard is None:
            return
        page = await self.store.list(Prefix(QUOTAS, context.tenant, context.namespace))
        for entry in page.entries:
            if entry.key.name != context.name or resource != QUOTAS:
                await self._charge(context, await self._settled(entry, resource), (new, old))

    async def _forget(self, context: AdmissionContext) -> None:
        """The guard goes with the namespace, if two quotas that went at once left it."""
        key = guard_key(context.tenant, context.name)
        guard = await self.store.get(key)
        if guard is not None:
            context.along.append(Delete(key, guard.revision))

    async def _guard(self, context: AdmissionContext, value: bytes | None) -> bool:
        """Changes the guard along with the quotas; whether that is all there is to do."""
        key = guard_key(context.tenant, context.namespace)
        if value is None:
            standing = await self.store.get(key)
            page = await self.store.list(Prefix(QUOTAS, context.tenant, context.namespace), limit=2)
            last = all(entry.key.name == context.name for entry in page.entries)
            if standing is not None and last:
                context.along.append(Delete(key, standing.revision))
                return True
            return False
        new, old = context.obj or {}, context.old or {}
        if context.verb == "create":
            guard = await self.store.get(key)
            if guard is not None:
                await self._charge_others(context)
            context.along.append(Put(key, b"{}", guard.revision if guard else 0))
            return True
        if new.get("spec") != old.get("spec"):
            context.along.append(Put(key, b"{}"))
        return True

    async def _charge_others(self, context: AdmissionContext) -> None:
        page = await self.store.list(Prefix(QUOTAS, context.tenant, context.namespace))
        for entry in page.entries:
            if entry.key.name != context.name:
                await self._charge(context, await self._settled(entry, QUOTAS), (context.obj, None))

    async def _settled(self, entry: Entry, resource: str) -> Entry | None:
        """The quota with its usage known, as far as the resource is concerned; None if it has gone."""
        if is_settled(decode_entry(entry), resource):
            return entry
        await self.recount.quota(entry.key)
        return await self.store.get(entry.key)

    async def _charge(
        self, context: AdmissionContext, entry: Entry | None, change: tuple[Raw | None, Raw | None]
    ) -> None:
        if entry is None:
            return
        quota, resource = decode_entry(entry), context.resource.kind.resource
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        hard = amounts(status.get("hard"))
        names = [name for name in hard if concerns(resource, name)]
        after, before = (_share(resource, obj, spec, names) for obj in change)
        refusable = is_charged(context)
        if names and refusable and resource == PODS and after is not None and (said := missing(change[0] or {}, names)):
            raise forbidden(context.resource.kind, context.name, f"failed quota: {entry.key.name}: {said}")
        delta = difference(after or {}, before or {})
        if not delta:
            return
        used = amounts(status.get("used"))
        if refusable:
            _check(context, entry.key.name, delta, used, hard)
        now = {**used, **{name: added(used.get(name, ZERO), amount) for name, amount in delta.items()}}
        value = encode({**quota, "status": {**status, "used": texts(now)}})
        context.along.append(Put(entry.key, value, entry.revision, terms(quota)))


def _varies(context: AdmissionContext) -> bool:
    """Whether a changed object uses anything else than before."""
    resource, new, old = context.resource.kind.resource, context.obj or {}, context.old or {}
    if resource not in VARYING:
        return False
    same_parts = all(new.get(part) == old.get(part) for part in ("spec", "status"))
    return not same_parts


def _share(resource: str, obj: Raw | None, spec: Raw, names: Sequence[str]) -> Usage | None:
    """What an object uses of a quota that limits these names; None if the quota is not about it."""
    if obj is None or not in_scope(resource, obj, spec):
        return None
    found = usage(resource, obj)
    return {name: found[name] for name in names if name in found}


def exceeded(delta: Usage, used: Usage, hard: Usage) -> list[str]:
    """The names of which more is asked for than is left, in order."""
    over = []
    for name, more in delta.items():
        limit = hard.get(name)
        if limit is not None and more.value > 0 and used.get(name, ZERO).value + more.value > limit.value:
            over.append(name)
    return sorted(over)


def refusal(quota: str, over: Sequence[str], delta: Usage, used: Usage, hard: Usage) -> str:
    """Why, in upstream's words."""
    asked, have, limit = ({n: part.get(n, ZERO) for n in over} for part in (delta, used, hard))
    return f"exceeded quota: {quota}, requested: {shown(asked)}, used: {shown(have)}, limited: {shown(limit)}"


def _check(context: AdmissionContext, quota: str, delta: Usage, used: Usage, hard: Usage) -> None:
    over = exceeded(delta, used, hard)
    if over:
        raise forbidden(context.resource.kind, context.name, refusal(quota, over, delta, used, hard))
