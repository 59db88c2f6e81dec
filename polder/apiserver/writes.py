"""create, update and patch: from a body to one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import orjson
from aiohttp import web

from polder.api.errors import (
    ApiError,
    already_exists,
    conflict,
    generate_name_exhausted,
    method_not_allowed,
    not_found,
    too_large,
)
from polder.api.meta import Raw
from polder.api.ownership import MANAGED
from polder.api.strategies import strategy_of
from polder.apiserver import content, managers, objectmeta
from polder.apiserver.admission import AdmissionContext, Chain, Subject
from polder.apiserver.answers import json_answer
from polder.apiserver.aside import Aside
from polder.apiserver.audit import notes_of
from polder.apiserver.body import media_type, read_body, read_sent
from polder.apiserver.catalog import Resource
from polder.apiserver.commits import Commits
from polder.apiserver.hooks import Authorizer, Call
from polder.apiserver.managers import Applier, Author
from polder.apiserver.objects import decode, encode, same, terms
from polder.apiserver.options import WriteOptions, write_options
from polder.apiserver.parts import PARTS
from polder.apiserver.reads import key_of, renderer_of
from polder.apiserver.settings import ServerSettings
from polder.apiserver.turns import SERIAL, TURNS
from polder.apiserver.types import Role
from polder.base.clock import Clock, stamp
from polder.base.ids import EVERY_TENANT
from polder.store.protocol import ConflictError, Delete, Entry, Key, Put, Store

ATTEMPTS = 16
OBJECT_LIMIT = 3 * 512 * 1024
"""Bytes of an object as it is stored, as upstream's etcd allows: patches, each within the limit of a body, would let it
grow for ever. One that is longer already can still be made shorter.
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a change wants. ``make`` gets what stands, in the form that the request speaks (None where nothing stands), leaves
    it as it is and tells what is wanted. ``retry`` runs a lost race again; ``creates`` makes what is missing; ``owns`` says
    that ``make`` sets managedFields itself; ``subject`` shows admission another object than the one that is written;
    ``odd`` tells what was odd about the body, given what ``make`` made.
    """

    make: Callable[[Raw | None], Awaitable[Raw]]
    options: WriteOptions
    retry: bool = True
    creates: bool = False
    owns: bool = False
    subject: Callable[[Raw, Raw], Subject] | None = None
    odd: Callable[[Raw], content.Odd] = lambda _: content.NOTHING_ODD


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
    authorizer: Authorizer
    locks: Locks = field(default_factory=Locks)
    aside: Aside = field(default_factory=Aside)
    commits: Commits = field(init=False)

    def __post_init__(self) -> None:
        """What it is given suffices to commit."""
        self.commits = Commits(self.store, self.chain)

    def serial(self, resource: Resource, tenant: str) -> AbstractAsyncContextManager[Any]:
        """Held while an object of a kind whose objects constrain each other is checked and written."""
        if resource.kind.resource in SERIAL:
            return self.locks.of(f"{resource.kind.resource} {tenant}")
        return nullcontext()

    async def body(self, call: Call) -> bytes:
        """The request's body. Raises ApiError 408, 413."""
        return await read_body(call.request, self.settings.body_limit, self.settings.read_timeout)

    def options(self, call: Call, kind: str, *, applies: bool = False) -> WriteOptions:
        """The options of a request that writes. Raises ApiError 400, 422."""
        return write_options(kind, call.query, call.request.headers.get("User-Agent", ""), applies=applies)

    def author(self, options: WriteOptions) -> Author:
        """Who writes now."""
        return Author(options.manager, stamp(self.clock.now()))

    def applier(self, call: Call, options: WriteOptions) -> Applier:
        """Who applies now."""
        return Applier(self.author(options), call.info.tenant, options.force, self.aside)

    async def create(self, call: Call, resource: Resource) -> web.StreamResponse:
        """POST of a collection. Raises ApiError."""
        renderer = renderer_of(call, resource)
        if call.info.tenant == EVERY_TENANT:
            raise method_not_allowed(resource.kind, "create over all tenants")
        body = read_sent(await self.body(call), media_type(call.request))
        obj = body.obj
        if resource.kind.namespaced and not call.info.namespace:
            raise method_not_allowed(resource.kind, "create without a namespace in the path")
        options = self.options(call, "CreateOptions")
        objectmeta.check_kind(resource, obj)
        objectmeta.check_place(resource, objectmeta.check_metadata(obj), call.info.namespace)
        sent = obj["metadata"].get(MANAGED)
        taken = await content.take(
            resource, obj, options.validation, content.Odd(body.repeated), (self.aside, call.info.tenant)
        )
        objectmeta.begin(resource, taken.obj, self.clock.now())
        entry, warnings = await self._create_named(call, resource, (taken, sent), options)
        shown = renderer.one(entry, self.clock.now())
        return json_answer(shown, 201, media=renderer.accepted.media, warnings=warnings)

    async def _create_named(
        self, call: Call, resource: Resource, new: tuple[content.Content, Any], options: WriteOptions
    ) -> tuple[Entry, tuple[str, ...]]:
        """Commits under the given name, or tries generated ones."""
        taken, sent = new
        meta = taken.obj["metadata"]
        if meta.get("name"):
            return await self._insert(call, resource, taken, options, sent=sent)
        for _ in range(ATTEMPTS):
            named = {**taken.obj, "metadata": {**meta, "name": objectmeta.generate_name(meta["generateName"])}}
            try:
                again = content.Content(named, taken.warnings)
                return await self._insert(call, resource, again, options, sent=sent)
            except ApiError as refused:
                if not refused.is_already_exists:
                    raise
        raise generate_name_exhausted(resource.kind, meta["generateName"])

    async def _insert(
        self, call: Call, resource: Resource, taken: content.Content, options: WriteOptions, *, sent: Any = None,
        owned: bool = False,
    ) -> tuple[Entry, tuple[str, ...]]:  # fmt: skip
        """Admits and commits a new, named object. ``sent`` are the client's managedFields; ``owned``: they are right as
        they are. Raises ApiError.
        """
        async with self.serial(resource, call.info.tenant):
            if resource.kind.resource not in SERIAL:
                return await self._insert_once(call, resource, taken, options, sent=sent, owned=owned)
            for _ in range(ATTEMPTS):
                again = content.Content(orjson.loads(orjson.dumps(taken.obj)), taken.warnings)
                try:
                    return await self._insert_once(call, resource, again, options, sent=sent, owned=owned)
                except ConflictError:
                    continue  # another server wrote what this must be checked against
        raise conflict(resource.kind, taken.obj["metadata"]["name"])

    async def _insert_once(
        self, call: Call, resource: Resource, taken: content.Content, options: WriteOptions, *, sent: Any, owned: bool
    ) -> tuple[Entry, tuple[str, ...]]:
        """Raises ConflictError where another server took a turn meanwhile (see ``turns``)."""
        obj, info = taken.obj, call.info
        name = obj["metadata"]["name"]
        namespace = info.namespace if resource.kind.namespaced else ""
        key = Key(resource.kind.resource, info.tenant, namespace, name)
        context = AdmissionContext(
            call.who, info.tenant, "create", resource, namespace, name, "", obj, None, options.dry_run,
            list(taken.warnings), options=options.raw("CreateOptions"), audit=notes_of(call.request),
        )  # fmt: skip
        await self._admit(context, None if owned else self.author(options), sent)
        assert context.obj is not None
        row = await resource.stored(context.obj)
        value = _stored(row, owned=owned)
        standing = await self.store.get(key)
        if standing is not None:
            raise already_exists(resource.kind, name)
        entry = await self._commit_new(context, key, value)
        return _shown(context, entry, row), tuple(context.warnings)

    async def _commit_new(self, context: AdmissionContext, key: Key, value: bytes) -> Entry:
        """Commits a new object with what accompanies it; what was given away to somebody faster is assigned anew."""
        assert context.obj is not None
        kind, beside = context.resource.kind, list(context.along)
        for _ in range(ATTEMPTS):
            try:
                revision = await self.commits.commit(context, Put(key, value, 0, terms(context.obj)))
            except ConflictError as lost:
                if lost.key == key:
                    raise already_exists(kind, key.name) from lost
                if lost.key.resource == TURNS:
                    raise
                if not await self.chain.lost(context, lost.key):
                    other = f"{lost.key.resource} {lost.key.name}"
                    raise conflict(kind, key.name, f"{other}, which is made along with it, is there") from lost
                context.along[:] = beside
                value = encode(await context.resource.stored(context.obj))
            else:
                return Entry(key, value, revision)
        raise conflict(kind, key.name)

    async def _admit(self, context: AdmissionContext, author: Author | None, sent: Any) -> None:
        """Completes, changes and checks; the author owns what it wrote itself, not what admission adds."""
        assert context.obj is not None
        content.complete(context.resource, context.obj)
        if author is not None:
            await managers.track(context, author, sent, self.aside)
        if context.verb == "create":
            content.begin_status(context.resource, context.obj)
        owners = context.obj["metadata"].get(MANAGED)
        await self.chain.change(context)
        managers.check_admitted(context, owners)
        content.prepare(context)
        await content.validate(context)
        await self.chain.check(context)

    async def update(self, call: Call, resource: Resource) -> web.StreamResponse:
        """PUT of an object or of its status. Raises ApiError."""
        body = read_sent(await self.body(call), media_type(call.request))
        sent, options = body.obj, self.options(call, "UpdateOptions")
        objectmeta.check_kind(resource, sent)
        objectmeta.check_place(resource, objectmeta.check_metadata(sent), call.info.namespace)
        named = sent["metadata"].get("resourceVersion")

        async def wanted(_: Raw | None) -> Raw:
            return sent

        creates = resource.custom is None and strategy_of(resource.kind).puts and not call.info.subresource
        wish = Wish(wanted, options, not named, creates, odd=lambda _: content.Odd(body.repeated))
        return await self.change(call, resource, wish)

    async def change(self, call: Call, resource: Resource, wish: Wish) -> web.StreamResponse:
        """Replaces an object by what is wished, and answers with it. Raises ApiError."""
        renderer = renderer_of(call, resource)
        entry, warnings, status = await self.changed(call, resource, wish)
        body = renderer.one(entry, self.clock.now())
        return json_answer(body, status, media=renderer.accepted.media, warnings=warnings)

    async def changed(self, call: Call, resource: Resource, wish: Wish) -> tuple[Entry, tuple[str, ...], int]:
        """Replaces an object by what is wished: what stands then, warnings, and the answer's code. A lost race is run again
        where the wish allows. Raises ApiError.
        """
        key = key_of(call, resource)
        status = 200
        async with self.serial(resource, call.info.tenant):
            try:
                found = await self._change_once(call, resource, key, wish)
            except ConflictError as lost:
                if not wish.retry and lost.key == key:
                    raise conflict(resource.kind, key.name) from lost
                found = await self._change_again(call, resource, key, wish)
        if found is None:
            found, status = await self._make_missing(call, resource, key, wish), 201
        return *found, status

    async def _change_again(self, call: Call, resource: Resource, key: Key, wish: Wish) -> _Done | None:
        """Those who lost a race queue, so that each of many loses to newcomers only."""
        async with self.locks.of(f"{key}"):
            for _ in range(ATTEMPTS):
                try:
                    return await self._change_once(call, resource, key, wish)
                except ConflictError:
                    continue
        raise conflict(resource.kind, key.name)

    async def _make_missing(self, call: Call, resource: Resource, key: Key, wish: Wish) -> _Done:
        """Creates what a change wanted and did not find; whoever does that may create too. Raises ApiError."""
        await self.authorizer.authorize(call.who, replace(call.info, verb="create"))
        obj = await wish.make(None)
        meta = objectmeta.check_metadata(obj)
        if meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
            raise conflict(resource.kind, key.name, why)
        objectmeta.check_name(meta, key.name)
        meta.pop("resourceVersion", None)
        sent = meta.get(MANAGED)
        taken = await content.take(
            resource, obj, wish.options.validation, wish.odd(obj), (self.aside, call.info.tenant)
        )
        objectmeta.begin(resource, taken.obj, self.clock.now())
        if wish.owns and sent:
            taken.obj["metadata"][MANAGED] = sent
        return await self._insert(call, resource, taken, wish.options, sent=sent, owned=wish.owns)

    async def _change_once(self, call: Call, resource: Resource, key: Key, wish: Wish) -> _Done | None:
        """None where there is nothing to change and the wish creates it. Raises ConflictError when somebody else was faster."""
        current = await self.store.get(key)
        if current is None:
            if wish.creates:
                return None
            raise not_found(resource.kind, key.name)
        shown = await resource.served(current)
        old = decode(shown.value, shown.revision)
        wanted = await wish.make(content.shown(resource, decode(shown.value, shown.revision)))
        sent = wanted["metadata"].get(MANAGED)
        taken = await content.take(
            resource, wanted, wish.options.validation, wish.odd(wanted), (self.aside, call.info.tenant)
        )
        objectmeta.check_same(resource, taken.obj["metadata"], old, key.name)
        obj = self._merge(call, resource, taken.obj, old)
        context = AdmissionContext(
            call.who, call.info.tenant, "update", resource, key.namespace, key.name, call.info.subresource, obj, old,
            wish.options.dry_run, list(taken.warnings), options=wish.options.raw("UpdateOptions"),
            audit=notes_of(call.request),
        )  # fmt: skip
        if wish.owns:
            _own(obj["metadata"], sent)
        if wish.subject is not None:
            context.subject = wish.subject(old, obj)
        await self._admit(context, None if wish.owns else self.author(wish.options), sent)
        return await self.replace(context, current), tuple(context.warnings)

    def _merge(self, call: Call, resource: Resource, sent: Raw, old: Raw) -> Raw:
        """For a subresource its part counts, and the metadata where the kind allows it; otherwise everything but the
        status.
        """
        part = PARTS.get((resource.kind.resource, call.info.subresource))
        if part is not None:
            meta = objectmeta.with_metadata(resource, sent, old) if part.metadata else dict(old["metadata"])
            return {**part.merge(sent, old, stamp(self.clock.now())), "metadata": meta}
        if call.info.subresource == "status":
            return objectmeta.with_status(resource, sent, old, by_node=call.who.role is Role.NODE)
        objectmeta.carry_over(resource, sent, old)
        return sent

    async def replace(self, context: AdmissionContext, current: Entry) -> Entry:
        """Commits a changed object, or its removal when it only waited for this. Raises ConflictError."""
        assert context.obj is not None
        if context.old is not None:
            managers.settle_times(context.obj, context.old)
        row = await context.resource.stored(context.obj)
        value = encode(row)
        if len(value) > max(OBJECT_LIMIT, len(current.value)):
            raise _too_long(value)
        if same(value, current.value):
            return _shown(context, current, row)
        op: Put | Delete = Put(current.key, value, current.revision, terms(context.obj))
        if objectmeta.is_done(context.obj):
            op = Delete(current.key, current.revision)
        revision = await self.commits.commit(context, op) or current.revision
        return _shown(context, Entry(current.key, value, revision), row)


_Done = tuple[Entry, tuple[str, ...]]
"""What was committed, and what to warn of."""


def _shown(context: AdmissionContext, entry: Entry, row: Raw) -> Entry:
    """A row that was written, in the form of the request."""
    assert context.obj is not None
    return entry if row is context.obj else replace(entry, value=encode(context.obj))


def _own(meta: Raw, entries: Any) -> None:
    """The managedFields that an apply decided."""
    meta.pop(MANAGED, None)
    if entries:
        meta[MANAGED] = entries


def _stored(obj: Raw, *, owned: bool) -> bytes:
    """A new object's value; one that is too long only for its managedFields goes without. Raises ApiError 413."""
    value = encode(obj)
    if len(value) > OBJECT_LIMIT and not owned and obj["metadata"].pop(MANAGED, None):
        value = encode(obj)
    if len(value) > OBJECT_LIMIT:
        raise _too_long(value)
    return value


def _too_long(value: bytes) -> ApiError:
    return too_large(f"limit of an object is {OBJECT_LIMIT} bytes, this would have {len(value)}")
