"""Removes the objects of a custom kind whose definition is being deleted, then lets the definition go.

Runs from the store's watch, over all tenants at once; a definition waits only for its own objects' finalizers.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

import orjson

from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.crdregistry import DEFINITIONS
from polder.apiserver.delete_options import DeleteOptions
from polder.apiserver.deletes import CRD_CLEANUP, By, Deleter
from polder.apiserver.objects import decode
from polder.apiserver.types import Identity, Role
from polder.base.clock import stamp
from polder.base.ids import TenantName
from polder.store.protocol import ChangeType, CompactedError, ConflictError, Key, Prefix, StoreError

log = logging.getLogger(__name__)

SELF: Final = Identity("system:polder:apiserver", Role.COMPONENT)
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 5.0
_RESOURCE: Final = Resource(DEFINITIONS)


@dataclass(slots=True)
class CrdCleanup:
    """One task for each definition that ends."""

    deleter: Deleter
    _tasks: dict[Key, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Watches until cancelled."""
        try:
            while True:
                try:
                    await self._follow()
                    return
                except CompactedError:
                    log.warning("fell behind the definitions' changes; reading all of them again")
        finally:
            for task in tuple(self._tasks.values()):
                task.cancel()

    async def _follow(self) -> None:
        store = self.deleter.writer.store
        page = await store.list(Prefix(DEFINITIONS.resource))
        for entry in page.entries:
            self._look(entry.key, entry.value)
        changes = store.watch(Prefix(DEFINITIONS.resource), page.revision)
        try:
            async for batch in changes:
                for change in batch.changes:
                    if change.type is ChangeType.PUT:
                        self._look(change.key, change.value)
        finally:
            await changes.aclose()

    def _look(self, key: Key, value: bytes) -> None:
        if b'"deletionTimestamp"' not in value or key in self._tasks:
            return
        meta = orjson.loads(value)["metadata"]
        if meta.get("deletionTimestamp") and CRD_CLEANUP in (meta.get("finalizers") or []):
            task = asyncio.ensure_future(self._clean(key))
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def _clean(self, key: Key) -> None:
        """Deletes, and looks again until nothing is left."""
        wait = SHORTEST_WAIT
        while True:
            try:
                if await self._step(key):
                    return
            except (StoreError, ApiError) as problem:
                log.warning("the objects of %s cannot be removed yet: %s", key, problem)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def _step(self, key: Key) -> bool:
        """Whether the definition has gone."""
        store = self.deleter.writer.store
        current = await store.get(key)
        if current is None:
            return True
        old = decode(current.value, current.revision)
        if await self._remaining(old["spec"], key.tenant):
            return False
        meta = {**old["metadata"], "finalizers": [f for f in old["metadata"].get("finalizers", []) if f != CRD_CLEANUP]}
        obj = {**old, "metadata": meta, "status": _terminating(old, stamp(self.deleter.writer.clock.now()))}
        context = AdmissionContext(SELF, TenantName(key.tenant), "update", _RESOURCE, "", key.name, obj=obj, old=old)
        try:
            await self.deleter.writer.replace(context, current)
        except ConflictError:
            return False
        return True

    async def _remaining(self, spec: Raw, tenant: str) -> bool:
        """Asks every object to go; whether any is still there after that."""
        names = spec["names"]
        scoped = spec["scope"] == "Namespaced"
        kind = Kind(spec["group"], spec["versions"][0]["name"], names["kind"], names["plural"], names["plural"], scoped)
        page = await self.deleter.writer.store.list(Prefix(kind.resource, tenant))
        for entry in page.entries:
            try:
                await self.deleter.remove(By(SELF, TenantName(tenant)), Resource(kind), entry, DeleteOptions())
            except ApiError as refused:
                if not refused.is_not_found:
                    raise
        return bool((await self.deleter.writer.store.list(Prefix(kind.resource, tenant), limit=1)).entries)


def _terminating(crd: Raw, now: str) -> Raw:
    status = dict(crd.get("status") or {})
    others = [c for c in status.get("conditions") or [] if c.get("type") != "Terminating"]
    condition = {
        "type": "Terminating",
        "status": "False",
        "lastTransitionTime": now,
        "reason": "InstanceDeletionCompleted",
        "message": "removed all instances",
    }
    return {**status, "conditions": [*others, condition]}
