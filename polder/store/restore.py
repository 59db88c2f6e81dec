"""Writes rows of a backup into a store: in few commits, each of which a backend takes as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from polder.store.backup import BackupError
from polder.store.protocol import EVERYTHING, ConflictError, Delete, Key, Op, Put, Store, TooLargeError

BATCH: Final = 500
SMALL: Final = 20
"""Rows of a commit where the backend refuses a larger one: etcd's limit is 128 operations, and a row may take some."""


def batches(ops: Iterable[Op], size: int) -> Iterator[list[Op]]:
    """In order."""
    left = iter(ops)
    while batch := list(islice(left, size)):
        yield batch


async def write(store: Store, ops: Iterable[Op]) -> int:
    """Commits all, in order; returns how many. Raises StoreError, ConflictError: what is committed by then stays."""
    count = 0
    for batch in batches(ops, BATCH):
        try:
            await store.commit(batch)
        except TooLargeError:
            for part in batches(batch, SMALL):
                await store.commit(part)
        count += len(batch)
    return count


async def write_missing(store: Store, puts: Iterable[Put]) -> int:
    """Commits new rows, all at once where the backend can, in order otherwise; then what stands there already (controllers
    are fast) is left as it is. Returns how many. Raises StoreError.
    """
    wanted = list(puts)
    with suppress(TooLargeError):  # then part by part
        await store.commit(wanted)
        return len(wanted)
    count = 0
    for part in batches(wanted, SMALL):
        try:
            await store.commit(part)
            count += len(part)
        except ConflictError:
            for op in part:
                try:
                    await store.commit([op])
                    count += 1
                except ConflictError:
                    continue
    return count


async def check_empty(store: Store, *, force: bool) -> None:
    """Raises BackupError where the store has rows, unless these may go."""
    if not force and (await store.list(EVERYTHING, limit=1)).entries:
        raise BackupError("the store is not empty; --force deletes what it has")


async def clear(store: Store) -> None:
    """Deletes every row."""
    while entries := (await store.list(EVERYTHING, limit=BATCH)).entries:
        await write(store, (Delete(entry.key) for entry in entries))


async def restore_all(store: Store, rows: Iterable[tuple[Key, bytes, tuple[str, ...]]]) -> int:
    """Writes rows (key, value, index terms) in place of all that the store has. Returns how many. Raises StoreError."""
    await clear(store)
    return await write(store, (Put(key, value, 0, terms) for key, value, terms in rows))
