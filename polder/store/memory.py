"""The store in memory: for tests and trials. Differs from SQLite in that nothing outlives the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence

from polder.store.hub import Hub, HubSettings, matches
from polder.store.protocol import (
    Batch,
    Change,
    ChangeType,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    DuplicateKeyError,
    Entry,
    FutureRevisionError,
    Key,
    Op,
    Page,
    Prefix,
    Put,
    StoreFailedError,
    page_end,
    step_end,
)


class MemoryStore:
    """``Store`` on a sorted list of keys and a list of changes."""

    def __init__(self, settings: HubSettings = HubSettings()) -> None:  # noqa: B008 - frozen
        self._entries: dict[Key, Entry] = {}
        self._keys: list[Key] = []
        self._terms: dict[Key, tuple[str, ...]] = {}
        self._having: dict[str, set[Key]] = {}
        self._log: list[tuple[Change, int]] = []
        self._hub = Hub(1, 0, self._history, settings)
        self._closed = False

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return self._hub.published

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        return self._entries.get(key)

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        at = self._hub.published if revision is None else revision
        if at > self._hub.published:
            raise FutureRevisionError(f"revision {at} has not happened, the store is at {self._hub.published}")
        if at < self._hub.oldest:
            raise CompactedError(at, self._hub.oldest)
        found = [e for e in self._as_of(at) if matches(prefix, e.key) and (after is None or e.key > after)]
        end = page_end((len(e.value) for e in found), limit) if limit else len(found)
        if end == len(found):
            return Page(found, at)
        return Page(found[:end], at, found[end - 1].key, len(found) - end)

    def _as_of(self, at: int) -> Sequence[Entry]:
        """What stood at a revision: the present with every later change undone, newest first."""
        if at == self._hub.published:
            return [self._entries[k] for k in self._keys]
        entries = dict(self._entries)
        for change, before in reversed(self._log[self._first_after(at) :]):
            if change.previous is None:
                entries.pop(change.key, None)
            else:
                entries[change.key] = Entry(change.key, change.previous, before)
        return [entries[k] for k in sorted(entries)]

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``."""
        if self._closed:
            raise StoreFailedError("the store is closed")
        if len({op.key for op in ops}) < len(ops):
            raise DuplicateKeyError("two ops of one commit name the same key")
        for op in ops:
            current = self._entries.get(op.key)
            at = current.revision if current else 0
            if (op.expect is not None and op.expect != at) or (isinstance(op, Delete) and current is None):
                raise ConflictError(op.key, current)
        writes = [op for op in ops if not isinstance(op, Check)]
        if not writes:
            return self._hub.published
        revision = self._hub.published + 1
        self._hub.publish(revision, [self._apply(op, revision) for op in writes])
        return revision

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        return sorted(k for k in self._having.get(term, ()) if tenant is None or k.tenant == tenant)

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``."""
        here = (k for k in self._keys if tenant in (None, k.tenant) and (namespace is None or k.namespace == namespace))
        return Counter(k.resource for k in here)

    def _index(self, key: Key, terms: tuple[str, ...]) -> None:
        for term in set(self._terms.pop(key, ())):
            having = self._having[term]
            having.discard(key)
            if not having:
                del self._having[term]
        if terms:
            self._terms[key] = terms
            for term in terms:
                self._having.setdefault(term, set()).add(key)

    def _apply(self, op: Put | Delete, revision: int) -> Change:
        self._index(op.key, op.terms if isinstance(op, Put) else ())
        old = self._entries.get(op.key)
        previous = old.value if old else None
        if isinstance(op, Put):
            if old is None:
                insort(self._keys, op.key)
            self._entries[op.key] = Entry(op.key, op.value, revision)
            change = Change(ChangeType.PUT, op.key, op.value, previous, revision)
        else:
            del self._keys[bisect_left(self._keys, op.key)]
            del self._entries[op.key]
            change = Change(ChangeType.DELETE, op.key, previous or b"", previous, revision)
        self._log.append((change, old.revision if old else 0))
        return change

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        return self._hub.watch(prefix, since)

    async def _history(self, prefix: Prefix, after: int, to: int) -> Batch:
        later = self._log[self._first_after(after) : self._first_after(to)]
        found = [c for c, _ in later if matches(prefix, c.key)]
        to = step_end(((c.revision, c.size) for c in found), to)
        return Batch([c for c in found if c.revision <= to], to)

    def _first_after(self, revision: int) -> int:
        return bisect_right(self._log, revision, key=lambda row: row[0].revision)

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``."""
        floor = min(keep_from, self._hub.published)
        if floor > self._hub.oldest:
            del self._log[: self._first_after(floor)]
            self._hub.compacted(floor)

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed = True
        self._hub.close()
