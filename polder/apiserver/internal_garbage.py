"""What the garbage collector has to look at, as a stream of JSON lines over all tenants, custom kinds included.

Every change of the store passes here; told is only what needs a look: an object whose owner is gone or waits for it, one
that waits for its own dependents, and one for which the last such dependent went. So the collector keeps nothing of the
cluster, however many objects there are, and hears of a change at once.

Lines: ``{"item": …}`` (see ``Owners.item``) and, at least once a second while the store moves, ``{"revision": N}``, up to
which everything has been told; ``?since=N`` goes on from there. Without it, or when that history is gone, everything that
an index finds wanting comes first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from polder.api.meta import Raw
from polder.apiserver.hooks import Call
from polder.apiserver.internal_owners import Owners, Standing
from polder.apiserver.listener import on_lost
from polder.apiserver.objects import LEAVING_TERM, OWNED_TERM, is_leaving
from polder.store.protocol import (
    EVERYTHING,
    Change,
    ChangeType,
    CompactedError,
    FutureRevisionError,
    Key,
)

log = logging.getLogger(__name__)

SLICE = 16
"""Rows that are looked at before others get their turn."""
PROGRESS = 1.0
"""Seconds between two lines that tell the revision."""
_OWNED, _GOING = b'"ownerReferences"', b'"deletionTimestamp"'


@dataclass(slots=True)
class GarbageFeed:
    """Serves ``/polder/v1/garbage``."""

    owners: Owners
    _ends: set[Callable[[], None]] = field(default_factory=set)

    def end_all(self) -> None:
        """Ends every stream: the server stops."""
        for end in tuple(self._ends):
            end()

    async def serve(self, call: Call) -> web.StreamResponse:
        """Streams until the reader leaves or the server stops."""
        since = call.query.get("since", "")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        loop, scope = asyncio.get_running_loop(), asyncio.timeout(None)

        def end() -> None:
            if not scope.expired():
                scope.reschedule(loop.time())

        self._ends.add(end)
        forget = on_lost(call.request, end)
        try:
            async with scope, aclosing(self._lines(int(since) if since.isdecimal() else None)) as lines:
                async for line in lines:
                    await response.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except (TimeoutError, ConnectionError):
            log.debug("a stream of garbage ended")
        finally:
            self._ends.discard(end)
            forget()
        return response

    async def _lines(self, since: int | None) -> AsyncGenerator[Raw, None]:
        while True:
            if since is None:
                since = await self.owners.store.revision()
                async with aclosing(self._wanting()) as found:
                    async for item in found:
                        yield {"item": item}
                yield {"revision": since}
            try:
                async with aclosing(self._changes(since)) as lines:
                    async for line in lines:
                        yield line
                return
            except (CompactedError, FutureRevisionError) as lost:
                log.info("the garbage collector starts anew: %s", lost)
                since = None

    async def _wanting(self) -> AsyncGenerator[Raw, None]:
        """What an index finds: everything that has owners is looked at, everything that waits is told."""
        store = self.owners.store
        for key in await store.by_term(LEAVING_TERM):
            if (item := await self.owners.item(key)) is not None:
                yield item
        for number, key in enumerate(await store.by_term(OWNED_TERM)):
            if number % SLICE == 0:
                await asyncio.sleep(0)
            item = await self.owners.item(key)
            if item is not None and not await self.owners.is_settled(key, item["ownerReferences"]):
                yield item

    async def _changes(self, since: int) -> AsyncGenerator[Raw, None]:
        loop = asyncio.get_running_loop()
        told = loop.time()
        async with aclosing(self.owners.store.watch(EVERYTHING, since)) as batches:
            async for batch in batches:
                for number, change in enumerate(batch.changes, 1):
                    for item in await self._of(change):
                        yield {"item": item}
                    if number % SLICE == 0:
                        await asyncio.sleep(0)
                if loop.time() - told >= PROGRESS:
                    told = loop.time()
                    yield {"revision": batch.revision}

    async def _of(self, change: Change) -> list[Raw]:
        """What one change makes worth a look."""
        if change.type is ChangeType.DELETE:
            return await self._gone(change.key, _metadata(change.value))
        if _OWNED not in change.value and _GOING not in change.value and _OWNED not in (change.previous or b""):
            return []
        meta = _metadata(change.value)
        before = _metadata(change.previous) if change.previous else {}
        owners, had = meta.get("ownerReferences") or [], before.get("ownerReferences") or []
        found: list[Raw | None] = []
        wants = is_leaving(meta) and meta.get("finalizers") != before.get("finalizers")
        if wants or (owners != had and not await self.owners.is_settled(change.key, owners)):
            found.append(await self.owners.item(change.key, meta))
        if owners != had:
            found += await self._waiting(change.key, had)
        return [item for item in found if item is not None]

    async def _gone(self, key: Key, meta: Raw) -> list[Raw]:
        """What the object owned, and the owners that waited for it."""
        if not meta.get("uid"):
            return []
        owned = await self.owners.dependents(key.tenant, key.namespace, meta["uid"])
        dependents = [await self.owners.item(k) for k in owned]
        found = dependents + await self._waiting(key, meta.get("ownerReferences") or [])
        return [item for item in found if item is not None]

    async def _waiting(self, key: Key, owners: list[Raw]) -> list[Raw | None]:
        """Of an object's owners, those that wait for their dependents to go."""
        found = []
        for owner in owners:
            if await self.owners.standing(key, owner) is Standing.WAITING:
                at = await self.owners.owner_key(key, owner)
                found.append(await self.owners.item(at) if at is not None else None)
        return found


def _metadata(value: bytes) -> Raw:
    """A row's metadata; empty for rows of the platform's own that are no objects."""
    raw = orjson.loads(value) if value[:1] == b"{" else {}
    meta = raw.get("metadata") if isinstance(raw, dict) else None
    return meta if isinstance(meta, dict) else {}
