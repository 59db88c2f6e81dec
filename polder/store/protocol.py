"""The store's contract: a revisioned log of small values with compare-and-swap and watch.

One counter numbers every change of the whole store. Keys are structured, so that one prefix scan answers each
kind of list: a resource over all tenants, of one tenant, of one namespace.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from polder.base.errors import PermanentError, PolderError, RetryableError


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """``resource`` is ``plural.group`` (``pods`` for core); the namespace is empty for cluster-scoped kinds."""

    resource: str
    tenant: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """A range of keys; None means every tenant or every namespace, an empty resource every resource."""

    resource: str
    tenant: str | None = None
    namespace: str | None = None


EVERYTHING = Prefix("")
"""Every key of the store (no resource is without a name): what a watch of all changes and a backup ask for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it was after the change numbered ``revision``."""

    key: Key
    value: bytes
    revision: int


PAGE_BYTES: Final = 2 << 20
"""Bytes of values after which a page of a limited list ends, so that a reader's memory does not follow the size of objects."""


@dataclass(frozen=True, slots=True)
class Page:
    """A consistent read at ``revision``. ``after`` continues it; None when this was the last page."""

    entries: Sequence[Entry]
    revision: int
    after: Key | None = None
    remaining: int = 0


def page_end(sizes: Iterable[int], limit: int) -> int:
    """How many of the entries, given by the sizes of their values, a page with a limit holds."""
    count = total = 0
    for size in sizes:
        if count == limit or total >= PAGE_BYTES:
            break
        count, total = count + 1, total + size
    return count


class ChangeType(Enum):
    """What happened to a key."""

    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One step of the log. ``value`` is the new value, or of a deletion the last one. ``previous`` is what stood
    before, None for a creation.
    """

    type: ChangeType
    key: Key
    value: bytes
    previous: bytes | None
    revision: int

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return len(self.value) + len(self.previous or b"")


STEP: Final = 1024
STEP_BYTES: Final = 1 << 20
"""Changes, and bytes of them, after which a step through the past ends, with the commit that reaches it."""


def step_end(changes: Iterable[tuple[int, int]], to: int) -> int:
    """The last revision of a step, given revision and size of each change in order; ``to`` where all fit."""
    count = total = last = 0
    for revision, size in changes:
        if (count >= STEP or total >= STEP_BYTES) and revision > last:
            return last
        count, total, last = count + 1, total + size, revision
    return to


@dataclass(frozen=True, slots=True)
class Batch:
    """A step of a watch: every matching change after the batch before it, up to and with ``revision``."""

    changes: Sequence[Change]
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write ``value`` if the key's revision is ``expect``: 0 means absent, None means anything.

    ``terms`` are opaque words under which ``Store.by_term`` finds the key. They stand as long as the row does: each Put
    replaces them, a Delete takes them along.
    """

    key: Key
    value: bytes
    expect: int | None = None
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key if its revision is ``expect``; None means anything (absent is a conflict)."""

    key: Key
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing, but let the commit fail unless the key's revision is ``expect`` (0: the key is absent)."""

    key: Key
    expect: int


Op = Put | Delete | Check


@dataclass(frozen=True, slots=True)
class Indexer:
    """How the terms of a stored row follow from it. A backend that opens rows indexed under another ``version``, or
    under none, computes the terms of all of them anew.
    """

    version: int
    terms: Callable[[Key, bytes], tuple[str, ...]]


def _no_terms(_key: Key, _value: bytes) -> tuple[str, ...]:
    return ()


NO_TERMS = Indexer(0, _no_terms)
"""Rows have the terms that their Puts gave them and no others."""


class StoreError(PolderError):
    """Root of what the store raises."""


class ConflictError(StoreError, RetryableError):
    """An expectation did not hold; nothing was written. ``current`` is what stands there, None if absent."""

    def __init__(self, key: Key, current: Entry | None) -> None:
        super().__init__(f"{key} changed")
        self.key = key
        self.current = current


class DuplicateKeyError(StoreError, PermanentError):
    """Two ops of one commit name the same key."""


class StoreFailedError(StoreError, RetryableError):
    """The backend could not write (disk full, file gone, closed): nothing of the commit is acknowledged."""


class StoreUnknownError(StoreFailedError):
    """The connection to the backend was lost after a commit was sent: it may stand or not."""


class TooLargeError(StoreError, PermanentError):
    """The backend cannot take a value, or a commit, of this size."""


class CompactedError(StoreError, PermanentError):
    """The revision asked for is older than ``oldest``, the oldest one kept."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} is compacted, the oldest kept is {oldest}")
        self.oldest = oldest


class FutureRevisionError(StoreError, PermanentError):
    """The revision asked for has not happened."""


class Store(Protocol):
    """What the API server asks of a backend. All methods may be called concurrently from one event loop."""

    async def revision(self) -> int:
        """The revision of the last committed change; a fresh store is at 1."""
        ...

    async def get(self, key: Key) -> Entry | None:
        """The current value, linearizable."""
        ...

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """Entries in key order. ``limit`` 0 is no limit; a page with a limit also ends with the entry that fills
        ``PAGE_BYTES``. ``revision`` pins later pages to the first one's.

        Raises CompactedError, FutureRevisionError.
        """
        ...

    async def commit(self, ops: Sequence[Op]) -> int:
        """All or nothing, durable when it returns; all ops get the returned revision, which is the present one where
        nothing is written. Raises ConflictError, DuplicateKeyError where two ops name one key, TooLargeError, and
        StoreFailedError; a StoreUnknownError among these may have been committed all the same.
        """
        ...

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """The keys of the present rows that were put with the term, in key order; of one tenant, or of all."""
        ...

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """How many rows each resource has in a tenant (None: in all), there in all namespaces and in none (None) or in one
        (empty: the cluster-scoped alone). Resources without rows are left out.
        """
        ...

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """Every change after revision ``since``, in order, none lost or repeated, in batches that never split one
        commit. The first batch comes at once and may be empty; later an empty one comes every few seconds if the
        store moved on elsewhere: its ``revision`` is progress, good for a bookmark. A reader too slow for memory is
        served from the log, and when even that has gone, or at the first step, it gets CompactedError.
        FutureRevisionError where ``since`` has not happened. Ends when the store closes; end it with ``aclosing``.
        """
        ...

    async def compact(self, keep_from: int) -> None:
        """Forgets history before ``keep_from``, the oldest revision that can then be listed at or watched from."""
        ...

    async def close(self) -> None:
        """Ends watches and releases the files."""
        ...
