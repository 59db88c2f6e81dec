"""The SQLite store's writer: one transaction for all commits that wait (group commit).

A disk sync costs the same for one commit as for a hundred, so whatever arrived during the last sync shares the next.
Each commit checks its own expectations and fails alone. The sync is waited for in a thread. The statements of a small group
run on the event loop: a thread would have to wait for the interpreter's lock at each of them, half a millisecond beside
a busy loop. While several tenants write, a group has only a few commits of each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
SHARE = 4
"""The most jobs of one tenant in a transaction while others write too."""
NEAR_OPS, NEAR_BYTES = 48, 256 * 1024
"""Ops and bytes of a transaction whose statements run on the event loop: about a millisecond."""
RECENT = 1.0
"""Seconds for which a tenant that wrote counts among those that share."""

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


class Waiting:
    """Jobs by tenant, in the order in which they came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._jobs: dict[str, deque[Job]] = {}
        self._seen: dict[str, float] = {}

    def add(self, job: Job) -> None:
        """Behind those of its tenant, that of its first op."""
        tenant = job.ops[0].key.tenant if job.ops else ""
        self._jobs.setdefault(tenant, deque()).append(job)
        self._seen.pop(tenant, None)
        self._seen[tenant] = self._clock()

    def take(self) -> list[Job]:
        """The next group: all that wait of one tenant, or a few of each of several."""
        long_ago = self._clock() - RECENT
        while self._seen and (oldest := next(iter(self._seen.items())))[1] < long_ago:
            del self._seen[oldest[0]]
        share = SHARE if len(self._seen | dict.fromkeys(self._jobs)) > 1 else GROUP
        group: list[Job] = []
        for tenant, jobs in list(self._jobs.items()):
            del self._jobs[tenant]
            group += [jobs.popleft() for _ in range(min(share, len(jobs), GROUP - len(group)))]
            if jobs:
                self._jobs[tenant] = jobs  # behind the others
        return group


class Writer:
    """Owns the writing connection. All but what its thread does happens on the event loop."""

    def __init__(self, connection: sqlite3.Connection, hub: Hub) -> None:
        self._connection = connection
        self._hub = hub
        self._revision = hub.published
        self._waiting = Waiting()
        self._thread = ThreadPoolExecutor(1, "store-writer")
        self._work: asyncio.Task[None] | None = None

    def submit(self, job: Job) -> None:
        """Queues a job; its future is resolved on its loop."""
        self._waiting.add(job)
        if self._work is None:
            self._work = asyncio.get_running_loop().create_task(self._run(), name="store-writer")

    async def stop(self) -> None:
        """Writes what was queued, then closes the connection."""
        if self._work is not None:
            await self._work
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)
        self._connection.close()

    async def _run(self) -> None:
        """While there are jobs."""
        while group := self._waiting.take():
            await self._commit(group)
            _resolve(group, self._hub)
        self._work = None

    async def _commit(self, group: Sequence[Job]) -> None:
        begun = self._begin(group) if _is_small(group) else None
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end, group, begun)

    def _begin(self, group: Sequence[Job]) -> int | None:
        """A transaction's statements, here; the revision before it. None where they did not go through."""
        start = self._revision
        try:
            self._statements(group)
        except Exception as error:  # noqa: BLE001 - each job is tried alone next, and says what it was
            log.warning("store: a group of %d could not be written, it is tried again: %s", len(group), error)
            self._undo(group, start)
            return None
        return start

    def _end(self, group: Sequence[Job], begun: int | None) -> None:
        """In the thread: ends the transaction that was ``begun`` after that revision, or does all of it."""
        if begun is None:
            self._write(group)
            return
        try:
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - as above
            log.warning("store: a group of %d could not be committed, it is tried again: %s", len(group), error)
            self._undo(group, begun)
            self._write(group)

    def _write(self, group: Sequence[Job]) -> None:
        start = self._revision
        try:
            self._statements(group)
            self._connection.execute("COMMIT")
        except Exception as error:
            self._undo(group, start)
            if len(group) == 1:
                group[0].error = StoreFailedError(f"the store could not write: {error}")
                group[0].error.__cause__ = error
                log.exception("store: a write failed")
                return
            # One job may be what the database refuses: the others must not fail with it.
            for job in group:
                self._write([job])

    def _undo(self, group: Sequence[Job], start: int) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._revision = self._hub.assigned = start
        for job in group:
            job.changes, job.error = [], None

    def _statements(self, group: Sequence[Job]) -> None:
        """All of a transaction but its commit."""
        connection, start = self._connection, self._revision
        connection.execute("BEGIN IMMEDIATE")
        for job in group:
            if job.upkeep is not None:
                job.revision = job.upkeep(connection)
            else:
                self._apply(job)
        if self._revision != start:
            connection.execute("UPDATE counter SET value = ? WHERE name = 'revision'", (self._revision,))
        self._hub.assigned = self._revision  # before the commit, for then readers can see it

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


def _is_small(group: Sequence[Job]) -> bool:
    """Whether its statements take so little that they may run on the event loop."""
    if any(job.upkeep is not None for job in group):
        return False
    ops = [op for job in group for op in job.ops]
    return len(ops) <= NEAR_OPS and sum(len(op.value) for op in ops if isinstance(op, Put)) <= NEAR_BYTES


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
