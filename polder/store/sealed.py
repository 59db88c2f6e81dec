"""A store whose secrets are sealed at rest: in the backend, its files, its log and in backups they are envelopes.

Values of the chosen resources are sealed with the keyring's writing key and bound to their key, so that a row copied to another
name, namespace or tenant cannot be opened. What was written before there was a keyring is read as it is; ``reseal`` writes
it, and whatever an older key sealed, anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

from polder.store.protocol import (
    Batch,
    Change,
    ConflictError,
    Entry,
    Indexer,
    Key,
    Op,
    Page,
    Prefix,
    Put,
    Store,
    StoreFailedError,
)
from polder.system.pki.sealing import Keyring, SealError, UnknownKeyError, is_sealed, key_id, read_keyring

log = logging.getLogger(__name__)

DEFAULT_RESOURCES = ("secrets", "internal:*")
REREAD = 1.0
"""Seconds between two looks at the keyring's file when a value names a key that it did not have."""
PAGE = 200


@dataclass(frozen=True, slots=True)
class SealSettings:
    """Where the keyring is, and which resources are sealed; ``NAME*`` stands for all that begin with NAME."""

    keyring: Path
    resources: tuple[str, ...] = DEFAULT_RESOURCES


def place_of(key: Key) -> bytes:
    """What an envelope is bound to."""
    return "\0".join((key.resource, key.tenant, key.namespace, key.name)).encode()


class Seals:
    """Seals and opens values. The keyring's file is read again when a value names a key that is not known yet, so that
    another server may rotate first.
    """

    def __init__(self, settings: SealSettings) -> None:
        self._settings = settings
        self._read_at = time.monotonic()
        self._exact = frozenset(r for r in settings.resources if not r.endswith("*"))
        self._starts = tuple(r[:-1] for r in settings.resources if r.endswith("*"))
        self.ring: Keyring = read_keyring(settings.keyring)

    def reload(self) -> None:
        """Reads the keyring's file again. Raises SealError."""
        self.ring = read_keyring(self._settings.keyring)
        self._read_at = time.monotonic()

    def covers(self, resource: str) -> bool:
        """Whether values of a resource are sealed."""
        return resource in self._exact or (bool(self._starts) and resource.startswith(self._starts))

    def seal(self, key: Key, value: bytes) -> bytes:
        """The value as the backend holds it."""
        return self.ring.seal(value, place_of(key)) if self.covers(key.resource) else value

    def open(self, key: Key, value: bytes) -> bytes:
        """The value as it was written. Raises StoreFailedError."""
        if not is_sealed(value):
            return value
        try:
            return self.ring.open(value, place_of(key))
        except UnknownKeyError as problem:
            if time.monotonic() < self._read_at + REREAD:
                raise StoreFailedError(f"{key}: {problem}") from problem
        except SealError as problem:
            raise StoreFailedError(f"{key}: {problem}") from problem
        try:
            self.reload()
            return self.ring.open(value, place_of(key))
        except SealError as problem:
            raise StoreFailedError(f"{key}: {problem}") from problem

    def is_current(self, key: Key, value: bytes) -> bool:
        """Whether a value is as it would be written now: sealed with the writing key, or plain where none is asked for."""
        return (key_id(value) == self.ring.writes) if is_sealed(value) else not self.covers(key.resource)

    def indexer(self, inner: Indexer) -> Indexer:
        """The index terms of sealed rows are those of what is in them."""
        return Indexer(inner.version, lambda key, value: inner.terms(key, self.open(key, value)))


class SealedStore:
    """``Store`` over another one, which sees envelopes."""

    def __init__(self, store: Store, seals: Seals) -> None:
        self.inner = store
        self.seals = seals

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return await self.inner.revision()

    def _open(self, entry: Entry) -> Entry:
        value = self.seals.open(entry.key, entry.value)
        return entry if value is entry.value else replace(entry, value=value)

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        entry = await self.inner.get(key)
        return self._open(entry) if entry else None

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        page = await self.inner.list(prefix, limit=limit, after=after, revision=revision)
        return replace(page, entries=[self._open(entry) for entry in page.entries])

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``."""
        sealed = [
            replace(op, value=self.seals.seal(op.key, op.value))
            if isinstance(op, Put) and self.seals.covers(op.key.resource)
            else op
            for op in ops
        ]
        try:
            return await self.inner.commit(sealed)
        except ConflictError as conflict:
            if conflict.current is None or not is_sealed(conflict.current.value):
                raise
            raise ConflictError(conflict.key, self._open(conflict.current)) from conflict

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        return await self.inner.by_term(term, tenant)

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``."""
        return await self.inner.resources(tenant, namespace)

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        return self._watch(prefix, since)

    async def _watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        async with aclosing(self.inner.watch(prefix, since)) as batches:
            async for batch in batches:
                if any(is_sealed(c.value) or (c.previous is not None and is_sealed(c.previous)) for c in batch.changes):
                    yield Batch([self._opened(change) for change in batch.changes], batch.revision)
                else:
                    yield batch

    def _opened(self, change: Change) -> Change:
        value = self.seals.open(change.key, change.value)
        previous = change.previous if change.previous is None else self.seals.open(change.key, change.previous)
        return replace(change, value=value, previous=previous)

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``."""
        await self.inner.compact(keep_from)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self.inner.close()

    async def seal_plain(self, indexer: Indexer) -> int:
        """Seals what was written before there was a keyring; returns how many values. Raises StoreError."""
        covered = [resource for resource in await self.inner.resources(None) if self.seals.covers(resource)]
        return await self._rewrite(covered, indexer, lambda _, value: not is_sealed(value))

    async def reseal(self, indexer: Indexer) -> int:
        """Writes every value anew that is not as it would be written now; returns how many. Raises StoreError."""
        everything = await self.inner.resources(None)
        return await self._rewrite(everything, indexer, lambda key, value: not self.seals.is_current(key, value))

    async def _rewrite(self, resources: Iterable[str], indexer: Indexer, chosen: Callable[[Key, bytes], bool]) -> int:
        count = 0
        for resource in resources:
            after: Key | None = None
            while True:
                page = await self.inner.list(Prefix(resource), limit=PAGE, after=after)
                for entry in page.entries:
                    if chosen(entry.key, entry.value):
                        count += await self._reseal(entry, indexer)
                after = page.after
                if after is None:
                    break
        return count

    async def _reseal(self, entry: Entry, indexer: Indexer) -> int:
        """A row that somebody wrote meanwhile is sealed anew already."""
        value = self.seals.open(entry.key, entry.value)
        put = Put(entry.key, value, entry.revision, indexer.terms(entry.key, value))
        try:
            await self.commit([put])
        except ConflictError:
            return 0
        return 1
