"""A cache of objects that follows the server by list and watch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from polder.api.errors import ApiError
from polder.api.meta import Object, ref_of
from polder.base.errors import PolderError
from polder.base.ids import EVERY_TENANT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, WatchEvent
from polder.client.sharing import Sharing

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

Handler = Callable[[Ref, T | None, T | None], None]
"""(ref, old, new): old is None for a new object, new is None for one that is gone."""

FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0
HEALTHY = 1.0
"""Seconds that a watch must have lasted, or else have given something, to count as one that works."""


_share = Sharing()
"""One memory for all caches of the process."""


class _Index(Generic[T]):
    """Objects by what a function says of them. A key of one object, as most are, holds it without a map of its own."""

    def __init__(self, keys: Callable[[T], Iterable[Hashable]]) -> None:
        self._keys = keys
        self._found: dict[Hashable, tuple[Ref, T] | dict[Ref, T]] = {}

    def change(self, ref: Ref, old: T | None, new: T | None) -> None:
        if old is not None:
            for key in self._keys(old):
                self._take_out(key, ref)
        if new is not None:
            for key in self._keys(new):
                self._put_in(key, ref, new)

    def _take_out(self, key: Hashable, ref: Ref) -> None:
        held = self._found.get(key)
        if isinstance(held, dict):
            held.pop(ref, None)
        if not held or (isinstance(held, tuple) and held[0] == ref):
            self._found.pop(key, None)

    def _put_in(self, key: Hashable, ref: Ref, new: T) -> None:
        held = self._found.get(key)
        if held is None or (isinstance(held, tuple) and held[0] == ref):
            self._found[key] = (ref, new)
        elif isinstance(held, tuple):
            self._found[key] = {held[0]: held[1], ref: new}
        else:
            held[ref] = new

    def get(self, key: Hashable) -> list[T]:
        held = self._found.get(key)
        if isinstance(held, tuple):
            return [held[1]]
        return list(held.values()) if held else []


class Informer(Generic[T]):
    """Handlers run on the event loop, after the cache has changed, and only enqueue. ``synced`` is true from the end of
    the first list on; while the server is away the cache keeps what it knew.
    """

    def __init__(
        self, client: Client, kind: type[T], tenant: TenantName = EVERY_TENANT, *, fields: str = "", labels: str = ""
    ) -> None:
        self._client = client
        self._kind = kind
        self._tenant = tenant
        self._fields = fields
        self._labels = labels
        self._objects: dict[Ref, T] = {}
        self._handlers: list[Handler[T]] = []
        self._indexes: dict[str, _Index[T]] = {}
        self._synced = asyncio.Event()
        self._version = ""
        self._watching: float | None = None
        self._seen = False

    def on_change(self, fn: Handler[T]) -> None:
        """Calls ``fn`` at every later change, and at once for each object that is known already."""
        self._handlers.append(fn)
        for ref, obj in self._objects.items():
            fn(ref, None, obj)

    def add_index(self, name: str, fn: Callable[[T], Iterable[Hashable]]) -> None:
        """Keeps objects findable by each key that ``fn`` gives for them."""
        index = self._indexes[name] = _Index(fn)
        for ref, obj in self._objects.items():
            index.change(ref, None, obj)

    def by_index(self, name: str, key: Hashable) -> list[T]:
        """The objects for which the index's function gave ``key``."""
        return self._indexes[name].get(key)

    def get(self, ref: Ref) -> T | None:
        """The object as last seen."""
        return self._objects.get(ref)

    def values(self) -> Iterable[T]:
        """All objects as last seen; a copy, safe to change things while going through it."""
        return list(self._objects.values())

    @property
    def position(self) -> int:
        """The revision up to which the cache shows everything; 0 while it knows nothing."""
        return int(self._version) if self._version.isdigit() else 0

    @property
    def synced(self) -> bool:
        """Whether the first list has come."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        """Returns when the first list has come."""
        await self._synced.wait()

    async def run(self) -> None:
        """Follows the server until cancelled. What goes wrong is logged and tried again, ever more slowly."""
        wait = 0.0
        while True:
            self._watching = None
            expired = False
            try:
                await self._follow()
            except PolderError as error:
                expired = isinstance(error, ApiError) and error.is_expired
                if isinstance(error, ApiError):
                    # 410, or a revision that the server does not know: only a new list helps.
                    self._version = ""
                log.log(logging.DEBUG if expired else logging.WARNING, "%s: %s", self._kind.__name__, error)
            if self._worked():
                wait = 0.0
                if expired:
                    continue
            wait = min(max(wait * 2, FIRST_WAIT), LONGEST_WAIT)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnections

    def _worked(self) -> bool:
        if self._watching is None:
            return False
        return self._seen or asyncio.get_running_loop().time() - self._watching >= HEALTHY

    async def _follow(self) -> None:
        """One list, unless a version is known, and one watch."""
        if not self._version:
            await self._list()
        self._watching, self._seen = asyncio.get_running_loop().time(), False
        watch = self._client.watch(
            self._kind, self._tenant, since=self._version, fields=self._fields, labels=self._labels
        )
        async with aclosing(watch) as events:
            async for event in events:
                self._seen = True
                self._take(event)

    async def _list(self) -> None:
        listing = await self._client.list(self._kind, self._tenant, labels=self._labels, fields=self._fields)
        found = {ref_of(obj): obj for obj in listing.items}
        for ref in [r for r in self._objects if r not in found]:
            self._change(ref, None)
        for ref, obj in found.items():
            old = self._objects.get(ref)
            if old is None or _identity(old) != _identity(obj):
                self._change(ref, obj)
        self._version = listing.resource_version
        self._synced.set()

    def _take(self, event: WatchEvent[T]) -> None:
        if event.object is not None:
            self._change(ref_of(event.object), None if event.type == "DELETED" else event.object)
        self._version = event.resource_version or self._version

    def _change(self, ref: Ref, new: T | None) -> None:
        old = self._objects.get(ref)
        if old is None and new is None:
            return
        if new is None:
            del self._objects[ref]
        else:
            _share(new)
            self._objects[ref] = new
        for index in self._indexes.values():
            index.change(ref, old, new)
        for handler in self._handlers:
            try:
                handler(ref, old, new)
            except Exception:
                # One broken handler must not stop the cache, which others rely on.
                log.exception("%s: a handler failed on %s", self._kind.__name__, ref)


def _identity(obj: Object) -> tuple[str, str]:
    return obj.metadata.uid, obj.metadata.resource_version
