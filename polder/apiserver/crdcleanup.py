"""Follows CustomResourceDefinitions: removes the objects of those that end, gives names that became free to those that wait
for them, and ends the watches of kinds that changed.

Runs from the store's watch, over all tenants at once; a definition that ends waits only for its own objects' finalizers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import orjson

from polder.api.crd_status import CLEANUP, is_established, is_true, next_status, set_condition
from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.crdconvert import breathe
from polder.apiserver.crdnames import TakenNames, brief, definitions
from polder.apiserver.custom import DEFINITIONS
from polder.apiserver.delete_options import DeleteOptions
from polder.apiserver.deletes import By, Deleter
from polder.apiserver.following import PAUSE, answered
from polder.apiserver.objects import decode, decode_entry
from polder.apiserver.turns import Turns, turn_key
from polder.apiserver.types import Identity, Role
from polder.base.clock import stamp
from polder.base.ids import TenantName
from polder.store.protocol import Change, ChangeType, CompactedError, ConflictError, Entry, Key, Prefix, Put, StoreError

log = logging.getLogger(__name__)

SELF: Final = Identity("system:polder:apiserver", Role.COMPONENT)
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 5.0
_RESOURCE: Final = Resource(DEFINITIONS)
_PAGE: Final = 200
Step = Callable[[Key], Coroutine[None, None, bool]]
"""One try of a piece of work: whether it is done."""
EndWatches = Callable[[str, str], None]
"""(tenant, resource): ends the watches of a kind."""


@dataclass(slots=True)
class CrdCleanup:
    """One task for each definition that ends or waits for a name."""

    deleter: Deleter
    end_watches: EndWatches = field(default=lambda _tenant, _resource: None)
    _tasks: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    _again: set[Key] = field(default_factory=set)
    _seen: dict[Key, bytes] | None = None
    """What every definition served when it was last looked at; None before the first look."""

    async def run(self) -> None:
        """Watches until cancelled, or until the store closes."""
        try:
            while True:
                try:
                    await self._follow()
                    return
                except CompactedError:
                    log.warning("fell behind the definitions' changes; reading all of them again")
                except Exception:  # definitions must not stay half deleted for ever because of a defect
                    log.exception("could not follow the definitions; reading all of them again")
                    await asyncio.sleep(PAUSE)
        finally:
            for task in tuple(self._tasks.values()):
                task.cancel()

    async def _follow(self) -> None:
        store = self.deleter.writer.store
        served: dict[Key, bytes] = {}
        revision = await answered(store.revision)
        async for entry in definitions(store, Prefix(DEFINITIONS.resource), revision, patient=True):
            served[entry.key] = _served(entry.value)
            self._look(entry.key, entry.value)
        self._catch_up(served)
        changes = store.watch(Prefix(DEFINITIONS.resource), revision)
        try:
            async for batch in changes:
                for change in batch.changes:
                    self._changed(change)
        finally:
            await changes.aclose()

    def _catch_up(self, found: dict[Key, bytes]) -> None:
        """After a gap: what changed in it is seen by comparing."""
        before, self._seen = self._seen, found
        for key, served in (before or {}).items():
            if found.get(key) != served:
                self._serves_other(key)

    def _changed(self, change: Change) -> None:
        seen = self._seen if self._seen is not None else {}
        before = seen.pop(change.key, None)
        if change.type is not ChangeType.PUT or change.value is None:
            after = None
        else:
            after = seen[change.key] = _served(change.value)
            self._look(change.key, change.value)
        if before is not None and before != after:
            self._serves_other(change.key)

    def _serves_other(self, key: Key) -> None:
        self.end_watches(key.tenant, key.name)
        self._start(Key(key.resource, key.tenant, "", "*"), self._rename)

    def _look(self, key: Key, value: bytes) -> None:
        if b'"deletionTimestamp"' in value:
            meta = orjson.loads(value)["metadata"]
            if meta.get("deletionTimestamp") and CLEANUP in (meta.get("finalizers") or []):
                self._start(key, self._step)
        elif b'"NamesAccepted","status":"False"' in value:
            self._start(Key(key.resource, key.tenant, "", "*"), self._rename)

    def _start(self, key: Key, step: Step) -> None:
        """Begins a piece of work; what is under way is done once more, since it may have looked already."""
        if key in self._tasks:
            self._again.add(key)
            return
        self._tasks[key] = asyncio.ensure_future(self._repeat(key, step))

    async def _repeat(self, key: Key, step: Step) -> None:
        """Tries, and looks again until nothing is left to do."""
        wait = SHORTEST_WAIT
        while True:
            self._again.discard(key)
            try:
                if await step(key):
                    if key in self._again:
                        continue
                    del self._tasks[key]  # in the same step of the loop as the last look at _again
                    return
            except (StoreError, ApiError) as problem:
                log.warning("the definition %s of tenant %s waits: %s", key.name, key.tenant, problem)
            except Exception:  # a definition must not be left half deleted for ever because of a defect
                log.exception("the definition %s of tenant %s waits for a defect", key.name, key.tenant)
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    # --- ending -------------------------------------------------------------------------------------------------------

    async def _step(self, key: Key) -> bool:
        """Whether the definition has gone."""
        current = await self.deleter.writer.store.get(key)
        if current is None:
            return True
        old = decode(current.value, current.revision)
        if CLEANUP not in (old["metadata"].get("finalizers") or []):
            return True
        now = stamp(self.deleter.writer.clock.now())
        status: Raw = old.get("status") or {}
        if not is_established(old):
            end = ("Terminating", False, "NeverEstablished", "resource was never established")
        elif not is_true(old, "Terminating"):
            busy = ("Terminating", True, "InstanceDeletionInProgress", "CustomResource deletion is in progress")
            await self._write(key, current, old, {**old, "status": set_condition(status, busy, now)})
            return False
        elif await self._remaining(old, key.tenant):
            return False
        else:
            end = ("Terminating", False, "InstanceDeletionCompleted", "removed all instances")
        meta = {**old["metadata"], "finalizers": [f for f in old["metadata"]["finalizers"] if f != CLEANUP]}
        return await self._write(
            key, current, old, {**old, "metadata": meta, "status": set_condition(status, end, now)}
        )

    async def _write(self, key: Key, current: Entry, old: Raw, obj: Raw, *along: Put) -> bool:
        """Whether nobody was faster."""
        context = AdmissionContext(SELF, TenantName(key.tenant), "update", _RESOURCE, "", key.name, obj=obj, old=old)
        context.along += along
        try:
            await self.deleter.writer.replace(context, current)
        except ConflictError:
            return False
        return True

    async def _remaining(self, crd: Raw, tenant: str) -> bool:
        """Asks every object to go; whether any is still there after that."""
        spec, store = crd["spec"], self.deleter.writer.store
        names = spec["names"]
        scoped = spec["scope"] == "Namespaced"
        kind = Kind(spec["group"], spec["versions"][0]["name"], names["kind"], names["plural"], names["plural"], scoped)
        prefix, after = Prefix(kind.resource, tenant), None
        while True:
            page = await store.list(prefix, limit=_PAGE, after=after)
            for entry in page.entries:
                try:
                    await self.deleter.remove(By(SELF, TenantName(tenant)), Resource(kind), entry, DeleteOptions())
                except ApiError as refused:
                    if not refused.is_not_found:
                        raise
            after = page.after
            if after is None:
                break
        return bool((await store.list(prefix, limit=1)).entries)

    # --- names --------------------------------------------------------------------------------------------------------

    async def _rename(self, key: Key) -> bool:
        """Gives the tenant's waiting definitions the names that are free now, one after the other: each takes some."""
        while (written := await self._rename_one(key.tenant)) is not None:
            if not written:
                return False
        return True

    async def _rename_one(self, tenant: str) -> bool | None:
        """Whether nobody was faster; None where no definition's names change."""
        writer = self.deleter.writer
        async with writer.serial(_RESOURCE, tenant):
            turn = await Turns(writer.store).take(turn_key(DEFINITIONS.resource, tenant))
            taken, waiting = TakenNames(), []
            async for entry in definitions(writer.store, Prefix(DEFINITIONS.resource, tenant)):
                found = brief(entry.value)
                taken.add(found)
                if found.waits:
                    waiting.append(entry.key)
            done = 0
            for key in waiting:
                current = await writer.store.get(key)
                if current is None:
                    return False  # the turn is lost too
                done = await breathe(done + len(current.value))
                old = decode_entry(current)
                status = next_status(old, [taken.beside(old, own=True)], stamp(writer.clock.now()))
                if status != old.get("status"):
                    return await self._write(key, current, old, {**old, "status": status}, turn)
        return None


def _served(value: bytes) -> bytes:
    """A digest of what of a definition decides what is served."""
    found = orjson.loads(value)
    meta = found["metadata"]
    accepted = (found.get("status") or {}).get("acceptedNames")
    return sha256(orjson.dumps([meta.get("uid"), meta.get("generation"), accepted])).digest()
