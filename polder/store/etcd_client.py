"""Calls to an etcd cluster: one endpoint after the other, until one answers or the time is over.

Every request that is sent here may be sent twice: reads change nothing, and a transaction compares the revision of each key
that it writes, so that of two copies one at most finds its expectations. Sources: etcd's API reference (v3.4 to v3.6),
gRPC's status codes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from polder._generated import etcd_pb2 as pb
from polder.base.errors import PermanentError
from polder.store.protocol import StoreError, StoreFailedError, TooLargeError
from polder.system.rpc import Channel, Conversation, RpcError, Tls

log = logging.getLogger(__name__)

RANGE: Final = "/etcdserverpb.KV/Range"
TXN: Final = "/etcdserverpb.KV/Txn"
COMPACT: Final = "/etcdserverpb.KV/Compact"
WATCH: Final = "/etcdserverpb.Watch/Watch"
_ANSWERS: Final[Mapping[str, type]] = {RANGE: pb.RangeResponse, TXN: pb.TxnResponse, COMPACT: pb.CompactionResponse}
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A peer that vanished without a word is noticed, also while nothing but a watch is open.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_AGAIN: Final = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"})
"""What a lost connection, a member without a leader or an election look like."""
_PAUSE = 0.05


class EtcdRefusedError(StoreError, PermanentError):
    """etcd can be reached and refuses: a wrong certificate, no rights, a request that it does not know."""


@dataclass(frozen=True, slots=True)
class EtcdSettings:
    """Where etcd is. ``endpoints`` are ``HOST:PORT``; without ``tls`` the connection is in the clear. ``prefix`` begins all
    keys: two clusters in one etcd have two. Times in seconds: ``attempt`` for one endpoint, ``patience`` over all.
    """

    endpoints: tuple[str, ...]
    tls: Tls | None = None
    prefix: str = "/polder"
    attempt: float = 3.0
    patience: float = 10.0


@dataclass(slots=True)
class Sent:
    """What a call was: its answer, and whether an earlier copy of it may have arrived too."""

    answer: Any
    again: bool


class EtcdClient:
    """The members of one etcd cluster; whichever answered last is asked next."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        try:
            self._channels = [Channel(endpoint, _OPTIONS, settings.tls) for endpoint in settings.endpoints]
        except OSError as error:
            raise EtcdRefusedError(f"etcd: {error.filename}: {error.strerror}") from error
        self._turn = 0

    async def close(self) -> None:
        """Ends the connections and every call over them."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def ask(self, method: str, request: Any) -> Any:
        """The answer to a request that may be sent again. Raises what ``send`` does."""
        return (await self.send(method, request)).answer

    async def send(self, method: str, request: Any) -> Sent:
        """Sends until answered. Raises RpcError for codes that are answers (OUT_OF_RANGE …), TooLargeError, EtcdRefusedError,
        and StoreFailedError when nobody answered in time.
        """
        loop = asyncio.get_running_loop()
        end, again = loop.time() + self._settings.patience, False
        while True:
            turn = self._turn
            limit = max(0.1, min(self._settings.attempt, end - loop.time()))
            try:
                return Sent(await self._channels[turn].call(method, request, _ANSWERS[method], limit), again)
            except RpcError as error:
                if error.code not in _AGAIN and not _is_busy(error):
                    raise _meaning(error) from error
                again = again or not _never_arrived(error)
                self.move_on(turn)
                if loop.time() >= end:
                    where = ", ".join(self._settings.endpoints)
                    raise StoreFailedError(f"etcd at {where} does not answer: {error}") from error
                log.debug("etcd %s: %s", self._settings.endpoints[turn], error)
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load, hides nothing

    def move_on(self, turn: int) -> None:
        """The endpoint of this turn failed: the next one is asked, unless somebody moved on already."""
        if self._turn == turn:
            self._turn = (turn + 1) % len(self._channels)

    def watch(self) -> tuple[Conversation, int]:
        """A stream of watches to the endpoint whose turn it is, and that turn. A member that lost its leader ends it."""
        turn = self._turn
        return self._channels[turn].converse(WATCH, pb.WatchRequest, pb.WatchResponse, (("hasleader", "true"),)), turn


def _is_busy(error: RpcError) -> bool:
    return error.code == "RESOURCE_EXHAUSTED" and "too many requests" in error.details


def _never_arrived(error: RpcError) -> bool:
    """Whether a failed call certainly changed nothing."""
    text = error.details.lower()
    return _is_busy(error) or (error.code == "UNAVAILABLE" and "failed to connect" in text)


def _meaning(error: RpcError) -> Exception:
    """What an answer that is no success is to the store."""
    text = error.details
    if "database space exceeded" in text:
        return StoreFailedError(
            "the store could not write: etcd is full (mvcc: database space exceeded); compact and defragment it or raise "
            "--quota-backend-bytes, then disarm its alarm"
        )
    if "too many operations" in text:
        return TooLargeError(f"etcd refuses a commit of this many rows ({text}); start it with a larger --max-txn-ops")
    if "request is too large" in text or "larger than max" in text:
        return TooLargeError(f"etcd refuses a commit of this size ({text}); its limit is --max-request-bytes")
    if error.code == "OUT_OF_RANGE":
        return error
    return EtcdRefusedError(f"etcd refuses: {error} ({error.code})")
