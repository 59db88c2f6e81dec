"""The changes of the store out of etcd's watch: one endless stream for the hub, short ones for those who are behind."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from polder._generated import etcd_pb2 as pb
from polder.store.etcd_client import TXN, EtcdClient
from polder.store.etcd_keys import Layout, value_of
from polder.store.hub import Hub, matches
from polder.store.protocol import (
    STEP,
    STEP_BYTES,
    Batch,
    Change,
    ChangeType,
    CompactedError,
    Prefix,
    StoreFailedError,
)
from polder.system.rpc import RpcError

log = logging.getLogger(__name__)

FIRST = 1
"""The revision of an etcd in which nothing happened yet."""
_SHORTEST, _LONGEST = 0.05, 2.0
_SILENCE = 5.0
"""Seconds in which a stream must have been accepted."""


class _MissingBeforeError(Exception):
    """etcd gave a change without what stood before: that is compacted."""


def change_of(event: Any, layout: Layout) -> Change:
    """An event of etcd on a row. Raises _MissingBeforeError."""
    key, at = layout.key(event.kv.key), event.kv.mod_revision
    previous = value_of(event.prev_kv.value) if event.HasField("prev_kv") else None
    if event.type == pb.Event.DELETE:
        if previous is None:
            raise _MissingBeforeError
        return Change(ChangeType.DELETE, key, previous, previous, at)
    if previous is None and event.kv.version > 1:
        raise _MissingBeforeError
    return Change(ChangeType.PUT, key, value_of(event.kv.value), previous, at)


def _check(answer: Any, after: int) -> None:
    """Whether etcd goes on with the watch. Raises CompactedError, RpcError."""
    if answer.compact_revision:
        raise CompactedError(after, answer.compact_revision)
    if answer.canceled:
        raise RpcError("UNAVAILABLE", answer.cancel_reason or "etcd ended the watch")


class Arrivals:
    """Who waits until a revision is published."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def of(self, revision: int) -> asyncio.Future[None]:
        """Done when the revision, or a later one, is published."""
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (revision, self._count, future))
        return future

    def tell(self, revision: int) -> None:
        """This revision is published."""
        while self._waiting and self._waiting[0][0] <= revision:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)


class Changes:
    """Reads the log that etcd keeps."""

    def __init__(self, client: EtcdClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout
        self._last = 0
        self._late = asyncio.Semaphore(2)
        self.arrivals = Arrivals()

    async def since(self, after: int) -> AsyncGenerator[tuple[int, Sequence[Change]], None]:
        """Every commit after a revision, whole and in order. Raises CompactedError; RpcError when the stream breaks."""
        start, end = self._layout.changes
        stream, turn = self._client.watch()
        create = pb.WatchCreateRequest(key=start, range_end=end, start_revision=after + 1, prev_kv=True, fragment=True)
        revision, changes = 0, list[Change]()
        try:
            async with asyncio.timeout(_SILENCE):
                await stream.send(pb.WatchRequest(create_request=create))
                answer = await stream.receive()
            while answer is not None:
                _check(answer, after)
                for event in answer.events:
                    if event.kv.mod_revision != revision:
                        if revision:
                            yield revision, changes
                        revision, changes = event.kv.mod_revision, []
                    if self._layout.is_row(event.kv.key):
                        changes.append(change_of(event, self._layout))
                if revision and not answer.fragment:
                    yield revision, changes
                    revision, changes = 0, []
                answer = await stream.receive()
        except _MissingBeforeError:
            raise CompactedError(after, max(after + 1, revision)) from None
        except (RpcError, TimeoutError) as error:
            self._client.move_on(turn)
            raise RpcError("UNAVAILABLE", f"etcd's watch ended: {error}") from error
        finally:
            stream.end()

    async def history(self, prefix: Prefix, after: int, to: int) -> Batch:
        """The matching changes beyond ``after``: up to ``to``, or to the end of the commit that fills a step. Raises
        CompactedError, StoreFailedError.
        """
        if to <= FIRST:
            return Batch([], to)
        try:
            async with self._late:
                if (
                    to != self._last
                ):  # whether something of ours happened in it is unknown: make a later event to stop at
                    put = pb.PutRequest(key=self._layout.mark)
                    await self._client.ask(TXN, pb.TxnRequest(success=[pb.RequestOp(request_put=put)]))
                return await self._read(prefix, after, to)
        except RpcError as error:
            raise StoreFailedError(str(error)) from error

    async def _read(self, prefix: Prefix, after: int, to: int) -> Batch:
        found: list[Change] = []
        size = 0
        async with aclosing(self.since(after)) as commits:
            async for revision, changes in commits:
                if revision > to:
                    break
                meant = [change for change in changes if matches(prefix, change.key)]
                found += meant
                size += sum(change.size for change in meant)
                if revision == to:
                    break
                if len(found) >= STEP or size >= STEP_BYTES:
                    return Batch(found, revision)
        return Batch(found, to)

    async def feed(self, hub: Hub) -> None:
        """Publishes every commit, for ever; goes on where it was after each loss of the connection."""
        wait = _SHORTEST
        while True:
            try:
                async with aclosing(self.since(hub.published)) as commits:
                    async for revision, changes in commits:
                        wait, self._last = _SHORTEST, revision
                        hub.publish(revision, changes)
                        self.arrivals.tell(revision)
            except CompactedError as lost:
                log.warning("store: fell behind etcd's compaction at revision %d; watches begin anew", lost.oldest)
                hub.lost(lost.oldest)
                self.arrivals.tell(lost.oldest)
            except RpcError as error:
                log.warning("store: %s; trying again", error)
                await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, hides nothing
                wait = min(wait * 2, _LONGEST)
