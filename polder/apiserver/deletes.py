"""delete and deletecollection: preconditions, graceful deletion of pods, finalizers, propagation.

Dependents are the garbage collector's business; here an object only gets the finalizer that asks for it.
Source: apimachinery's registry store (rest.BeforeDelete, deletionFinalizersForGarbageCollection).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, conflict, method_not_allowed, not_found
from polder.api.meta import Raw
from polder.apiserver import objectmeta
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.admit import KEPT
from polder.apiserver.answers import json_answer, success
from polder.apiserver.audit import notes_of
from polder.apiserver.body import media_type
from polder.apiserver.catalog import Resource
from polder.apiserver.delete_options import DeleteOptions, read_options
from polder.apiserver.hooks import Call
from polder.apiserver.objects import decode, encode, terms
from polder.apiserver.paging import window_of
from polder.apiserver.reads import Reader, key_of, renderer_of
from polder.apiserver.render import ListMeta
from polder.apiserver.selection import prefix_of, selection_of
from polder.apiserver.types import Identity
from polder.apiserver.writes import ATTEMPTS, Writer
from polder.base.clock import stamp
from polder.base.ids import EVERY_TENANT, TenantName
from polder.store.protocol import ConflictError, Delete, Entry, Put

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
CRD_CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"
DEFAULT_GRACE: Final = 30
_ALWAYS: Final = {"customresourcedefinitions.apiextensions.k8s.io": CRD_CLEANUP}
"""Finalizers that every deletion of a kind gets."""
_ORPHANING: Final = frozenset({"jobs.batch", "replicationcontrollers"})
"""Kinds whose dependents stay unless a deletion says otherwise."""
_JOBS_WARNING: Final = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


@dataclass(frozen=True, slots=True)
class By:
    """Who deletes, in which tenant; what admission notes for the audit and warns of. ``evicts``: users' policies and webhooks
    were asked about the eviction, and are not asked about the deletion that follows.
    """

    who: Identity
    tenant: TenantName
    notes: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    evicts: bool = False

    @staticmethod
    def of(call: Call) -> By:
        """The caller."""
        return By(call.who, call.info.tenant, notes_of(call.request))


ANSWERED_WHOLE: Final = frozenset({
    "namespaces", "persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates", "resourcequotas",
    "serviceaccounts", "services", "csidrivers.storage.k8s.io", "csinodes.storage.k8s.io",
    "storageclasses.storage.k8s.io", "volumeattachments.storage.k8s.io", "volumeattributesclasses.storage.k8s.io",
    "deviceclasses.resource.k8s.io", "resourceclaims.resource.k8s.io", "resourceclaimtemplates.resource.k8s.io",
    "resourceslices.resource.k8s.io",
})  # fmt: skip
"""Kinds whose DELETE answers with the last state of an object that is gone, as upstream's storage of each says; clients
decode what their kind's definition promises. The others answer with a Status.
"""


@dataclass(slots=True)
class Deleter:
    """Removes objects, or marks them as being removed."""

    writer: Writer
    reader: Reader

    async def delete(self, call: Call, resource: Resource) -> web.StreamResponse:
        """DELETE of one object: its last state where it stays for now, else a Status. Raises ApiError."""
        renderer = renderer_of(call, resource)
        key = key_of(call, resource)
        options = await self._options(call)
        current = await self.writer.store.get(key)
        if current is None:
            raise not_found(resource.kind, key.name)
        by = By.of(call)
        entry, gone = await self.remove(by, resource, current, options)
        warnings = (_JOBS_WARNING,) if resource.kind.resource == "jobs.batch" and not options.policy else ()
        warnings = (*warnings, *by.warnings)
        if gone and resource.kind.resource not in ANSWERED_WHOLE:
            return json_answer(orjson.dumps(success(_details(resource, decode(entry.value, 0)))), warnings=warnings)
        body = renderer.one(await resource.served(entry), self.writer.clock.now())
        return json_answer(body, media=renderer.accepted.media, warnings=warnings)

    async def delete_collection(self, call: Call, resource: Resource) -> web.StreamResponse:
        """DELETE of a collection: the objects that were removed or marked. Raises ApiError."""
        renderer = renderer_of(call, resource)
        if call.info.tenant == EVERY_TENANT:
            raise method_not_allowed(resource.kind, "deletecollection over all tenants")
        options = await self._options(call)
        prefix = prefix_of(resource, call.info.tenant, call.info.namespace)
        selection = selection_of(call, resource, None)
        found = await self.reader.find(prefix, window_of(call, prefix), selection, renderer)
        removed = []
        refusals: list[ApiError] = []
        by = By.of(call)
        for entry in found.entries:
            if (entry.key.resource, entry.key.namespace, entry.key.name) in KEPT:
                continue  # upstream makes it anew at once
            try:
                gone, _ = await self.remove(by, resource, entry, options)
                removed.append(await resource.served(gone))
            except ApiError as refused:
                if not refused.is_not_found:
                    refusals.append(refused)
        if refusals:
            raise refusals[0]
        meta = ListMeta(await self.writer.store.revision(), found.token, found.remaining)
        body = renderer.many(removed, meta, self.writer.clock.now())
        return json_answer(body, media=renderer.accepted.media, warnings=tuple(dict.fromkeys(by.warnings)))

    async def _options(self, call: Call) -> DeleteOptions:
        return read_options(await self.writer.body(call), media_type(call.request), call.query)

    async def remove(self, by: By, resource: Resource, current: Entry, options: DeleteOptions) -> tuple[Entry, bool]:
        """Marks or removes; a lost race is run again, the preconditions with it. Tells whether the object is gone."""
        key = current.key
        found: Entry | None = current
        for _ in range(ATTEMPTS):
            if found is None:
                raise not_found(resource.kind, key.name)
            try:
                return await self._remove_once(by, resource, found, options)
            except ConflictError:
                found = await self.writer.store.get(key)
        raise conflict(resource.kind, key.name)

    async def _remove_once(
        self, by: By, resource: Resource, current: Entry, options: DeleteOptions
    ) -> tuple[Entry, bool]:
        """Raises ConflictError when the object changed meanwhile."""
        key = current.key
        if resource.custom is not None:  # what was listed may have another form than the row
            row = await self.writer.store.get(key)
            if row is None:
                raise not_found(resource.kind, key.name)
            current = row
        shown = await resource.served(current)
        old = decode(shown.value, shown.revision)
        _check_preconditions(resource, old, options)
        context = AdmissionContext(
            by.who, by.tenant, "delete", resource, key.namespace, key.name, "", None, old, bool(options.dry_run),
            by.warnings, options=options.shown(), audit=by.notes,
        )  # fmt: skip
        await (self.writer.chain.check_own(context) if by.evicts else self.writer.chain.look(context))
        stands = decode(current.value, current.revision) if resource.custom is None else await resource.stored(old)
        marked = self._marked(resource, stands, options)
        if marked is None:
            return current, False
        value = encode(marked)
        if objectmeta.is_done(marked):
            await self.writer.commits.commit(context, Delete(key, current.revision))
            return current, True
        revision = await self.writer.commits.commit(context, Put(key, value, current.revision, terms(marked)))
        return Entry(key, value, revision or current.revision), False

    def _marked(self, resource: Resource, old: Raw, options: DeleteOptions) -> Raw | None:
        """The object as it is while it is being deleted; None where nothing changes."""
        meta = dict(old["metadata"])
        finalizers = _finalizers(
            resource, meta.get("finalizers") or [], options.policy, bool(meta.get("deletionTimestamp"))
        )
        grace = _grace(resource, old, options.grace_period_seconds)
        deleting = meta.get("deletionTimestamp")
        before = meta.get("deletionGracePeriodSeconds") or 0
        if deleting:
            if (options.grace_period_seconds is None and before) or grace >= before:
                grace = before
                if finalizers == (meta.get("finalizers") or []) and not _is_ready(old, finalizers, grace):
                    return None
        elif meta.get("generation"):
            meta["generation"] += 1
        if not deleting:
            meta["deletionTimestamp"] = stamp(self.writer.clock.now() + timedelta(seconds=grace))
        elif grace != before:
            asked = datetime.fromisoformat(deleting) - timedelta(seconds=before)
            meta["deletionTimestamp"] = stamp(asked + timedelta(seconds=grace))
        meta["deletionGracePeriodSeconds"] = grace
        meta["finalizers"] = finalizers
        marked = {**old, "metadata": meta}
        if resource.kind.resource == "namespaces":
            marked["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
        return marked


def _is_ready(old: Raw, finalizers: list[str], grace: int) -> bool:
    meta = {**old["metadata"], "finalizers": finalizers, "deletionGracePeriodSeconds": grace}
    return objectmeta.is_done({**old, "metadata": meta})


def _check_preconditions(resource: Resource, old: Raw, options: DeleteOptions) -> None:
    wanted = options.preconditions
    if wanted is None:
        return
    meta = old["metadata"]
    if wanted.uid is not None and wanted.uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {wanted.uid}, UID in object meta: {meta['uid']}"
        raise conflict(resource.kind, meta["name"], why)
    said = wanted.resource_version
    if said is not None and said != meta["resourceVersion"]:
        why = (
            f"Precondition failed: ResourceVersion in precondition: {said}, ResourceVersion in object meta: "
            f"{meta['resourceVersion']}"
        )
        raise conflict(resource.kind, meta["name"], why)


def _finalizers(resource: Resource, present: list[str], policy: str, deleting: bool) -> list[str]:
    """What must be taken away before the object goes."""
    found = list(present)
    if not policy and resource.kind.resource in _ORPHANING and not {FOREGROUND, ORPHAN} & set(present):
        policy = "Orphan"
    if policy:
        found = [f for f in found if f not in {FOREGROUND, ORPHAN}]
        if policy != "Background":
            found.append(FOREGROUND if policy == "Foreground" else ORPHAN)
    always = _ALWAYS.get(resource.kind.resource)
    if always and always not in found and not deleting:
        found.append(always)
    return found


def _grace(resource: Resource, old: Raw, asked: int | None) -> int:
    """Seconds that a pod has to end: none where it is bound to no node or has ended."""
    if resource.kind.resource != "pods":
        return 0
    spec: dict[str, Any] = old.get("spec") or {}
    phase = (old.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
        return 0
    if asked is not None:
        return asked
    found = spec.get("terminationGracePeriodSeconds")
    return DEFAULT_GRACE if found is None else max(int(found), 0)


def _details(resource: Resource, obj: Raw) -> Raw:
    kind = resource.kind
    details: Raw = {"name": obj["metadata"]["name"], "kind": kind.plural, "uid": obj["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return details
