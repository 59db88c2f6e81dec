"""The APIServices of the group versions that a tenant's definitions serve: made, put right and removed as definitions change.

They are rows, marked as kept by the server; one of that name that somebody else wrote is left alone. One task follows the
definitions and the marked rows of all tenants, and looks at one tenant after the other.

Source: upstream's crdregistration and autoregister controllers (label, priorities).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from polder.api.errors import ApiError
from polder.api.kinds import built_in
from polder.api.meta import Raw
from polder.apiserver import objectmeta
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.builtin_apis import API_SERVICES, KEPT, is_kept, local_api
from polder.apiserver.catalog import Resource
from polder.apiserver.crdcleanup import SELF
from polder.apiserver.crdconvert import breathe
from polder.apiserver.custom import DEFINITIONS
from polder.apiserver.following import PAUSE, answered
from polder.apiserver.objects import decode_entry, encode, terms
from polder.apiserver.tenancy import record_of, tenant_key
from polder.apiserver.writes import Writer
from polder.base.clock import stamp
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import (
    Batch,
    ChangeType,
    CompactedError,
    ConflictError,
    Delete,
    Entry,
    Key,
    Prefix,
    Put,
    StoreError,
)

log = logging.getLogger(__name__)

_RESOURCE: Final = Resource(built_in("apiregistration.k8s.io/v1", "apiservices"))
_FOLLOWED: Final = (DEFINITIONS.resource, API_SERVICES)
_GATHER: Final = 0.02
"""Seconds in which changes gather: many definitions that are written at once are one look."""


class _Version(msgspec.Struct):
    name: str
    served: bool = False


class _Spec(msgspec.Struct):
    group: str
    versions: list[_Version]


class _Definition(msgspec.Struct):
    """What of a definition says what it serves."""

    spec: _Spec


@dataclass(slots=True)
class CrdApis:
    """Keeps them."""

    writer: Writer
    _waiting: dict[str, None] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until cancelled, or until the store closes."""
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(self._work())
            followers = [group.create_task(self._follow(resource)) for resource in _FOLLOWED]
            await asyncio.gather(*followers)
            worker.cancel()

    def _wants(self, tenant: str) -> None:
        self._waiting[tenant] = None
        self._news.set()

    async def _follow(self, resource: str) -> None:
        store, prefix = self.writer.store, Prefix(resource)
        while True:
            page = await answered(partial(store.list, prefix))
            for entry in page.entries:
                if resource == DEFINITIONS.resource or is_kept(entry.value):
                    self._wants(entry.key.tenant)
            changes = store.watch(prefix, page.revision)
            try:
                await self._take(resource, changes)
            except CompactedError:
                log.warning("fell behind the changes of %s; reading all of them again", resource)
                continue
            finally:
                await changes.aclose()
            return

    async def _take(self, resource: str, changes: AsyncGenerator[Batch, None]) -> None:
        async for batch in changes:
            for change in batch.changes:
                after = None if change.type is ChangeType.DELETE else change.value
                if resource == DEFINITIONS.resource or is_kept(after) or is_kept(change.previous):
                    self._wants(change.key.tenant)

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await asyncio.sleep(_GATHER)
            again = []
            while self._waiting:
                tenant = next(iter(self._waiting))
                del self._waiting[tenant]
                if not await self._settled(TenantName(tenant)):
                    again.append(tenant)
            if again:
                await asyncio.sleep(PAUSE)
                for tenant in again:
                    self._wants(tenant)

    async def _settled(self, tenant: TenantName) -> bool:
        """Whether a tenant's rows are as they should be, or cannot be."""
        try:
            return await self._settle(tenant)
        except ApiError as refused:
            log.info("an APIService of tenant %s is not kept: %s", tenant, refused)
            return True  # a quota, say: looked at again with the next change
        except StoreError as problem:
            log.warning("the APIServices of tenant %s wait: %s", tenant, problem)
        except Exception:  # one tenant's must not end all
            log.exception("the APIServices of tenant %s wait for a defect", tenant)
        return False

    async def _settle(self, tenant: TenantName) -> bool:
        """Raises ApiError, StoreError."""
        store = self.writer.store
        wanted = await self._wanted(tenant)
        page = await store.list(Prefix(API_SERVICES, tenant))
        there = {entry.key.name: entry for entry in page.entries}
        lives = await self._lives(tenant)
        try:
            for name, entry in there.items():
                if is_kept(entry.value):
                    await self._put_right(tenant, entry, wanted.get(name))
            for name in sorted(wanted.keys() - there.keys()) if lives else ():
                await self._make(tenant, name, wanted[name])
        except ConflictError:
            return False
        return True

    async def _wanted(self, tenant: TenantName) -> dict[str, Raw]:
        """By name, the spec of each."""
        found: dict[str, Raw] = {}
        page, done = await self.writer.store.list(Prefix(DEFINITIONS.resource, tenant)), 0
        for entry in page.entries:
            spec = msgspec.json.decode(entry.value, type=_Definition).spec
            for version in spec.versions:
                if version.served:
                    found[f"{version.name}.{spec.group}"] = local_api(spec.group, version.name)
            done = await breathe(done + len(entry.value))
        return found

    async def _lives(self, tenant: TenantName) -> bool:
        if tenant == ROOT:
            return True
        entry = await self.writer.store.get(tenant_key(tenant))
        return entry is not None and record_of(entry.value).phase == "Active"

    async def _make(self, tenant: TenantName, name: str, spec: Raw) -> None:
        obj = {**_frame(name, stamp(self.writer.clock.now())), "spec": spec}
        objectmeta.begin(_RESOURCE, obj, self.writer.clock.now())
        context = AdmissionContext(SELF, tenant, "create", _RESOURCE, "", name, obj=obj)
        put = Put(Key(API_SERVICES, tenant, "", name), encode(obj), 0, terms(obj))
        await self.writer.commits.commit(context, put)

    async def _put_right(self, tenant: TenantName, entry: Entry, spec: Raw | None) -> None:
        old, name = decode_entry(entry), entry.key.name
        if old["metadata"].get("finalizers"):
            return  # somebody holds it, who is to let go of it
        if spec is None:
            context = AdmissionContext(SELF, tenant, "delete", _RESOURCE, "", name, obj=None, old=old)
            await self.writer.commits.commit(context, Delete(entry.key, entry.revision))
        elif old.get("spec") != spec:
            new = {**old, "spec": spec}
            context = AdmissionContext(SELF, tenant, "update", _RESOURCE, "", name, obj=new, old=old)
            await self.writer.replace(context, entry)


def _frame(name: str, created: str) -> Raw:
    condition = {"type": "Available", "status": "True", "lastTransitionTime": created, "reason": "Local"}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name, "labels": {KEPT: "true"}},
        "status": {"conditions": [{**condition, "message": "Local APIServices are always available"}]},
    }
