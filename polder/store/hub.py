"""Gives the changes of a store to its watchers; every backend shares it, so that watches mean the same on each.

All methods run on the event loop. A backend publishes each commit once, in order, before the committer learns of it.
A commit has one revision, so the recent past is a table by revision; where a backend shares its counter with others,
revisions in which nothing of ours happened are commits without changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from polder.store.protocol import (
    STEP_BYTES,
    Batch,
    Change,
    CompactedError,
    FutureRevisionError,
    Key,
    Prefix,
    step_end,
)

GAP = 1000
"""Revisions without a commit of ours that are filled in; more of them empty the ring."""

History = Callable[[Prefix, int, int], Awaitable[Batch]]
"""(prefix, after, to): the matching changes of the log beyond ``after``, whole commits, up to the batch's revision,
which is at most ``to``. Raises CompactedError.
"""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """Bounds of memory. ``recent`` bytes of commits are kept for late watchers, ``pending`` changes and ``pending_bytes`` of
    them for one slow watcher (what is beyond comes from the log); ``progress`` is the number of seconds between empty batches.
    """

    recent: int = 8 << 20
    pending: int = 1024
    pending_bytes: int = STEP_BYTES
    progress: float = 5.0


def matches(prefix: Prefix, key: Key) -> bool:
    """Whether the key lies in the prefix's range."""
    return (
        prefix.resource in ("", key.resource)
        and (prefix.tenant is None or key.tenant == prefix.tenant)
        and (prefix.namespace is None or key.namespace == prefix.namespace)
    )


class _Watcher:
    """One watch: what it still has to give, and the future on which its reader sleeps."""

    __slots__ = ("behind", "due", "pending", "position", "sleeper", "weight")

    def __init__(self, position: int, behind: bool) -> None:
        self.position = position
        self.behind = behind
        self.pending: list[Change] = []
        self.weight = 0
        self.due = True
        self.sleeper: asyncio.Future[None] | None = None

    def push(self, change: Change, settings: HubSettings) -> None:
        if self.behind or change.revision <= self.position:
            return
        if len(self.pending) >= settings.pending or self.weight >= settings.pending_bytes:
            self.fall_behind()
        else:
            self.pending.append(change)
            self.weight += change.size
        self.wake()

    def fall_behind(self) -> None:
        """What it has to give comes from the log."""
        self.pending.clear()
        self.weight = 0
        self.behind = True

    def wake(self) -> None:
        if self.sleeper is not None and not self.sleeper.done():
            self.sleeper.set_result(None)


def _ranges(key: Key) -> tuple[tuple[str, str | None, str | None], ...]:
    """Every prefix that the key lies in."""
    return (
        (key.resource, None, None),
        (key.resource, key.tenant, None),
        (key.resource, key.tenant, key.namespace),
        (key.resource, None, key.namespace),
        ("", None, None),
    )


def _weight(changes: Sequence[Change]) -> int:
    """About how many bytes a commit holds in memory."""
    return 100 + sum(len(c.value) + len(c.previous or b"") + 300 for c in changes)


class Hub:
    """The watchers of one store. ``published`` is the last revision given out, ``oldest`` the compaction's floor.
    ``assigned`` may run ahead of ``published``: a reader can see a commit a moment before it is published here.
    """

    def __init__(self, revision: int, oldest: int, history: History, settings: HubSettings) -> None:
        self.published = revision
        self.assigned = revision
        self.oldest = oldest
        self._history = history
        self._settings = settings
        self._recent: dict[int, Sequence[Change]] = {}
        self._first = revision + 1
        self._weight = 0
        self._watchers: dict[tuple[str, str | None, str | None], list[_Watcher]] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._closed = False

    def publish(self, revision: int, changes: Sequence[Change]) -> None:
        """Hands one commit to every watcher that it concerns."""
        if revision != self.published + 1:
            self._fill(revision)
        self._recent[revision] = changes
        self._weight += _weight(changes)
        while self._weight > self._settings.recent:
            self._drop_first()
        self.published = revision
        self.assigned = max(self.assigned, revision)
        watchers, settings = self._watchers, self._settings
        if not watchers:
            return
        for change in changes:
            for where in _ranges(change.key):
                for watcher in watchers.get(where, ()):
                    watcher.push(change, settings)

    def _fill(self, revision: int) -> None:
        """Notes that nothing of ours happened since the last commit; after a long gap the ring begins anew."""
        if revision - self.published > GAP:
            self._recent.clear()
            self._weight, self._first = 0, revision
        else:
            for empty in range(self.published + 1, revision):
                self._recent[empty] = ()
                self._weight += _weight(())

    def lost(self, oldest: int) -> None:
        """The backend cannot tell what happened between ``published`` and ``oldest``: whoever watched from before that
        gets CompactedError.
        """
        self._recent.clear()
        self._weight, self._first = 0, oldest + 1
        self.published = max(self.published, oldest)
        self.assigned = max(self.assigned, oldest)
        self.oldest = max(self.oldest, oldest)
        for watchers in self._watchers.values():
            for watcher in watchers:
                if watcher.position < oldest:
                    watcher.fall_behind()
                    watcher.wake()

    def _drop_first(self) -> None:
        self._weight -= _weight(self._recent.pop(self._first))
        self._first += 1

    def compacted(self, oldest: int) -> None:
        """The log lost what is before ``oldest``; so does the memory of recent commits."""
        while self._first <= min(oldest, self.published):
            self._drop_first()
        self.oldest = max(self.oldest, oldest)

    def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.wake()

    async def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        if since > self.assigned:
            raise FutureRevisionError(f"revision {since} has not happened, the store is at {self.published}")
        if since < self.oldest:
            raise CompactedError(since, self.oldest)
        watcher = _Watcher(since, behind=since < self.published)
        where = (prefix.resource, prefix.tenant, prefix.namespace)
        self._watchers.setdefault(where, []).append(watcher)
        self._keep_ticking()
        try:
            while not self._closed:
                if watcher.behind:
                    yield await self._catch_up(prefix, watcher)
                elif watcher.pending or watcher.due:
                    yield self._take(watcher)
                else:
                    await self._sleep(watcher)
        finally:
            self._forget(where, watcher)

    def _take(self, watcher: _Watcher) -> Batch:
        changes, watcher.pending, watcher.weight = watcher.pending, [], 0
        watcher.due = False
        watcher.position = max(watcher.position, self.published)
        return Batch(changes, watcher.position)

    async def _catch_up(self, prefix: Prefix, watcher: _Watcher) -> Batch:
        """One step through the past; the last step arms the watcher for what comes, with no gap between."""
        after = watcher.position
        if after < self.oldest:
            raise CompactedError(after, self.oldest)
        if after + 1 in self._recent:
            to = min(self.published, after + self._settings.pending)
            found = [c for r in range(after + 1, to + 1) for c in self._recent[r] if matches(prefix, c.key)]
            to = step_end(((c.revision, c.size) for c in found), to)
            batch = Batch([c for c in found if c.revision <= to], to)
        else:
            batch = await self._history(prefix, after, self.published)
        watcher.position = batch.revision
        watcher.behind = batch.revision < self.published
        watcher.due = False
        return batch

    async def _sleep(self, watcher: _Watcher) -> None:
        watcher.sleeper = asyncio.get_running_loop().create_future()
        try:
            await watcher.sleeper
        finally:
            watcher.sleeper = None

    def _forget(self, where: tuple[str, str | None, str | None], watcher: _Watcher) -> None:
        watchers = self._watchers[where]
        watchers.remove(watcher)
        if not watchers:
            del self._watchers[where]

    def _keep_ticking(self) -> None:
        if self._ticker is None and not self._closed:
            self._ticker = asyncio.get_running_loop().call_later(self._settings.progress, self._tick)

    def _tick(self) -> None:
        """Makes idle watchers give their progress; stops by itself when nobody watches."""
        self._ticker = None
        for watchers in self._watchers.values():
            for watcher in watchers:
                if watcher.position < self.published:
                    watcher.due = True
                    watcher.wake()
        if self._watchers:
            self._keep_ticking()
