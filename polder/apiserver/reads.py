"""get and list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from polder.api.errors import expired, method_not_allowed, not_acceptable, not_found, too_large_resource_version
from polder.apiserver.answers import json_answer
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call, Share
from polder.apiserver.negotiate import JSON, PROTOBUF, YAML, accepted
from polder.apiserver.paging import Window, parse_revision, window_of, write_token
from polder.apiserver.render import ListMeta, Renderer, renderer_for
from polder.apiserver.selection import Selection, prefix_of, selection_of
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT
from polder.store.protocol import CompactedError, Entry, FutureRevisionError, Key, Page, Prefix, Store

EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter."
)
_CHUNK = 500


def key_of(call: Call, resource: Resource) -> Key:
    """The key of the object that a request names. Raises ApiError 405 in the view over all tenants."""
    info = call.info
    if info.tenant == EVERY_TENANT:
        raise method_not_allowed(resource.kind, f"{info.verb} of one object over all tenants")
    namespace = info.namespace if resource.kind.namespaced else ""
    return Key(resource.kind.resource, info.tenant, namespace, info.name)


def renderer_of(call: Call, resource: Resource) -> Renderer:
    """How the caller wants to see the resource. Raises ApiError 406."""
    form = accepted(call.request.headers.get("Accept", ""))
    if form.media == PROTOBUF and resource.custom is not None:
        raise not_acceptable((JSON, YAML))
    return renderer_for(resource, call.info.tenant, form, call.query.get("includeObject", ""))


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a collection at one revision."""

    entries: Sequence[Entry]
    revision: int
    token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Reader:
    """Answers reads from the store."""

    store: Store
    clock: Clock
    share: Share | None = None

    async def get(self, call: Call, resource: Resource) -> web.StreamResponse:
        """One object. Raises ApiError 404; 504 if the caller has seen a later revision than there is."""
        renderer = renderer_of(call, resource)
        key = key_of(call, resource)
        asked = parse_revision(call.query.get("resourceVersion", ""))
        if asked:
            await self._check_reached(asked)
        entry = await self.store.get(key)
        if entry is None:
            raise not_found(resource.kind, call.info.name)
        return json_answer(renderer.one(entry, self.clock.now()), media=renderer.accepted.media)

    async def list(self, call: Call, resource: Resource) -> web.StreamResponse:
        """A collection or a page of it."""
        renderer = renderer_of(call, resource)
        prefix = prefix_of(resource, call.info.tenant, call.info.namespace)
        selection = selection_of(call, resource, self.share)
        window = window_of(call, prefix)
        if selection.share is not None and window.after is None:
            # Later pages show the state of the first: what arrived since must still end the watch that follows.
            selection.share.listed(selection.node, resource.kind.resource)
        found = await self.find(prefix, window, selection, renderer)
        meta = ListMeta(found.revision, found.token, found.remaining)
        return json_answer(renderer.many(found.entries, meta, self.clock.now()), media=renderer.accepted.media)

    async def find(self, prefix: Prefix, window: Window, selection: Selection, renderer: Renderer) -> Found:
        """The selected entries of a window. Raises ApiError 410, 504."""
        if window.at_least:
            await self._check_reached(window.at_least)
        try:
            if selection.is_everything:
                page = await self.store.list(prefix, limit=window.limit, after=window.after, revision=window.revision)
                return _whole(page, prefix)
            return await self._filtered(prefix, window, selection, renderer)
        except CompactedError as problem:
            raise expired(EXPIRED if window.after else f"too old resource version: {window.revision}") from problem
        except FutureRevisionError as problem:
            raise too_large_resource_version(window.revision or 0, await self.store.revision()) from problem

    async def _filtered(self, prefix: Prefix, window: Window, selection: Selection, renderer: Renderer) -> Found:
        """Pages through the range until the window is full. The count of the rest is unknown, as upstream says."""
        chosen: list[Entry] = []
        after, revision = window.after, window.revision
        chunk = max(window.limit, _CHUNK) if window.limit else 0
        while True:
            page = await self.store.list(prefix, limit=chunk, after=after, revision=revision)
            revision = page.revision
            for entry in page.entries:
                if not selection.matches(renderer.decode(entry.key, entry.value, entry.revision)):
                    continue
                if window.limit and len(chosen) == window.limit:
                    return Found(chosen, revision, write_token(chosen[-1].key, revision, prefix))
                chosen.append(entry)
            after = page.after
            if after is None:
                return Found(chosen, revision)

    async def _check_reached(self, asked: int) -> None:
        current = await self.store.revision()
        if asked > current:
            raise too_large_resource_version(asked, current)


def _whole(page: Page, prefix: Prefix) -> Found:
    """A page that needs no filter."""
    token = write_token(page.after, page.revision, prefix) if page.after is not None else ""
    return Found(page.entries, page.revision, token, page.remaining if token else None)
