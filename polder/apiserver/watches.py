"""watch: events from a revision on, bookmarks, and the 410 that ends it.

A watch reads the store's own ring of changes. What it sends is made once per change and way of showing it, already
framed as an HTTP chunk, and shared by all watchers that show it so. A client that does not read is bounded by its
socket's buffer and the store's bound on pending changes; past the former it has ``STALL_LIMIT`` seconds.

Source: Kubernetes API concepts, "Efficient detection of changes" and "Streaming lists".
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from polder.api.errors import ApiError, expired, too_large_resource_version, too_old
from polder.apiserver.answers import SOFTWARE
from polder.apiserver.catalog import CustomSchema, Resource
from polder.apiserver.fairness import handing_over
from polder.apiserver.hooks import Call, Share
from polder.apiserver.listener import on_lost
from polder.apiserver.negotiate import JSON, PROTOBUF
from polder.apiserver.paging import Window, initial_events, parse_revision
from polder.apiserver.reads import Reader, renderer_of
from polder.apiserver.render import Renderer
from polder.apiserver.requestinfo import is_true
from polder.apiserver.selection import Selection, prefix_of, selection_of
from polder.apiserver.watch_frames import Forms, Frames, frame
from polder.apiserver.watch_slots import Slots, WatchSlots, held
from polder.base.clock import Clock
from polder.store.protocol import Batch, CompactedError, FutureRevisionError, Prefix, Store

log = logging.getLogger(__name__)

PROTOBUF_WATCH = f"{PROTOBUF};stream=watch"
STALL_LIMIT = 60.0
UNREAD_LIMIT = 64 * 1024
PATIENCE = 5.0
"""Seconds that a large event waits for others of the same tenant that are not read."""
SHORTEST, LONGEST = 1800.0, 3600.0
"""Seconds that a watch lives when the client names no time: random between these, so that not all end at once."""


@dataclass(slots=True)
class _Stream:
    """One client's end of a watch."""

    request: web.BaseRequest
    renderer: Renderer
    bookmarks: bool
    position: int
    slots: Slots | None = None
    stalled: bool = False
    """Whether the client was waited for, and did not read."""
    response: web.StreamResponse = field(default_factory=web.StreamResponse)

    @property
    def media(self) -> str:
        """The serialisation of the events."""
        return self.renderer.accepted.media

    async def open(self) -> None:
        """Sends the head at once: clients wait for it."""
        self.response.headers["Content-Type"] = PROTOBUF_WATCH if self.media == PROTOBUF else JSON
        self.response.headers["Server"] = SOFTWARE
        self.response.headers["Cache-Control"] = "no-cache, private"
        self.response.enable_chunked_encoding()
        await self.response.prepare(self.request)
        if (transport := self.request.transport) is not None:
            transport.set_write_buffer_limits(UNREAD_LIMIT)  # TLS would let half a megabyte stand
        await self.response.write(b"")

    def send(self, chunk: bytes) -> None:
        """Hands a framed chunk to the transport."""
        transport = self.request.transport
        if transport is not None and not transport.is_closing():
            transport.write(chunk)

    @property
    def is_full(self) -> bool:
        """Whether more stands unread than a connection's buffers hold."""
        transport = self.request.transport
        return transport is not None and transport.get_write_buffer_size() > UNREAD_LIMIT

    async def drain(self) -> None:
        """Waits for a slow reader. Raises TimeoutError when it does not read at all."""
        writer = (
            self.response._payload_writer
        )  # aiohttp's public way to wait writes an empty chunk, which ends the body
        assert writer is not None
        async with asyncio.timeout(STALL_LIMIT):
            await writer.drain()

    def end(self) -> None:
        """Cuts off a client that did not read what it got: waiting for it would hold its buffer."""
        transport = self.request.transport
        if transport is not None and (self.stalled or self.is_full):
            transport.abort()

    async def put(self, chunk: bytes) -> None:
        """Sends what may be large, and waits until the client has read enough of it. Raises TimeoutError when it does not, or
        when so many clients of the tenant are slow that there is no memory for another.
        """
        try:
            if len(chunk) <= UNREAD_LIMIT:
                self.send(chunk)
                await self.drain()
                return
            async with held(self.slots, PATIENCE):
                self.send(chunk)
                await self.drain()
        except TimeoutError:
            self.stalled = True
            raise

    def bookmark(self) -> None:
        """Tells how far the watch has come. Not to who does not read: it would only fill the buffer more."""
        if self.bookmarks and self.position and not self.is_full:
            self.send(frame("BOOKMARK", self.renderer.bookmark(self.position), self.media))

    def fail(self, error: ApiError) -> None:
        """The event that tells why the watch ends."""
        self.send(frame("ERROR", orjson.dumps(error.to_status()), self.media))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a watch was asked for."""

    prefix: Prefix
    selection: Selection
    since: int
    initial: bool
    seconds: float


class Watches:
    """Serves watches, and ends them all when the server stops."""

    def __init__(self, store: Store, reader: Reader, clock: Clock, bookmark_interval: float) -> None:
        self._store = store
        self._reader = reader
        self._frames = Frames(clock)
        self._interval = bookmark_interval
        self._ends: dict[Callable[[], None], Prefix] = {}
        self._forms = Forms()
        self._slots = WatchSlots()

    @property
    def count(self) -> int:
        """How many watches are open."""
        return len(self._ends)

    def end_all(self) -> None:
        """Ends every watch, as if its time were over."""
        for end in tuple(self._ends):
            end()

    def end_of(self, tenant: str, resource: str) -> None:
        """Ends the watches of a tenant's resource: what is served under its name is another thing now."""
        for end, prefix in tuple(self._ends.items()):
            if prefix.tenant == tenant and prefix.resource == resource:
                end()

    async def watch(self, call: Call, resource: Resource) -> web.StreamResponse:
        """Streams events until the time is over, the client leaves or the history is lost. Raises ApiError 4xx, 504."""
        plan = await self._plan(call, resource)
        bookmarks = is_true(call.query.get("allowWatchBookmarks"))
        stream = _Stream(call.request, renderer_of(call, resource), bookmarks, plan.since)
        share = plan.selection.share
        stream.response.headers["Audit-Id"] = call.id
        await stream.open()
        loop = asyncio.get_running_loop()
        scope = asyncio.timeout(plan.seconds)

        def end() -> None:
            if not scope.expired():
                scope.reschedule(loop.time())

        self._ends[end] = plan.prefix
        forget = on_lost(call.request, end)
        moved = None
        try:
            async with self._slots.of(call) as stream.slots, scope:
                if plan.initial:
                    await self._send_initial(plan, stream)
                if share is not None:
                    moved = asyncio.ensure_future(_moved(share, plan.selection, stream, end))
                await self._run(plan, stream)
        except ApiError as lost:
            stream.fail(lost)  # what is there was forgotten while the client read it
        except (TimeoutError, ConnectionError):
            log.debug("watch of %s ended", plan.prefix.resource)
        finally:
            stream.end()
            self._ends.pop(end, None)
            forget()
            if moved is not None:
                moved.cancel()
        return stream.response

    async def _plan(self, call: Call, resource: Resource) -> _Plan:
        query = call.query
        prefix = prefix_of(resource, call.info.tenant, call.info.namespace)
        selection = selection_of(call, resource, self._reader.share)
        asked = parse_revision(query.get("resourceVersion", ""))
        current = await self._store.revision()
        if asked > current:
            raise too_large_resource_version(asked, current)
        initial = initial_events(query)
        seconds = _seconds(query.get("timeoutSeconds", ""))
        return _Plan(prefix, selection, asked or current, initial, seconds)

    async def _run(self, plan: _Plan, stream: _Stream) -> None:
        try:
            changes = self._store.watch(plan.prefix, stream.position)
            try:
                await self._follow(changes, plan.selection, stream)
            finally:
                await changes.aclose()
        except CompactedError as lost:
            stream.fail(too_old(stream.position, lost.oldest))
        except FutureRevisionError:
            stream.fail(too_large_resource_version(stream.position, await self._store.revision()))
        except ApiError as failed:
            stream.fail(failed)

    async def _send_initial(self, plan: _Plan, stream: _Stream) -> None:
        """Everything that is there, as ADDED events."""
        if plan.selection.share is not None:
            plan.selection.share.listed(plan.selection.node, plan.prefix.resource)
        async with handing_over(patient=True):
            pieces = self._reader.pieces(plan.prefix, Window(), plan.selection, stream.renderer)
            async with aclosing(pieces):
                async for found in pieces:
                    now = self._reader.clock.now()
                    for entry in found.entries:
                        stream.send(frame("ADDED", stream.renderer.one(entry, now), stream.media))
                        if stream.is_full:
                            await stream.drain()
                    await stream.drain()
        stream.position = found.revision
        if stream.bookmarks:
            stream.send(frame("BOOKMARK", stream.renderer.bookmark(found.revision, initial_end=True), stream.media))

    async def _follow(self, changes: AsyncGenerator[Batch, None], selection: Selection, stream: _Stream) -> None:
        loop = asyncio.get_running_loop()

        def tick() -> None:
            stream.bookmark()
            timers[0] = loop.call_later(self._interval, tick)

        timers = [loop.call_later(self._interval, tick)]
        try:
            custom = stream.renderer.resource.custom
            async for batch in changes:
                await self._send(batch, selection, stream, custom)
                stream.position = batch.revision
        finally:
            timers[0].cancel()

    async def _send(self, batch: Batch, selection: Selection, stream: _Stream, custom: CustomSchema | None) -> None:
        """The events of a batch: small ones together, and no more at a time than a connection's buffers hold."""
        small: list[bytes] = []
        size = 0
        for change in batch.changes:
            shown = change if custom is None else await self._forms.of(change, custom, stream.renderer)
            made = self._frames.event(shown, selection, stream.renderer)
            if made is None:
                continue
            if small and size + len(made) > UNREAD_LIMIT:
                await stream.put(b"".join(small))
                small, size = [], 0
                stream.position = max(stream.position, change.revision - 1)
            small.append(made)
            size += len(made)
        if small:
            await stream.put(small[0] if len(small) == 1 else b"".join(small))


async def _moved(share: Share, selection: Selection, stream: _Stream, end: Callable[[], None]) -> None:
    """Ends a node's watch with 410 when tenants arrive on or leave the node, so that its informer lists again."""
    await share.changed(selection.node, selection.kind)
    stream.fail(expired("the node's share changed; list again"))
    end()


def _seconds(text: str) -> float:
    """``timeoutSeconds``, or a random time."""
    if text.isascii() and text.isdigit() and int(text) > 0:
        return float(min(int(text), 24 * 3600))
    return random.uniform(SHORTEST, LONGEST)  # noqa: S311 - spreads load, hides nothing
