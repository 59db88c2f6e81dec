"""The store on SQLite: a write-ahead log with full sync, one writer, readers beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from polder.store.hub import Hub, HubSettings
from polder.store.protocol import (
    NO_TERMS,
    Batch,
    CompactedError,
    DuplicateKeyError,
    Entry,
    Indexer,
    Key,
    Op,
    Page,
    Prefix,
    StoreFailedError,
    step_end,
)
from polder.store.schema import connect, prepare, take_lock
from polder.store.sqlite_scan import COUNTER, NEAR, ROW, Scan, counter, list_page, near_page, where_of
from polder.store.writer import Job, Writer, change_of

T = TypeVar("T")

SWEEP = 2000
"""Rows of the log forgotten in one transaction, so that compaction never holds up commits for long."""

_GET = f"SELECT value, revision FROM entry WHERE ({ROW}) = (?, ?, ?, ?)"  # noqa: S608 - constant text


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
    """``Store`` on one SQLite file. Single reads and short pages run on the event loop (10 µs and a third of a
    millisecond); other scans run in two reader threads with connections of their own.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int, settings: HubSettings) -> None:
        self._path = path
        self._lock = lock
        revision = connection.execute(COUNTER, ("revision",)).fetchone()[0]
        oldest = connection.execute(COUNTER, ("oldest",)).fetchone()[0]
        self._hub = Hub(revision, oldest, self._history, settings)
        self._near = connect(path)
        self._far: list[sqlite3.Connection] = []
        self._mine = threading.local()
        self._pool = ThreadPoolExecutor(2, "store-reader")
        self._writer = Writer(connection, self._hub)
        self._closed = False

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return counter(self._near, "revision")

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
        scan = Scan(prefix, after, revision)
        if 0 < limit <= NEAR and revision in (None, self._hub.published) and not self._closed:
            page = near_page(self._near, scan, limit)
            if page is not None:
                return page
        return await self._read(lambda c: list_page(c, scan, limit))

    def _nothing(self, prefix: Prefix) -> Page | None:
        """The page of a range that has no rows, which most questions of admission are about: one step in the index, on the
        event loop. None where there are rows, or where the index does not answer in one step.
        """
        if self._closed or not prefix.resource or (prefix.tenant is None and prefix.namespace is not None):
            return None
        where, values = where_of(prefix)
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
        await self._writer.stop()
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


def _by_term(connection: sqlite3.Connection, term: str, tenant: str | None) -> Sequence[Key]:
    where, values = ("", (term,)) if tenant is None else (" AND tenant = ?", (term, tenant))
    rows = connection.execute(
        f"SELECT {ROW} FROM term JOIN entry ON entry.id = term.entry WHERE term = ?{where} ORDER BY {ROW}",  # noqa: S608
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
    oldest = counter(connection, "oldest")
    if after < oldest:
        raise CompactedError(after, oldest)
    where, values = where_of(prefix)
    where, values = f"{where} AND revision > ? AND revision <= ?", (*values, after, to)
    # A step ends with the commit that its last change belongs to, never inside it.
    sizes = connection.execute(
        f"SELECT revision, coalesce(length(value), 0) + coalesce(length(previous), 0) FROM log WHERE {where} ORDER BY seq",  # noqa: S608
        values,
    )
    to = step_end(sizes, to)
    rows = connection.execute(
        f"SELECT revision, {ROW}, value, previous FROM log WHERE {where} AND revision <= ? ORDER BY seq",  # noqa: S608
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
