"""The statements of the SQLite store that read ranges of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import orjson

from polder.store.protocol import PAGE_BYTES, CompactedError, Entry, FutureRevisionError, Key, Page, Prefix

NEAR = 128
"""The most rows of a page that is read on the event loop."""
COUNTED = 2000
"""The most rows behind such a page that are counted there (a tenth of a millisecond)."""
COUNTER = "SELECT value FROM counter WHERE name = ?"
_COLUMNS = ("resource", "tenant", "namespace", "name")
ROW = ", ".join(_COLUMNS)


def counter(connection: sqlite3.Connection, name: str) -> int:
    """One of the store's numbers: ``revision``, or ``oldest``, up to which the log is forgotten."""
    value: int = connection.execute(COUNTER, (name,)).fetchone()[0]
    return value


class Scan:
    """The rows of a range that stood at one revision, as SQL and its parameters."""

    def __init__(self, prefix: Prefix, after: Key | None, at: int | None) -> None:
        self.at = at
        where, self.values = where_of(prefix, begins_at="" if after is None else after.resource)
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
        cut = f"ORDER BY {ROW} LIMIT ?"
        now = f"SELECT {ROW}, value, revision FROM entry INDEXED BY entry_key WHERE {self.where}"  # noqa: S608
        if self.at is None or self.at == present:
            return f"{now} {cut}", (*self.values, limit)
        undone = f"SELECT {ROW}, previous, before FROM ({self._first('previous, before')}) WHERE previous IS NOT NULL"  # noqa: S608
        sql = f"SELECT * FROM (SELECT * FROM ({now} AND revision <= ? {cut}) UNION ALL SELECT * FROM ({undone} {cut})) {cut}"  # noqa: S608
        return sql, (*self.values, self.at, limit, *self.values, self.at, limit, limit)

    def near(self) -> str:
        """The statement for the same rows of the present as one row: the revision, keys with revisions and sizes, values one
        after the other. Python's module gives the interpreter's lock away at each row that it fetches; a page of a hundred
        waited for a busy loop a hundred times. What is behind ``PAGE_BYTES`` is not read.
        """
        rows = (
            f"SELECT id, length(value) AS size, sum(length(value)) OVER (ORDER BY {ROW} ROWS UNBOUNDED PRECEDING)"  # noqa: S608
            f" - length(value) AS before FROM entry INDEXED BY entry_key WHERE {self.where} ORDER BY {ROW} LIMIT ?"
        )
        keys = ", ".join(f"e.{name}" for name in _COLUMNS)
        return (
            f"SELECT (SELECT value FROM counter WHERE name = 'revision'),"  # noqa: S608
            f" json_group_array(json_array({keys}, e.revision, p.size)),"
            f" CAST(group_concat(CASE WHEN p.before < {PAGE_BYTES} THEN e.value ELSE '' END, '') AS BLOB)"
            f" FROM ({rows}) p CROSS JOIN entry e ON e.id = p.id"
        )

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
        return f"SELECT {ROW}, {columns}, {which}(revision) FROM log WHERE {self.where} AND revision > ? GROUP BY {ROW}"  # noqa: S608


def _fixed(prefix: Prefix) -> int:
    """How many of a key's parts, from the first on, are the same in the whole range."""
    if not prefix.resource or prefix.tenant is None:
        return 1 if prefix.resource else 0
    return 2 if prefix.namespace is None else 3


def where_of(prefix: Prefix, begins_at: str = "") -> tuple[str, tuple[object, ...]]:
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


def list_page(connection: sqlite3.Connection, scan: Scan, limit: int) -> Page:
    """The rows of one page (0: of all), at any revision that is kept. Raises FutureRevisionError, CompactedError."""
    present, oldest = counter(connection, "revision"), counter(connection, "oldest")
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


def near_page(connection: sqlite3.Connection, scan: Scan, limit: int) -> Page | None:
    """A page of the present in one step. None where the present is not the revision asked for, or too many rows are behind it."""
    present, keys, values = connection.execute(scan.near(), (*scan.values, limit + 1)).fetchone()
    if scan.at is not None and scan.at != present:
        return None
    entries: list[Entry] = []
    begin, rows = 0, orjson.loads(keys)
    for resource, tenant, namespace, name, revision, size in rows[:limit]:
        if begin >= PAGE_BYTES:
            break
        entries.append(Entry(Key(resource, tenant, namespace, name), values[begin : begin + size], revision))
        begin += size
    if len(entries) == len(rows):
        return Page(entries, present)
    some = f"SELECT count(*) FROM (SELECT 1 FROM entry INDEXED BY entry_key WHERE {scan.where} LIMIT {COUNTED})"  # noqa: S608
    total = connection.execute(some, scan.values).fetchone()[0]
    if total == COUNTED:
        return None
    return Page(entries, present, entries[-1].key, total - len(entries))
