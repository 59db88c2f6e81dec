"""Owners and dependents as the garbage collector needs them: rows by index, and how an owner reference stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from polder.api.kinds import BUILT_IN, STORED_FORM, Kind
from polder.api.meta import Raw
from polder.apiserver.catalog import CustomKinds
from polder.apiserver.objects import FOREGROUND, OWNER_TERM, decode_entry, is_leaving
from polder.base.ids import TenantName
from polder.store.protocol import Key, Store

_BY_KIND: Final = {(k.api_version, k.kind): k for k in BUILT_IN if k.stored}


class Standing(Enum):
    """How an owner that a reference names stands. What cannot be told counts as solid, as upstream: an owner of a kind
    that is not served may only be spelt wrongly, and nothing namespaced can own what is in no namespace.
    """

    SOLID = "solid"
    ABSENT = "absent"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Owners:
    """Looks at owners and dependents in the store."""

    store: Store
    custom: CustomKinds

    async def kind_at(self, key: Key) -> Kind | None:
        """The kind of a row in a version that its tenant's API serves; None if the API has none."""
        built_in = STORED_FORM.get(key.resource)
        if built_in is not None:
            return built_in
        _, _, group = key.resource.partition(".")
        return next((k for k in await self._custom(key.tenant, group) if k.qualified == key.resource), None)

    async def kind_named(self, tenant: str, api_version: str, kind: str) -> Kind | None:
        """The kind that a reference names; None if the tenant's API has none."""
        built_in = _BY_KIND.get((api_version, kind))
        if built_in is not None:
            return built_in
        group, _, _ = api_version.rpartition("/")
        found = await self._custom(tenant, group) if "." in group else ()
        return next((k for k in found if (k.api_version, k.kind) == (api_version, kind)), None)

    async def _custom(self, tenant: str, group: str) -> Iterable[Kind]:
        return [r.kind for r in await self.custom.all(TenantName(tenant)) if r.kind.group == group]

    async def owner_key(self, of: Key, owner: Raw) -> Key | None:
        """Where the owner of an object would be: in its tenant, and in its namespace if the owner's kind has one."""
        kind = await self.kind_named(of.tenant, owner.get("apiVersion") or "", owner.get("kind") or "")
        if kind is None or (kind.namespaced and not of.namespace):
            return None
        return Key(kind.resource, of.tenant, of.namespace if kind.namespaced else "", owner.get("name") or "")

    async def standing(self, of: Key, owner: Raw) -> Standing:
        """How one of an object's owners stands."""
        key = await self.owner_key(of, owner)
        if key is None:
            return Standing.SOLID
        entry = await self.store.get(key)
        if entry is None:
            return Standing.ABSENT
        meta = decode_entry(entry)["metadata"]
        if meta["uid"] != owner.get("uid"):
            return Standing.ABSENT
        going = meta.get("deletionTimestamp") and FOREGROUND in (meta.get("finalizers") or ())
        return Standing.WAITING if going else Standing.SOLID

    async def is_settled(self, of: Key, owners: Iterable[Raw]) -> bool:
        """Whether all owners of an object are there to stay."""
        for owner in owners:
            if await self.standing(of, owner) is not Standing.SOLID:
                return False
        return True

    async def dependents(self, tenant: str, namespace: str, uid: str) -> list[Key]:
        """The rows that name the object of that UID as an owner, and that it can own: what is in another tenant, or beside
        its own namespace (empty: it is in none), holds it up by no reference.
        """
        keys = await self.store.by_term(f"{OWNER_TERM}{uid}", tenant)
        return [key for key in keys if namespace in ("", key.namespace)]

    async def item(self, key: Key, meta: Raw | None = None) -> Raw | None:
        """A row as the garbage collector is told of it: how to reach it, and its owners. None if it is gone."""
        if meta is None:
            entry = await self.store.get(key)
            if entry is None:
                return None
            meta = decode_entry(entry)["metadata"]
        kind = await self.kind_at(key)
        if kind is None:
            return None
        return {
            "tenant": key.tenant,
            "group": kind.group,
            "version": kind.version,
            "plural": kind.plural,
            "kind": kind.kind,
            "namespaced": kind.namespaced,
            "namespace": key.namespace,
            "name": key.name,
            "uid": meta["uid"],
            "leaving": is_leaving(meta),
            "ownerReferences": [_reference(o) for o in meta.get("ownerReferences") or ()],
        }


def _reference(owner: Raw) -> Raw:
    names = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")
    return {name: owner[name] for name in names if owner.get(name) is not None}
