"""Tells nodes that ConfigMaps and Secrets changed which their pods mention, so that what runs sees the news at once.

A node opens a stream of kind ``changes`` on its connection. Lines: ``{"ready": true}`` first, from when on nothing is
missed; then ``{"resource", "tenant", "namespace", "name"}`` for each change, or ``{"any": true}`` when there were more
than the node kept up with. Nothing of the objects is told: the node reads what it may. One task follows the store for
all nodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from polder.api.meta import Raw
from polder.apiserver.following import answered
from polder.client.mux import Stream
from polder.store.protocol import CompactedError, Key, Prefix, Store

log = logging.getLogger(__name__)

FOLLOWED: Final = ("configmaps", "secrets")
MOST: Final = 1000
"""Changes that wait for one node; beyond them it is told to look at everything."""
LATER: Final = 0.5
"""Seconds after which a change is told once more: a pod that was bound just before it may not be known here yet."""

Mentions = Callable[[Key], Iterable[str]]
"""The nodes with a pod that mentions an object."""


@dataclass(slots=True, eq=False)
class _Listener:
    """One stream. ``keys`` is None when too much happened."""

    node: str
    keys: set[Key] | None = field(default_factory=set)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, key: Key) -> None:
        if self.keys is not None:
            self.keys.add(key)
            if len(self.keys) > MOST:
                self.keys = None
        self.news.set()

    def miss(self) -> None:
        """What happened is not known: anything may have."""
        self.keys = None
        self.news.set()

    def take(self) -> list[Raw]:
        keys, self.keys = self.keys, set()
        self.news.clear()
        return [{"any": True}] if keys is None else [_line(key) for key in sorted(keys)]


def _line(key: Key) -> Raw:
    return {"resource": key.resource, "tenant": key.tenant, "namespace": key.namespace, "name": key.name}


class ChangeFeed:
    """Serves the streams of all nodes; ``run`` follows the store."""

    def __init__(self, store: Store, mentions: Mentions) -> None:
        self._store = store
        self._mentions = mentions
        self._listeners: dict[str, set[_Listener]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for resource in FOLLOWED:
                group.create_task(self._follow(resource))

    async def _follow(self, resource: str) -> None:
        since = await answered(self._store.revision)
        while True:
            try:
                async for batch in self._store.watch(Prefix(resource), since):
                    since = batch.revision
                    for change in batch.changes:
                        self._tell(change.key)
            except CompactedError:
                since = await answered(self._store.revision)
                for listener in self._everybody():
                    listener.miss()
                continue
            return

    def _everybody(self) -> list[_Listener]:
        return [listener for some in self._listeners.values() for listener in some]

    def _tell(self, key: Key) -> None:
        self._tell_now(key)
        asyncio.get_running_loop().call_later(LATER, self._tell_now, key)

    def _tell_now(self, key: Key) -> None:
        for node in self._mentions(key):
            for listener in self._listeners.get(node, ()):
                listener.note(key)

    async def serve(self, node: str, header: Raw, stream: Stream) -> None:
        """One node's stream, until it ends."""
        del header
        listener = _Listener(node)
        self._listeners.setdefault(node, set()).add(listener)
        try:
            await stream.write(b'{"ready":true}\n')
            while True:
                await listener.news.wait()
                lines = (orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in listener.take())
                await stream.write(b"".join(lines))
        except ConnectionError as error:
            log.debug("node %s hears of changes no more: %s", node, error)
        finally:
            some = self._listeners[node]
            some.discard(listener)
            if not some:
                del self._listeners[node]
