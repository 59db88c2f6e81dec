"""The tables of the SQLite store: creating them, carrying them forward, and owning the file.

``PRAGMA user_version`` is the schema number. A migration runs in one transaction, after a copy of the file was laid
beside it as ``NAME.v<old number>.backup``.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from polder.base.errors import PermanentError
from polder.store.protocol import NO_TERMS, Indexer, Key, StoreError

Migration = Sequence[str]

MIGRATIONS: tuple[Migration, ...] = (
    (
        """CREATE TABLE entry (
            id INTEGER PRIMARY KEY,
            resource TEXT NOT NULL, tenant TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            revision INTEGER NOT NULL, value BLOB NOT NULL)""",
        "CREATE UNIQUE INDEX entry_key ON entry (resource, tenant, namespace, name)",
        # "previous" and "before" (its revision) let a list at an old revision undo a change, even if the change
        # before it is compacted. A deletion keeps the last value in "previous" only.
        """CREATE TABLE log (
            seq INTEGER PRIMARY KEY,
            revision INTEGER NOT NULL,
            resource TEXT NOT NULL, tenant TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
            value BLOB, previous BLOB, before INTEGER NOT NULL)""",
        "CREATE INDEX log_revision ON log (revision)",
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "INSERT INTO counter VALUES ('revision', 1), ('oldest', 0)",
    ),
    (
        # "terms" holds a row's own index terms as a JSON list, or nothing: most rows have none, and their writes then
        # touch no second table.
        "ALTER TABLE entry ADD COLUMN terms TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE term (term TEXT NOT NULL, entry INTEGER NOT NULL, PRIMARY KEY (term, entry)) WITHOUT ROWID",
        "CREATE INDEX entry_place ON entry (tenant, namespace, resource)",
        "INSERT INTO counter VALUES ('terms', 0)",
    ),
)

REINDEX = 1000
"""Rows whose terms are computed between two reads of the table."""


class StoreFileError(StoreError, PermanentError):
    """The file cannot be used: in use by another server, made by a newer Polder, or no database."""


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)


def take_lock(path: Path) -> int:
    """Makes this process the file's only user until the returned descriptor is closed: the revision counter is kept in
    memory, so that two servers on one file would be wrong.
    """
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise StoreFileError(f"store {path} is in use by another process; stop that one first") from error
    return fd


def prepare(
    path: Path, migrations: Sequence[Migration] = MIGRATIONS, indexer: Indexer = NO_TERMS
) -> sqlite3.Connection:
    """Creates the file (mode 0600) or carries it forward, and returns the writer's connection,
    whose commits are on the disk when they return.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = connect(path)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        _start_log(connection, path)
        _migrate(connection, path, migrations)
        _index(connection, indexer)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreFileError(f"store {path} cannot be opened: {error}") from error
    except StoreFileError:
        connection.close()
        raise
    return connection


def advance(path: Path, revision: int) -> None:
    """Makes a file that no server has open go on after ``revision``: what clients remember of later ones is expired to them,
    never taken for something else. Raises StoreFileError.
    """
    lock = take_lock(path)
    try:
        connection = prepare(path)
        connection.execute("UPDATE counter SET value = max(value, ?) WHERE name IN ('revision', 'oldest')", (revision,))
        connection.close()
    finally:
        os.close(lock)


def _start_log(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreFileError(f"store {path}: the file system cannot hold a write-ahead log (journal mode {mode})")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if number > len(migrations):
        raise StoreFileError(
            f"store {path} has schema {number}, this Polder knows up to {len(migrations)}; use the newer Polder"
        )
    for index in range(number, len(migrations)):
        if number > 0:
            _back_up(connection, path.with_name(f"{path.name}.v{index}.backup"))
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in migrations[index]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {index + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _index(connection: sqlite3.Connection, indexer: Indexer) -> None:
    """Computes the terms of all rows if they were computed by another indexer's version; all at once or not at all."""
    if indexer is NO_TERMS:
        return
    version: int = connection.execute("SELECT value FROM counter WHERE name = 'terms'").fetchone()[0]
    if version == indexer.version:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("DELETE FROM term")
        last = 0
        while rows := connection.execute(
            "SELECT id, resource, tenant, namespace, name, value FROM entry WHERE id > ? ORDER BY id LIMIT ?",
            (last, REINDEX),
        ).fetchall():
            last = rows[-1][0]
            for number, resource, tenant, namespace, name, value in rows:
                write_terms(connection, number, indexer.terms(Key(resource, tenant, namespace, name), value))
        connection.execute("UPDATE counter SET value = ? WHERE name = 'terms'", (indexer.version,))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def terms_text(terms: tuple[str, ...]) -> str:
    """Terms as a row holds them."""
    return json.dumps(sorted(set(terms))) if terms else ""


def write_terms(connection: sqlite3.Connection, number: int, terms: tuple[str, ...]) -> None:
    """Sets the terms of a row that has none in the index."""
    connection.execute("UPDATE entry SET terms = ? WHERE id = ?", (terms_text(terms), number))
    connection.executemany("INSERT OR IGNORE INTO term VALUES (?, ?)", [(term, number) for term in terms])


def _back_up(connection: sqlite3.Connection, target: Path) -> None:
    """A consistent copy on the disk, complete or absent."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        copy = sqlite3.connect(partial)
        try:
            connection.backup(copy)
        finally:
            copy.close()
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.replace(target)
