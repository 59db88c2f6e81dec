"""The store on etcd v3: several servers may have it open at once.

etcd's revision is ours; a commit is one transaction, in which the revision of every key is compared, also where the caller
expects nothing (it is read before). So a commit may be sent again after a lost connection, and is recognized by its id.
Index terms and places (for counting) are keys of their own, written in the same transaction.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from polder._generated import etcd_pb2 as pb
from polder.store.etcd_client import COMPACT, RANGE, TXN, EtcdClient, EtcdSettings
from polder.store.etcd_index import ensure_indexed, term_changes
from polder.store.etcd_keys import ID_LENGTH, Layout, after, is_range, pack, unpack, value_of
from polder.store.etcd_reads import Rows, pieces
from polder.store.etcd_stream import FIRST, Changes
from polder.store.hub import Hub, HubSettings, matches
from polder.store.protocol import (
    NO_TERMS,
    PAGE_BYTES,
    Batch,
    Check,
    CompactedError,
    ConflictError,
    Delete,
    DuplicateKeyError,
    Entry,
    FutureRevisionError,
    Indexer,
    Key,
    Op,
    Page,
    Prefix,
    Put,
    StoreFailedError,
    StoreUnknownError,
    TooLargeError,
)
from polder.system.rpc import RpcError

log = logging.getLogger(__name__)

OPERATIONS = 1024
"""Operations of a commit for which etcd had better be started: a row takes two, and one more per index term."""
REPLAY = 4096
"""Revisions before its start that a store reads again, so that watches which come from another server find them in memory."""
ATTEMPTS = 32
"""How often a commit that expects nothing of a key is tried when others write that key."""
PUBLISHED_WITHIN = 10.0
"""Seconds for which a committed author waits for the watches."""
SEEN = 8192
"""Rows whose terms are remembered, so that a write of what was just read needs no second read."""


async def open_etcd(
    settings: EtcdSettings,
    hub: HubSettings = HubSettings(),  # noqa: B008 - frozen
    indexer: Indexer = NO_TERMS,
) -> EtcdStore:
    """Connects. Raises StoreFailedError where nobody answers, EtcdRefusedError."""
    client = EtcdClient(settings)
    try:
        layout = Layout(settings.prefix)
        await _check_limits(client, layout)
        await ensure_indexed(client, layout, indexer)
        revision = (await client.ask(RANGE, pb.RangeRequest(key=layout.version))).header.revision
        return EtcdStore(client, layout, hub, revision, await _oldest(client, layout, revision))
    except BaseException:
        await client.close()
        raise


async def _check_limits(client: EtcdClient, layout: Layout) -> None:
    """Says at the start what some commits would find out later; most fit into etcd's default."""
    look = pb.RequestOp(request_range=pb.RangeRequest(key=layout.version, count_only=True))
    try:
        await client.ask(TXN, pb.TxnRequest(success=[look] * OPERATIONS))
    except TooLargeError:
        log.warning(
            "store: etcd takes fewer than %d operations in a commit; what is made of many rows at once (a Service of many "
            "ports) is refused: start etcd with --max-txn-ops=%d", OPERATIONS, OPERATIONS,
        )  # fmt: skip


async def _oldest(client: EtcdClient, layout: Layout, revision: int) -> int:
    """The compaction's floor, which etcd tells nobody: the first revision that can be read at."""
    low, high = FIRST, revision
    while low < high:
        middle = (low + high) // 2
        try:
            await client.ask(RANGE, pb.RangeRequest(key=layout.version, revision=middle, count_only=True))
            high = middle
        except RpcError:
            low = middle + 1
    return low if low > FIRST else 0


@dataclass(slots=True)
class _Step:
    """An op, and what must stand there: its revision and its terms."""

    op: Op
    at: int
    terms: tuple[str, ...] = ()


class EtcdStore:
    """``Store`` on one prefix of an etcd cluster."""

    def __init__(self, client: EtcdClient, layout: Layout, settings: HubSettings, revision: int, oldest: int) -> None:
        self._client = client
        self._layout = layout
        self._rows = Rows(client)
        self._changes = Changes(client, layout)
        self._hub = Hub(max(oldest, FIRST, revision - REPLAY), oldest, self._changes.history, settings)
        self._hub.assigned = revision
        self._seen: OrderedDict[Key, tuple[int, tuple[str, ...]]] = OrderedDict()
        self._feed = asyncio.create_task(self._changes.feed(self._hub), name="etcd-feed")
        self._line = asyncio.Lock()
        self._closed = False

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return self._reached((await self._row(self._layout.version)).revision)

    def _reached(self, revision: int) -> int:
        self._hub.assigned = max(self._hub.assigned, revision)
        return revision

    async def _row(self, key: bytes) -> Any:
        if self._closed:
            raise StoreFailedError("the store is closed")
        return await self._rows.get(key)

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        found = await self._row(self._layout.row(key))
        self._reached(found.revision)
        if found.row is None:
            return None
        row = unpack(found.row.value)
        self._note(key, found.row.mod_revision, row.terms)
        return Entry(key, row.value, found.row.mod_revision)

    def _note(self, key: Key, revision: int, terms: tuple[str, ...]) -> None:
        self._seen[key] = (revision, terms)
        self._seen.move_to_end(key)
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        if self._closed:
            raise StoreFailedError("the store is closed")
        if revision is not None and revision < self._hub.oldest:
            raise CompactedError(revision, self._hub.oldest)
        if revision == 0:  # what stood before the first commit
            return Page([], 0)
        try:
            page = await self._list(prefix, limit, after, revision or 0)
        except RpcError as error:
            assert revision is not None
            if "future" in error.details:
                at = await self.revision()
                raise FutureRevisionError(f"revision {revision} has not happened, the store is at {at}") from error
            raise CompactedError(revision, max(self._hub.oldest, revision + 1)) from error
        self._reached(page.revision)
        return page

    async def _list(self, prefix: Prefix, limit: int, start_after: Key | None, revision: int) -> Page:
        first = self._layout.range(prefix)
        start = first if start_after is None else max(first, self._layout.row(start_after) + b"\0")
        sieved = not is_range(prefix)
        entries: list[Entry] = []
        at, total, seen, size = revision, 0, 0, 0
        found = pieces(self._client, start, after(first), revision, limit=0 if sieved else limit)
        async with aclosing(found) as steps:
            async for piece in steps:
                at, total = piece.revision, total or piece.count
                for kv in piece.rows:
                    key = self._layout.key(kv.key)
                    if not sieved or matches(prefix, key):
                        seen += 1
                        if not limit or (seen <= limit and size < PAGE_BYTES):
                            size += len(kv.value)
                            entries.append(Entry(key, value_of(kv.value), kv.mod_revision))
                if limit and not sieved and size >= PAGE_BYTES:
                    break
        remaining = (seen if sieved else total) - len(entries)
        return Page(entries, at, entries[-1].key, remaining) if limit and remaining > 0 else Page(entries, at)

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``."""
        if self._closed:
            raise StoreFailedError("the store is closed")
        if len({op.key for op in ops}) < len(ops):
            raise DuplicateKeyError("two ops of one commit name the same key")
        if not ops:
            return await self.revision()
        revision = await self._attempt(ops)
        if revision is None:
            async with self._line:  # those who lost a race queue, so that each loses to newcomers only
                for _ in range(ATTEMPTS):
                    if (revision := await self._attempt(ops)) is not None:
                        break
                else:
                    raise StoreFailedError("the store could not write: others write the same keys all the time")
        if any(not isinstance(op, Check) for op in ops):
            await self._published(revision)
        return revision

    async def _attempt(self, ops: Sequence[Op]) -> int | None:
        return await self._try([await self._step(op) for op in ops])

    async def _published(self, revision: int) -> None:
        if self._hub.published < revision:
            with suppress(TimeoutError):  # it is committed all the same; the watches follow when etcd's stream is back
                async with asyncio.timeout(PUBLISHED_WITHIN):
                    await self._changes.arrivals.of(revision)

    async def _step(self, op: Op) -> _Step:
        """What an op stands on. Raises ConflictError where that is known not to hold."""
        if isinstance(op, Check) or (isinstance(op, Put) and op.expect == 0):
            return _Step(op, op.expect or 0)
        seen = self._seen.get(op.key)
        if seen is not None and seen[0] == op.expect:
            return _Step(op, *seen)
        current = await self.get(op.key)
        at = current.revision if current else 0
        if (op.expect is not None and op.expect != at) or (isinstance(op, Delete) and current is None):
            raise ConflictError(op.key, current)
        return _Step(op, at, self._seen[op.key][1] if current else ())

    async def _try(self, steps: Sequence[_Step]) -> int | None:
        """One transaction; its revision, or None where something moved of which the caller expects nothing."""
        commit = secrets.token_bytes(ID_LENGTH)
        request = pb.TxnRequest()
        for step in steps:
            self._add(request, step, commit)
        sent = await self._client.send(TXN, request)
        if sent.answer.succeeded:
            return self._committed(steps, self._reached(sent.answer.header.revision))
        rows = [r.response_range.kvs[0] if r.response_range.kvs else None for r in sent.answer.responses]
        if sent.again:
            for row in rows:
                if row is not None and unpack(row.value).commit == commit:
                    return self._committed(steps, self._reached(row.mod_revision))
        for step, row in zip(steps, rows, strict=True):
            if (row.mod_revision if row is not None else 0) != step.at and step.op.expect is not None:
                if sent.again:
                    raise StoreUnknownError(f"the connection to etcd was lost while {step.op.key} was written")
                key = step.op.key
                raise ConflictError(key, Entry(key, value_of(row.value), row.mod_revision) if row is not None else None)
        for step in steps:
            self._seen.pop(step.op.key, None)
        if sent.again:
            raise StoreUnknownError("the connection to etcd was lost while a commit was written")
        return None

    def _committed(self, steps: Sequence[_Step], revision: int) -> int:
        for step in steps:
            if isinstance(step.op, Put):
                self._note(step.op.key, revision, step.op.terms)
            elif isinstance(step.op, Delete):
                self._seen.pop(step.op.key, None)
        return revision

    def _add(self, request: Any, step: _Step, commit: bytes) -> None:
        """What an op is in a transaction. Raises StoreFailedError for a key that cannot be written."""
        op, layout = step.op, self._layout
        row = layout.row(op.key)
        compare = request.compare.add(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=row)
        compare.mod_revision = step.at
        request.failure.add().request_range.key = row
        if isinstance(op, Check):
            return
        if isinstance(op, Put):
            put = request.success.add().request_put
            put.key, put.value = row, pack(op.value, op.terms, commit)
            if not step.at:
                request.success.add().request_put.key = layout.place(op.key)
            term_changes(request, layout, op.key, step.terms, op.terms)
        else:
            request.success.add().request_delete_range.key = row
            request.success.add().request_delete_range.key = layout.place(op.key)
            term_changes(request, layout, op.key, step.terms, ())

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        start = self._layout.having(term)
        keys = [self._layout.found(entry) for entry in await self._keys(start)]
        return [key for key in keys if tenant is None or key.tenant == tenant]

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``."""
        places = await self._keys(self._layout.places(tenant, namespace))
        keys = (self._layout.at(place) for place in places)
        return Counter(key.resource for key in keys if namespace is None or key.namespace == namespace)

    async def _keys(self, start: bytes) -> Sequence[bytes]:
        if self._closed:
            raise StoreFailedError("the store is closed")
        found: list[bytes] = []
        async with aclosing(pieces(self._client, start, after(start), keys_only=True)) as steps:
            async for piece in steps:
                found += [kv.key for kv in piece.rows]
        return found

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``. What another server committed a moment ago may be watched from, too."""
        return self._watch(prefix, since)

    async def _watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        if since > self._hub.assigned:
            await self.revision()
        async with aclosing(self._hub.watch(prefix, since)) as batches:
            async for batch in batches:
                yield batch

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``. Several servers may each do it: etcd keeps the highest floor."""
        if self._closed:
            raise StoreFailedError("the store is closed")
        floor = min(keep_from, self._hub.published)
        if floor <= self._hub.oldest:
            return
        self._hub.compacted(floor)
        try:
            await self._client.ask(COMPACT, pb.CompactionRequest(revision=floor))
        except RpcError as error:
            if error.code != "OUT_OF_RANGE":  # another server's floor is higher already
                log.warning("etcd keeps its history below revision %d, to be tried again: %s", floor, error)

    async def close(self) -> None:
        """See ``Store.close``. What was being committed is still awaited by its author."""
        if self._closed:
            return
        self._closed = True
        self._hub.close()
        self._feed.cancel()
        await asyncio.gather(self._feed, return_exceptions=True)
        await self._rows.close()
        await self._client.close()
