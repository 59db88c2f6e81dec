"""Reads of etcd: single rows share round trips, ranges come in pieces of one revision.

A read of a row is linearizable: it is sent after it was asked for. All that are asked for while calls are under way
go together in the next one, since a call costs the same for one row as for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from polder._generated import etcd_pb2 as pb
from polder.store.etcd_client import RANGE, TXN, EtcdClient

FLIGHTS = 4
"""Calls under way at once for single rows."""
TOGETHER = 64
"""Rows of one call; etcd allows 128 operations."""
FIRST_PIECE, PIECE = 64, 1000
"""Rows of a range in the first answer, and in any: what follows is sized by what came."""
PIECE_BYTES = 4 << 20
"""Bytes that an answer is meant to have, which bounds both sides' memory and the pause of the event loop."""


@dataclass(frozen=True, slots=True)
class Read:
    """A row, None if absent, and etcd's revision at that moment."""

    row: Any
    revision: int


class Rows:
    """Reads single rows."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._waiting: dict[bytes, list[asyncio.Future[Read]]] = {}
        self._flights: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> Read:
        """The row as it is at some moment after this call began. Raises StoreError."""
        future: asyncio.Future[Read] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        self._depart()
        return await future

    def _depart(self) -> None:
        if self._waiting and len(self._flights) < FLIGHTS:
            flight = asyncio.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._depart()

    async def _fly(self) -> None:
        taken = {key: self._waiting.pop(key) for key in list(self._waiting)[:TOGETHER]}
        if not taken:
            return
        try:
            reads = await self._read(list(taken))
        except BaseException as error:
            for future in (f for futures in taken.values() for f in futures if not f.done()):
                if isinstance(error, asyncio.CancelledError):
                    future.cancel()
                else:
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        for futures, read in zip(taken.values(), reads, strict=True):
            for future in futures:
                if not future.done():
                    future.set_result(read)

    async def _read(self, keys: list[bytes]) -> list[Read]:
        if len(keys) == 1:
            answers = [await self._client.ask(RANGE, pb.RangeRequest(key=keys[0]))]
            revision = answers[0].header.revision
        else:
            ops = [pb.RequestOp(request_range=pb.RangeRequest(key=key)) for key in keys]
            answer = await self._client.ask(TXN, pb.TxnRequest(success=ops))
            answers, revision = [r.response_range for r in answer.responses], answer.header.revision
        return [Read(found.kvs[0] if found.kvs else None, revision) for found in answers]

    async def close(self) -> None:
        """Ends what is under way."""
        flights = tuple(self._flights)
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for future in (f for futures in self._waiting.values() for f in futures):
            future.cancel()


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a range, the revision they were read at, and how many there are from the piece's first one on."""

    rows: Any
    revision: int
    count: int


async def pieces(
    client: EtcdClient, start: bytes, end: bytes, revision: int = 0, *, limit: int = 0, keys_only: bool = False
) -> AsyncGenerator[Piece, None]:
    """A range, at one revision (0: now), at most ``limit`` rows of it. The first piece comes even when it is empty.
    Raises RpcError OUT_OF_RANGE where that revision is none that etcd has, and StoreError.
    """
    left, size = limit, PIECE if keys_only else FIRST_PIECE
    while True:
        size = min(left, size) if limit else size
        request = pb.RangeRequest(key=start, range_end=end, revision=revision, limit=size, keys_only=keys_only)
        found = await client.ask(RANGE, request)
        revision = revision or found.header.revision
        yield Piece(found.kvs, revision, found.count)
        left -= len(found.kvs)
        if not found.more or (limit and left <= 0):
            return
        if not keys_only:
            size = max(1, min(PIECE, PIECE_BYTES * len(found.kvs) // (found.ByteSize() or 1)))
        start = found.kvs[-1].key + b"\0"
