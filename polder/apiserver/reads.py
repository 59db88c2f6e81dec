"""get and list."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from aiohttp import web

from polder.api.errors import (
    ApiError,
    expired,
    method_not_allowed,
    not_acceptable,
    not_found,
    too_large_resource_version,
)
from polder.apiserver.answers import json_answer
from polder.apiserver.catalog import Resource
from polder.apiserver.hooks import Call, Share
from polder.apiserver.listing import Found, send_pieces
from polder.apiserver.negotiate import JSON, PROTOBUF, YAML, Form, accepted
from polder.apiserver.paging import PRESENT, Window, parse_revision, window_of, write_token
from polder.apiserver.render import ListMeta, Renderer, renderer_for
from polder.apiserver.selection import Selection, prefix_of, selection_of
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT
from polder.store.protocol import CompactedError, Entry, FutureRevisionError, Key, Prefix, Store

EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results, which "
    "then need not be consistent with those before."
)
_STEP, _PARSED_STEP = 100, 100
"""Entries of a piece: a few milliseconds of the event loop."""


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
        entry = await resource.served(entry)
        return json_answer(renderer.one(entry, self.clock.now()), media=renderer.accepted.media)

    async def list(self, call: Call, resource: Resource) -> web.StreamResponse:
        """A collection or a page of it: in one piece if it is small, else written as it is read."""
        renderer = renderer_of(call, resource)
        prefix = prefix_of(resource, call.info.tenant, call.info.namespace)
        selection = selection_of(call, resource, self.share)
        window = window_of(call, prefix)
        if selection.share is not None and window.after is None:
            # Later pages show the state of the first: what arrived since must still end the watch that follows.
            selection.share.listed(selection.node, resource.kind.resource)
        async with aclosing(self.pieces(prefix, window, selection, renderer)) as pieces:
            first = await anext(pieces)
            if not first.last:
                return await send_pieces(call, renderer, first, pieces, self.clock)
        meta = ListMeta(first.revision, first.token, first.remaining)
        return json_answer(renderer.many(first.entries, meta, self.clock.now()), media=renderer.accepted.media)

    async def find(self, prefix: Prefix, window: Window, selection: Selection, renderer: Renderer) -> Found:
        """The selected entries of a window, all at once. Raises ApiError 410, 504."""
        entries: list[Entry] = []
        async with aclosing(self.pieces(prefix, window, selection, renderer)) as pieces:
            async for piece in pieces:
                entries += piece.entries
        return replace(piece, entries=entries)

    async def pieces(
        self, prefix: Prefix, window: Window, selection: Selection, renderer: Renderer
    ) -> AsyncGenerator[Found, None]:
        """The same in pieces of one revision, each bounded in entries and bytes. Raises ApiError 410, 504."""
        if window.at_least:
            await self._check_reached(window.at_least)
        try:
            async for piece in _chosen(self.store, prefix, window, _Choice(selection, renderer)):
                yield piece
        except CompactedError as problem:
            raise _expired(window, prefix) from problem
        except FutureRevisionError as problem:
            raise too_large_resource_version(window.revision or 0, await self.store.revision()) from problem

    async def _check_reached(self, asked: int) -> None:
        current = await self.store.revision()
        if asked > current:
            raise too_large_resource_version(asked, current)


def _expired(window: Window, prefix: Prefix) -> ApiError:
    """410; a list that was under way can go on with what stands now."""
    if window.after is None:
        return expired(f"too old resource version: {window.revision}")
    problem = expired(EXPIRED)
    problem.token = write_token(window.after, PRESENT, prefix)
    return problem


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which entries are wanted, and how many are looked at in one go: those that are parsed take longer."""

    selection: Selection
    renderer: Renderer

    @property
    def step(self) -> int:
        whole = self.selection.is_everything and self.renderer.accepted.form is Form.OBJECT
        return _STEP if whole else _PARSED_STEP

    def of(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if self.selection.is_everything:
            return entries
        decode = self.renderer.decode
        return [e for e in entries if self.selection.matches(decode(e.key, e.value, e.revision))]


async def _chosen(store: Store, prefix: Prefix, window: Window, choice: _Choice) -> AsyncGenerator[Found, None]:
    """Steps through the range until the window is full. Behind a selection the count of the rest is unknown, as upstream
    says, and whether there is a rest shows only when another one is found.
    """
    after, revision, sent = window.after, window.revision, 0
    held: Key | None = None
    while True:
        everything = choice.selection.is_everything
        step = min(choice.step, window.limit - sent) if window.limit and everything else choice.step
        page = await store.list(prefix, limit=step, after=after, revision=revision)
        after, revision = page.after, page.revision
        custom = choice.renderer.resource.custom
        entries = choice.of(page.entries if custom is None else await custom.served(page.entries))
        if held is not None and entries:  # full, and there is another one
            yield Found((), revision, write_token(held, revision, prefix), last=True)
            return
        more = bool(window.limit) and sent + len(entries) > window.limit
        if more:
            entries = entries[: window.limit - sent]
        sent += len(entries)
        full = bool(window.limit) and sent == window.limit
        if more or (full and everything and after is not None):
            at = entries[-1].key if more else after
            assert at is not None
            yield Found(
                entries, revision, write_token(at, revision, prefix), None if more else page.remaining, last=True
            )
            return
        if full and entries:
            held = entries[-1].key
        yield Found(entries, revision, last=after is None)
        if after is None:
            return
