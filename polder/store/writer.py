"""The SQLite store's writer: one thread, one transaction for all commits that wait (group commit).

A disk sync costs the same for one commit as for a hundred, so whatever arrived during the last sync shares the next.
Each commit checks its own expectations and fails alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from polder.store.hub import Hub
from polder.store.protocol import (
    Change,
    ChangeType,
    Check,
    ConflictError,
    Delete,
    Entry,
    Key,
    Op,
    Put,
    StoreFailedError,
)
from polder.store.schema import terms_text, write_terms

log = logging.getLogger(__name__)

GROUP = 512
"""The most jobs of one transaction: bounds what one failed sync takes along, and the pause of the others."""

_SELECT = (
    "SELECT id, revision, value, terms FROM entry WHERE resource = ? AND tenant = ? AND namespace = ? AND name = ?"
)
_INSERT = "INSERT INTO entry (resource, tenant, namespace, name, revision, value) VALUES (?, ?, ?, ?, ?, ?)"
_UNINDEX = "DELETE FROM term WHERE term = ? AND entry = ?"
_UPDATE = "UPDATE entry SET revision = ?, value = ? WHERE id = ?"
_DELETE = "DELETE FROM entry WHERE id = ?"
_LOG = (
    "INSERT INTO log (revision, resource, tenant, namespace, name, value, previous, before)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

_Row = tuple[int, int, bytes, str]
"""A row of the table: its number, revision, value and terms."""


@dataclass(slots=True)
class Job:
    """What waits to be written: the ops of a commit, or an ``upkeep`` of the tables. ``revision`` and ``changes``, or
    ``error``, are filled in by the writer.
    """

    future: asyncio.Future[int]
    ops: Sequence[Op] = ()
    upkeep: Callable[[sqlite3.Connection], int] | None = None
    revision: int = 0
    changes: list[Change] = field(default_factory=list)
    error: Exception | None = None


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(self, connection: sqlite3.Connection, hub: Hub) -> None:
        self._connection = connection
        self._hub = hub
        self._revision = hub.published
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job; its future is resolved on its loop."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Writes what was queued, then closes the connection. Blocks."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                if group:
                    self._write(group)
                    self._hand_back(group)
        finally:
            self._connection.close()

    def _next_group(self) -> list[Job] | None:
        first = self._jobs.get()
        if first is None:
            return None
        group = [first]
        while len(group) < GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            group.append(job)
        return group

    def _write(self, group: Sequence[Job]) -> None:
        try:
            self._transact(group)
        except Exception as error:
            if len(group) == 1:
                group[0].error = StoreFailedError(f"the store could not write: {error}")
                group[0].error.__cause__ = error
                log.exception("store: a write failed")
                return
            # One job may be what the database refuses: the others must not fail with it.
            for job in group:
                job.changes, job.error = [], None
                self._write([job])

    def _transact(self, group: Sequence[Job]) -> None:
        connection, start = self._connection, self._revision
        connection.execute("BEGIN IMMEDIATE")
        try:
            for job in group:
                if job.upkeep is not None:
                    job.revision = job.upkeep(connection)
                else:
                    self._apply(job)
            if self._revision != start:
                connection.execute("UPDATE counter SET value = ? WHERE name = 'revision'", (self._revision,))
            self._hub.assigned = self._revision  # before the commit, for then readers can see it
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._revision = self._hub.assigned = start
            raise

    def _apply(self, job: Job) -> None:
        """Checks all of a commit's expectations, then writes; so nothing has to be undone when one does not hold."""
        stand = []
        for op in job.ops:
            key = op.key
            row = self._connection.execute(_SELECT, (key.resource, key.tenant, key.namespace, key.name)).fetchone()
            at = row[1] if row else 0
            if (op.expect is not None and op.expect != at) or (row is None and isinstance(op, Delete)):
                job.error = ConflictError(key, Entry(key, row[2], at) if row else None)
                return
            stand.append(row)
        revision = self._revision + 1
        for op, row in zip(job.ops, stand, strict=True):
            if not isinstance(op, Check):
                job.changes.append(self._apply_op(op, row, revision))
        if job.changes:
            self._revision = revision
        job.revision = self._revision

    def _apply_op(self, op: Put | Delete, row: _Row | None, revision: int) -> Change:
        execute, key = self._connection.execute, op.key
        names = (key.resource, key.tenant, key.namespace, key.name)
        previous, before = (row[2], row[1]) if row else (None, 0)
        if isinstance(op, Put):
            if row:
                number = row[0]
                execute(_UPDATE, (revision, op.value, number))
            else:
                number = execute(_INSERT, (*names, revision, op.value)).lastrowid or 0
            self._index(number, row[3] if row else "", op.terms)
            execute(_LOG, (revision, *names, op.value, previous, before))
            return Change(ChangeType.PUT, key, op.value, previous, revision)
        assert row is not None
        self._index(row[0], row[3], ())
        execute(_DELETE, (row[0],))
        execute(_LOG, (revision, *names, None, previous, before))
        return Change(ChangeType.DELETE, key, row[2], previous, revision)

    def _index(self, number: int, old: str, terms: tuple[str, ...]) -> None:
        """Replaces a row's terms; nothing to do for most writes."""
        if terms_text(terms) == old:
            return
        if old:
            self._connection.executemany(_UNINDEX, [(term, number) for term in json.loads(old)])
        write_terms(self._connection, number, terms)

    def _hand_back(self, group: Sequence[Job]) -> None:
        try:
            group[0].future.get_loop().call_soon_threadsafe(_resolve, group, self._hub)
        except RuntimeError:
            log.warning("store: the event loop ended before %d commits were acknowledged", len(group))


def _resolve(group: Sequence[Job], hub: Hub) -> None:
    """On the loop, in one step: whoever learns of a commit finds it published. Authors are woken first: they wait for the
    answer (a quarter of the time of a lone write was watchers' work), watchers come right after.
    """
    for job in group:
        if job.future.done():  # its author was cancelled; what is committed stays committed
            continue
        if job.error is None:
            job.future.set_result(job.revision)
        else:
            job.future.set_exception(job.error)
    for job in group:
        if job.changes and job.error is None:
            hub.publish(job.revision, job.changes)


def change_of(row: tuple[int, str, str, str, str, bytes | None, bytes | None]) -> Change:
    """A row of the log (revision, four parts of the key, value, previous) as a change."""
    revision, resource, tenant, namespace, name, value, previous = row
    key = Key(resource, tenant, namespace, name)
    if value is None:
        return Change(ChangeType.DELETE, key, previous or b"", previous, revision)
    return Change(ChangeType.PUT, key, value, previous, revision)
