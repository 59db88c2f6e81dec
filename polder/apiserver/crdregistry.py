"""The custom kinds of each tenant, read from the store when they are asked for.

Nothing is kept per tenant: a definition is found by its key, and what was compiled from it is remembered by revision in a
bounded table. Equal schemas of different tenants are one object in memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import orjson

from polder.api.crd import CustomVersion, is_established, to_versions
from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.apiserver.catalog import Resource
from polder.base.ids import TenantName
from polder.store.protocol import Entry, Key, Prefix, Store

DEFINITIONS = kind_of(CustomResourceDefinition)
_REMEMBERED = 512


class CrdRegistry:
    """Knows which CustomResourceDefinitions each tenant has."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._compiled: OrderedDict[Key, tuple[int, tuple[Resource, ...]]] = OrderedDict()

    async def find(self, tenant: TenantName, group: str, version: str, plural: str) -> Resource | None:
        """One that is established and served, or None."""
        entry = await self._store.get(Key(DEFINITIONS.resource, tenant, "", f"{plural}.{group}"))
        if entry is None:
            return None
        return next((r for r in self.compile(entry) if r.kind.version == version), None)

    async def all(self, tenant: TenantName) -> Iterable[Resource]:
        """Every served version of every established one."""
        page = await self._store.list(Prefix(DEFINITIONS.resource, tenant))
        return [resource for entry in page.entries for resource in self.compile(entry)]

    def compile(self, entry: Entry) -> tuple[Resource, ...]:
        """What a stored definition makes; nothing if its names are not accepted."""
        known = self._compiled.get(entry.key)
        if known is not None and known[0] == entry.revision:
            self._compiled.move_to_end(entry.key)
            return known[1]
        raw: Raw = orjson.loads(entry.value)
        found = tuple(_resource(version, raw) for version in to_versions(raw)) if is_established(raw) else ()
        self._compiled[entry.key] = (entry.revision, found)
        if len(self._compiled) > _REMEMBERED:
            self._compiled.popitem(last=False)
        return found


def _resource(version: CustomVersion, raw: Raw) -> Resource:
    return Resource(version.kind, version, terminating=bool(raw["metadata"].get("deletionTimestamp")))
