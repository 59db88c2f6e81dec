"""create, update and patch: from a body to one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from aiohttp import web

from polder.api.errors import (
    ApiError,
    already_exists,
    bad_request,
    conflict,
    generate_name_exhausted,
    method_not_allowed,
    not_found,
    too_large,
    unsupported_media_type,
)
from polder.api.meta import Raw
from polder.api.patch import PatchType, apply_patch, patch_type
from polder.api.schemas import schema_of
from polder.apiserver import content, objectmeta
from polder.apiserver.admission import AdmissionContext, Chain, operation_options
from polder.apiserver.answers import json_answer
from polder.apiserver.body import media_type, parse_body, parse_object, read_body
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call
from polder.apiserver.objects import decode, encode, terms
from polder.apiserver.reads import key_of, renderer_of
from polder.apiserver.settings import ServerSettings
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT
from polder.store.protocol import ConflictError, Delete, Entry, Key, Put, Store

ATTEMPTS = 16
OBJECT_LIMIT = 3 * 512 * 1024
"""Bytes of an object as it is stored, as upstream's etcd allows: patches, each within the limit of a body, would let it
grow for ever. One that is longer already can still be made shorter.
"""
APPLY_PATCH = frozenset({"application/apply-patch+yaml", "application/apply-patch+cbor"})
_SERIAL = frozenset({"networks.polder.dev", "customresourcedefinitions.apiextensions.k8s.io"})
"""Kinds whose objects constrain each other: their writes go one at a time in a tenant."""

Change = Callable[[Raw], Raw]
"""From what stands to what is wanted; what stands stays as it is."""


def is_dry_run(call: Call) -> bool:
    """The query parameter ``dryRun``. Raises ApiError 400."""
    said = call.query.get("dryRun", "")
    if said not in {"", "All"}:
        raise bad_request(f'dryRun: Unsupported value: "{said}": supported values: "All"')
    return said == "All"


@dataclass(slots=True)
class Locks:
    """A lock per key while anybody holds or waits for it."""

    _held: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def of(self, name: str) -> asyncio.Lock:
        """The lock of one name."""
        found = self._held.get(name)
        if found is None:
            found = self._held[name] = asyncio.Lock()
        return found


@dataclass(slots=True)
class Writer:
    """Writes objects to the store."""

    store: Store
    clock: Clock
    chain: Chain
    settings: ServerSettings
    locks: Locks = field(default_factory=Locks)

    def serial(self, resource: Resource, tenant: str) -> AbstractAsyncContextManager[Any]:
        """Held while an object of a kind whose objects constrain each other is checked and written."""
        if resource.kind.resource in _SERIAL:
            return self.locks.of(f"{resource.kind.resource} {tenant}")
        return nullcontext()

    async def body(self, call: Call) -> bytes:
        """The request's body. Raises ApiError 408, 413."""
        return await read_body(call.request, self.settings.body_limit, self.settings.read_timeout)

    async def create(self, call: Call, resource: Resource) -> web.StreamResponse:
        """POST of a collection. Raises ApiError."""
        renderer = renderer_of(call, resource)
        if call.info.tenant == EVERY_TENANT:
            raise method_not_allowed(resource.kind, "create over all tenants")
        obj = parse_object(await self.body(call), media_type(call.request))
        if resource.kind.namespaced and not call.info.namespace:
            raise method_not_allowed(resource.kind, "create without a namespace in the path")
        objectmeta.check_kind(resource, obj)
        objectmeta.check_place(resource, objectmeta.check_metadata(obj), call.info.namespace)
        taken = content.take(resource, obj, content.field_validation(call.query.get("fieldValidation", "")))
        objectmeta.begin(resource, taken.obj, self.clock.now())
        entry, warnings = await self._create_named(call, resource, taken)
        body = renderer.one(entry, self.clock.now())
        return json_answer(body, 201, media=renderer.accepted.media, warnings=warnings)

    async def _create_named(
        self, call: Call, resource: Resource, taken: content.Content
    ) -> tuple[Entry, tuple[str, ...]]:
        """Commits under the given name, or tries generated ones."""
        meta = taken.obj["metadata"]
        if meta.get("name"):
            return await self.insert(call, resource, taken)
        for _ in range(ATTEMPTS):
            named = {**taken.obj, "metadata": {**meta, "name": objectmeta.generate_name(meta["generateName"])}}
            try:
                return await self.insert(call, resource, content.Content(named, taken.warnings))
            except ApiError as refused:
                if not refused.is_already_exists:
                    raise
        raise generate_name_exhausted(resource.kind, meta["generateName"])

    async def insert(self, call: Call, resource: Resource, taken: content.Content) -> tuple[Entry, tuple[str, ...]]:
        """Admits and commits a new, named object. Raises ApiError."""
        obj, info = taken.obj, call.info
        name = obj["metadata"]["name"]
        namespace = info.namespace if resource.kind.namespaced else ""
        key = Key(resource.kind.resource, info.tenant, namespace, name)
        context = AdmissionContext(
            call.who, info.tenant, "create", resource, namespace, name, "", obj, None, is_dry_run(call),
            list(taken.warnings), options=operation_options("CreateOptions", call.query),
        )  # fmt: skip
        async with self.serial(resource, info.tenant):
            await self._admit(context)
            value = _stored(obj)
            standing = await self.store.get(key)
            if standing is not None:
                raise already_exists(resource.kind, name)
            if context.dry_run:
                return Entry(key, value, 0), tuple(context.warnings)
            await self.chain.accompany(context, value)
            try:
                revision = await self.store.commit([Put(key, value, 0, terms(obj)), *context.along])
            except ConflictError as taken_key:
                if taken_key.key == key:
                    raise already_exists(resource.kind, name) from taken_key
                other = f"{taken_key.key.resource} {taken_key.key.name}"
                raise conflict(resource.kind, name, f"{other}, which is made along with it, is there") from taken_key
        return Entry(key, value, revision), tuple(context.warnings)

    async def _admit(self, context: AdmissionContext) -> None:
        assert context.obj is not None
        content.complete(context.resource, context.obj)
        if context.verb == "create":
            content.begin_status(context.resource, context.obj)
        await self.chain.change(context)
        content.prepare(context)
        content.validate(context)
        await self.chain.check(context)

    async def update(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PUT of an object or of its status. Raises ApiError."""
        sent = parse_object(await self.body(call), media_type(call.request))
        objectmeta.check_kind(resource, sent)
        objectmeta.check_place(resource, objectmeta.check_metadata(sent), call.info.namespace)
        return await self.change(call, resource, lambda _: sent, retry=not sent["metadata"].get("resourceVersion"))

    async def patch(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PATCH by one of three media types. Raises ApiError; 415 for server-side apply."""
        media = media_type(call.request)
        schema = None if resource.custom is not None else schema_of(resource.kind)
        if media in APPLY_PATCH:
            refused = unsupported_media_type([t.value for t in PatchType if schema or t is not PatchType.STRATEGIC])
            refused.message += "; server-side apply is not supported by this server: use kubectl apply without it"
            raise refused
        how = patch_type(media, schema)
        patch = parse_body(await self.body(call), "application/json")

        def patched(old: Raw) -> Raw:
            obj = apply_patch(how, old, patch, schema)
            objectmeta.check_kind(resource, obj)
            objectmeta.check_place(resource, objectmeta.check_metadata(obj), call.info.namespace)
            return obj

        return await self.change(call, resource, patched, retry=not _names_version(patch))

    async def change(self, call: Call, resource: Resource, wanted: Change, *, retry: bool) -> web.StreamResponse:
        """Replaces an object by what ``wanted`` makes of it; a lost race is run again where ``retry`` allows."""
        renderer = renderer_of(call, resource)
        key = key_of(call, resource)
        async with self.serial(resource, call.info.tenant):
            try:
                entry, warnings = await self._change_once(call, resource, key, wanted)
            except ConflictError as lost:
                if not retry:
                    raise conflict(resource.kind, key.name) from lost
                entry, warnings = await self._change_again(call, resource, key, wanted)
        body = renderer.one(entry, self.clock.now())
        return json_answer(body, media=renderer.accepted.media, warnings=warnings)

    async def _change_again(
        self, call: Call, resource: Resource, key: Key, wanted: Change
    ) -> tuple[Entry, tuple[str, ...]]:
        """Those who lost a race queue, so that each of many loses to newcomers only."""
        async with self.locks.of(f"{key}"):
            for _ in range(ATTEMPTS):
                try:
                    return await self._change_once(call, resource, key, wanted)
                except ConflictError:
                    continue
        raise conflict(resource.kind, key.name)

    async def _change_once(
        self, call: Call, resource: Resource, key: Key, wanted: Change
    ) -> tuple[Entry, tuple[str, ...]]:
        """Raises ConflictError when somebody else was faster."""
        current = await self.store.get(key)
        if current is None:
            raise not_found(resource.kind, key.name)
        old = decode(current.value, current.revision)
        sent = wanted(content.shown(resource, decode(current.value, current.revision)))
        validation = content.field_validation(call.query.get("fieldValidation", ""))
        taken = content.take(resource, sent, validation)
        objectmeta.check_same(resource, taken.obj["metadata"], old, key.name)
        obj = self._merge(call, resource, taken.obj, old)
        context = AdmissionContext(
            call.who, call.info.tenant, "update", resource, key.namespace, key.name, call.info.subresource, obj, old,
            is_dry_run(call), list(taken.warnings), options=operation_options("UpdateOptions", call.query),
        )  # fmt: skip
        await self._admit(context)
        return await self.replace(context, current), tuple(context.warnings)

    def _merge(self, call: Call, resource: Resource, sent: Raw, old: Raw) -> Raw:
        """For the status subresource only the status counts, otherwise everything but it."""
        if call.info.subresource == "status":
            obj = {**old, "metadata": dict(old["metadata"])}
            obj.pop("status", None)
            return {**obj, "status": sent["status"]} if "status" in sent else obj
        objectmeta.carry_over(resource, sent, old)
        return sent

    async def replace(self, context: AdmissionContext, current: Entry) -> Entry:
        """Commits a changed object, or its removal when it only waited for this. Raises ConflictError."""
        assert context.obj is not None
        value = encode(context.obj)
        if len(value) > max(OBJECT_LIMIT, len(current.value)):
            raise _too_long(value)
        if value == current.value:
            return current
        if context.dry_run:
            return Entry(current.key, value, current.revision)
        if objectmeta.is_done(context.obj):
            await self.chain.accompany(context, None)
            revision = await self.store.commit([Delete(current.key, current.revision), *context.along])
            return Entry(current.key, value, revision)
        put = Put(current.key, value, current.revision, terms(context.obj))
        revision = await self.store.commit([put, *context.along])
        return Entry(current.key, value, revision)


def _stored(obj: Raw) -> bytes:
    """A new object's value. Raises ApiError 413."""
    value = encode(obj)
    if len(value) > OBJECT_LIMIT:
        raise _too_long(value)
    return value


def _too_long(value: bytes) -> ApiError:
    return too_large(f"limit of an object is {OBJECT_LIMIT} bytes, this would have {len(value)}")


def _names_version(patch: Any) -> bool:
    """Whether a patch insists on a resource version; then a lost race is the caller's."""
    if isinstance(patch, dict):
        meta = patch.get("metadata")
        return isinstance(meta, dict) and bool(meta.get("resourceVersion"))
    return isinstance(patch, list) and any(
        isinstance(op, dict) and op.get("path") == "/metadata/resourceVersion" for op in patch
    )
