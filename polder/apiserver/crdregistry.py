"""The custom kinds of each tenant, read from the store when they are asked for.

Nothing is kept per tenant: a definition is found by its key, and what was made of it is remembered by revision in a table that
is bounded in bytes, each tenant having its share. Equal schemas of different tenants are one object in memory.
"""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from polder.api.bytecache import ByteCache
from polder.api.crd import CustomVersion, to_versions
from polder.api.crd_status import is_established
from polder.api.meta import Raw
from polder.apiserver.catalog import Resource
from polder.apiserver.crdconvert import Converter, breathe
from polder.apiserver.custom import DEFINITIONS, Custom, Services
from polder.apiserver.workshop import Workshop
from polder.base.ids import TenantName
from polder.store.protocol import Entry, Key, Prefix, Store

_REMEMBERED = 32 * 1024 * 1024
"""Bytes of schemas' JSON that are kept with the kinds."""
_SHARE = 8 * 1024 * 1024


class CrdRegistry:
    """Knows which CustomResourceDefinitions each tenant has."""

    def __init__(self, store: Store, services: Services | None = None) -> None:
        self._store = store
        self._services = services or Services(Workshop(), Converter())
        self._made: ByteCache[Key, tuple[int, tuple[Resource, ...]]] = ByteCache(_REMEMBERED, _SHARE)

    async def find(self, tenant: TenantName, group: str, version: str, plural: str) -> Resource | None:
        """One that is established and served, or None."""
        entry = await self._store.get(Key(DEFINITIONS.resource, tenant, "", f"{plural}.{group}"))
        if entry is None:
            return None
        return next((r for r in self.compile(entry) if r.kind.version == version), None)

    async def versions(self, tenant: TenantName, group: str, plural: str) -> tuple[Resource, ...]:
        """Every served version of one kind."""
        entry = await self._store.get(Key(DEFINITIONS.resource, tenant, "", f"{plural}.{group}"))
        return () if entry is None else self.compile(entry)

    async def all(self, tenant: TenantName) -> Iterable[Resource]:
        """Every served version of every established one."""
        page = await self._store.list(Prefix(DEFINITIONS.resource, tenant))
        found: list[Resource] = []
        size = 0
        for entry in page.entries:
            held = self._made.get(entry.key)
            size = await breathe(size + (len(entry.value) if held is None else 0))
            found += self.compile(entry)
        return found

    def compile(self, entry: Entry) -> tuple[Resource, ...]:
        """What a stored definition makes; nothing if its names are not accepted."""
        known = self._made.get(entry.key)
        if known is not None and known[0] == entry.revision:
            return known[1]
        raw: Raw = orjson.loads(entry.value)
        versions = to_versions(raw, entry.key.tenant) if is_established(raw) else []
        found = tuple(self._resource(version, raw, entry) for version in versions)
        self._made.put(entry.key, (entry.revision, found), 2048 + len(entry.value), entry.key.tenant)
        return found

    def _resource(self, version: CustomVersion, raw: Raw, entry: Entry) -> Resource:
        custom = Custom(
            version.kind, version.text, version.columns, version.selectable, version.scale, version.warning,
            version.storage, version.webhook, version.owner, version.uniform, version.texts,
            TenantName(entry.key.tenant), entry.revision, self._services,
        )  # fmt: skip
        return Resource(version.kind, custom, terminating=bool(raw["metadata"].get("deletionTimestamp")))
