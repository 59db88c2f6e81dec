"""The store on SQLite: a write-ahead log with full sync, one writer thread, readers beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from polder.store.hub import Hub, HubSettings
from polder.store.protocol import (
    NO_TERMS,
    PAGE_BYTES,
    Batch,
    CompactedError,
    DuplicateKeyError,
    Entry,
    FutureRevisionError,
    Indexer,
    Key,
    Op,
    Page,
    Prefix,
    StoreFailedError,
    step_end,
)
from polder.store.schema import connect, prepare, take_lock
from polder.store.writer import Job, Writer, change_of

T = TypeVar("T")

SWEEP = 2000
"""Rows of the log forgotten in one transaction, so that compaction never holds up commits for long."""

_COLUMNS = ("resource", "tenant", "namespace", "name")
_ROW = ", ".join(_COLUMNS)
_GET = f"SELECT value, revision FROM entry WHERE ({_ROW}) = (?, ?, ?, ?)"  # noqa: S608 - constant text
_COUNTER = "SELECT value FROM counter WHERE name = ?"


def open_sqlite(
    path: Path,
    settings: HubSettings = HubSettings(),  # noqa: B008 - frozen
    indexer: Indexer = NO_TERMS,
) -> SqliteStore:
    """Opens or creates the store's file. Raises StoreFileError if it is in use, damaged, or of a newer Polder."""
    lock = take_lock(path)
    try:
        return SqliteStore(path, prepare(path, indexer=indexer), lock, settings)
    except BaseException:
        os.close(lock)
        raise


class SqliteStore:
    """``Store`` on one SQLite file. Single reads run on the event loop (10 µs, less than a hop to a thread costs);
    scans run in two reader threads with connections of their own.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int, settings: HubSettings) -> None:
        self._path = path
        self._lock = lock
        revision = connection.execute(_COUNTER, ("revision",)).fetchone()[0]
        oldest = connection.execute(_COUNTER, ("oldest",)).fetchone()[0]
        self._hub = Hub(revision, oldest, self._history, settings)
        self._near = connect(path)
        self._far: list[sqlite3.Connection] = []
        self._mine = threading.local()
        self._pool = ThreadPoolExecutor(2, "store-reader")
        self._writer = Writer(connection, self._hub)
        self._closed = False

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return _counter(self._near, "revision")

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        row = self._near.execute(_GET, (key.resource, key.tenant, key.namespace, key.name)).fetchone()
        return Entry(key, row[0], row[1]) if row else None

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        if after is None:
            empty = self._nothing(prefix)
            if empty is not None and revision in (None, empty.revision):
                return empty
        return await self._read(lambda c: _list(c, _Scan(prefix, after, revision), limit))

    def _nothing(self, prefix: Prefix) -> Page | None:
        """The page of a range that has no rows, which most questions of admission are about: one step in the index, on the
        event loop. None where there are rows, or where the index does not answer in one step.
        """
        if self._closed or not prefix.resource or (prefix.tenant is None and prefix.namespace is not None):
            return None
        where, values = _where(prefix)
        some = f"SELECT 1 FROM entry INDEXED BY entry_key WHERE {where}"  # noqa: S608 - constant text
        row = self._near.execute(
            f"SELECT value FROM counter WHERE name = 'revision' AND NOT EXISTS ({some})",  # noqa: S608 - constant text
            values,
        ).fetchone()
        return Page([], row[0]) if row else None

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``."""
        if len(ops) > 1 and len({op.key for op in ops}) < len(ops):
            raise DuplicateKeyError("two ops of one commit name the same key")
        if not ops:
            return await self.revision()
        return await self._submit(Job(asyncio.get_running_loop().create_future(), ops))

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        return await self._read(lambda c: _by_term(c, term, tenant))

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``."""
        return await self._read(lambda c: _resources(c, tenant, namespace))

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        return self._hub.watch(prefix, since)

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``."""
        floor = min(keep_from, self._hub.published)
        if floor <= self._hub.oldest:
            return
        self._hub.compacted(floor)
        future = asyncio.get_running_loop().create_future
        await self._submit(Job(future(), upkeep=lambda c: _raise_floor(c, floor)))
        while await self._submit(Job(future(), upkeep=lambda c: _sweep(c, floor))):
            pass

    async def close(self) -> None:
        """See ``Store.close``. What was being committed is still written."""
        if self._closed:
            return
        self._closed = True
        self._hub.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.stop)
        await loop.run_in_executor(None, self._pool.shutdown)
        for connection in (self._near, *self._far):
            connection.close()
        os.close(self._lock)

    async def _submit(self, job: Job) -> int:
        if self._closed:
            raise StoreFailedError("the store is closed")
        self._writer.submit(job)
        return await job.future

    async def _history(self, prefix: Prefix, after: int, to: int) -> Batch:
        return await self._read(lambda c: _history(c, prefix, after, to))

    async def _read(self, scan: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise StoreFailedError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._scan, scan)

    def _scan(self, scan: Callable[[sqlite3.Connection], T]) -> T:
        """In a reader thread: one consistent snapshot."""
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = connect(self._path)
            self._far.append(connection)
        connection.execute("BEGIN")
        try:
            return scan(connection)
        finally:
            connection.execute("COMMIT")


def _counter(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(_COUNTER, (name,)).fetchone()[0]
    return value


class _Scan:
    """The rows of a range that stood at one revision, as SQL and its parameters."""

    def __init__(self, prefix: Prefix, after: Key | None, at: int | None) -> None:
        self.at = at
        where, self.values = _where(prefix, begins_at="" if after is None else after.resource)
        if after is not None:
            # Compared is only what the prefix leaves open, or the index would be read from the range's begin.
            fixed = _fixed(prefix)
            where += f" AND ({', '.join(_COLUMNS[fixed:])}) > ({', '.join('?' * (4 - fixed))})"
            self.values += (after.resource, after.tenant, after.namespace, after.name)[fixed:]
        self.where = where

    def page(self, present: int, limit: int) -> tuple[str, tuple[object, ...]]:
        """The statement for the first ``limit`` rows in order (-1: all). For the past: the present, with each later change undone
        by what stood before a key's first one. Each half is cut in the index's order before the two are merged: what is behind
        the page is not read.
        """
        cut = f"ORDER BY {_ROW} LIMIT ?"
        now = f"SELECT {_ROW}, value, revision FROM entry INDEXED BY entry_key WHERE {self.where}"  # noqa: S608
        if self.at is None or self.at == present:
            return f"{now} {cut}", (*self.values, limit)
        undone = f"SELECT {_ROW}, previous, before FROM ({self._first('previous, before')}) WHERE previous IS NOT NULL"  # noqa: S608
        sql = f"SELECT * FROM (SELECT * FROM ({now} AND revision <= ? {cut}) UNION ALL SELECT * FROM ({undone} {cut})) {cut}"  # noqa: S608
        return sql, (*self.values, self.at, limit, *self.values, self.at, limit, limit)

    def count(self, present: int) -> tuple[str, tuple[object, ...]]:
        """The statement for how many rows there are. For the past: those of the present, which the index alone knows, with those
        that were deleted since and without those that were made since.
        """
        now = f"SELECT count(*) FROM entry INDEXED BY entry_key WHERE {self.where}"  # noqa: S608
        if self.at is None or self.at == present:
            return now, self.values
        stood = f"SELECT count(*) FROM ({self._first('previous')}) WHERE previous IS NOT NULL"  # noqa: S608
        stand = f"SELECT count(*) FROM ({self._first('value', 'max')}) WHERE value IS NOT NULL"  # noqa: S608
        values = (*self.values, self.at)
        return f"SELECT ({now}) + ({stood}) - ({stand})", (*self.values, *values, *values)

    def _first(self, columns: str, which: str = "min") -> str:
        """Of each key's changes after ``at`` the first one, or the last (the bare columns beside min() and max() are those of the
        row that has it).
        """
        return (
            f"SELECT {_ROW}, {columns}, {which}(revision) FROM log WHERE {self.where} AND revision > ? GROUP BY {_ROW}"  # noqa: S608
        )


def _fixed(prefix: Prefix) -> int:
    """How many of a key's parts, from the first on, are the same in the whole range."""
    if not prefix.resource or prefix.tenant is None:
        return 1 if prefix.resource else 0
    return 2 if prefix.namespace is None else 3


def _where(prefix: Prefix, begins_at: str = "") -> tuple[str, tuple[object, ...]]:
    """``begins_at`` says that a page of all resources goes on in this one: its own comparison is all that the index needs."""
    if prefix.resource:
        where, values = "resource = ?", [prefix.resource]
    else:
        where, values = ("+resource >= ?", [begins_at]) if begins_at else ("resource > ?", [""])
    if prefix.tenant is not None:
        where, values = where + " AND tenant = ?", [*values, prefix.tenant]
    if prefix.namespace is not None:
        where, values = where + " AND namespace = ?", [*values, prefix.namespace]
    return where, tuple(values)


def _list(connection: sqlite3.Connection, scan: _Scan, limit: int) -> Page:
    present, oldest = _counter(connection, "revision"), _counter(connection, "oldest")
    at = present if scan.at is None else scan.at
    if at > present:
        raise FutureRevisionError(f"revision {at} has not happened, the store is at {present}")
    if at < oldest:
        raise CompactedError(at, oldest)
    # One row more than asked for tells whether this page is the last.
    rows = connection.execute(*scan.page(present, limit + 1 if limit else -1))
    found, more = _take(rows, limit) if limit else (rows.fetchall(), False)
    entries = [Entry(Key(r[0], r[1], r[2], r[3]), r[4], r[5]) for r in found]
    if not more:
        return Page(entries, at)
    total = connection.execute(*scan.count(present)).fetchone()[0]
    return Page(entries, at, entries[-1].key, total - len(entries))


def _take(rows: Iterable[tuple[Any, ...]], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The rows of a limited page, and whether there are more; the others are not read."""
    found: list[tuple[Any, ...]] = []
    total = 0
    for row in rows:
        if len(found) == limit or total >= PAGE_BYTES:
            return found, True
        found.append(row)
        total += len(row[4])
    return found, False


def _by_term(connection: sqlite3.Connection, term: str, tenant: str | None) -> Sequence[Key]:
    where, values = ("", (term,)) if tenant is None else (" AND tenant = ?", (term, tenant))
    rows = connection.execute(
        f"SELECT {_ROW} FROM term JOIN entry ON entry.id = term.entry WHERE term = ?{where} ORDER BY {_ROW}",  # noqa: S608
        values,
    )
    return [Key(*row) for row in rows]


def _resources(connection: sqlite3.Connection, tenant: str | None, namespace: str | None) -> Mapping[str, int]:
    asked = [(name, value) for name, value in (("tenant", tenant), ("namespace", namespace)) if value is not None]
    where = f"WHERE {' AND '.join(f'{name} = ?' for name, _ in asked)}" if asked else ""
    rows = connection.execute(
        f"SELECT resource, count(*) FROM entry {where} GROUP BY resource ORDER BY resource",  # noqa: S608
        tuple(value for _, value in asked),
    )
    return dict(rows.fetchall())


def _history(connection: sqlite3.Connection, prefix: Prefix, after: int, to: int) -> Batch:
    oldest = _counter(connection, "oldest")
    if after < oldest:
        raise CompactedError(after, oldest)
    where, values = _where(prefix)
    where, values = f"{where} AND revision > ? AND revision <= ?", (*values, after, to)
    # A step ends with the commit that its last change belongs to, never inside it.
    sizes = connection.execute(
        f"SELECT revision, coalesce(length(value), 0) + coalesce(length(previous), 0) FROM log WHERE {where} ORDER BY seq",  # noqa: S608
        values,
    )
    to = step_end(sizes, to)
    rows = connection.execute(
        f"SELECT revision, {_ROW}, value, previous FROM log WHERE {where} AND revision <= ? ORDER BY seq",  # noqa: S608
        (*values, to),
    )
    return Batch([change_of(row) for row in rows], to)


def _raise_floor(connection: sqlite3.Connection, floor: int) -> int:
    connection.execute("UPDATE counter SET value = max(value, ?) WHERE name = 'oldest'", (floor,))
    return 0


def _sweep(connection: sqlite3.Connection, floor: int) -> int:
    """Forgets some of the log; returns how many rows. Changes up to the floor itself are never asked for."""
    cursor = connection.execute(
        "DELETE FROM log WHERE seq IN (SELECT seq FROM log WHERE revision <= ? ORDER BY revision LIMIT ?)",
        (floor, SWEEP),
    )
    return cursor.rowcount
