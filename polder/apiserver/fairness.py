"""Fair shares of the API: no tenant's requests hold up another's.

A request that works holds one of its tenant's seats. A tenant that is alone has many; while others ask too it has
``crowded``, and begins or goes on with only one request in each round of the event loop, so that between two steps of
anybody's request there are only a few of each other tenant's. Who waits outside the server (for a body, a slow reader, a
webhook) or for the disk is ``away`` and gives the seat back meanwhile. Free seats go to tenants in turn; a tenant's queue
is bounded, and what does not fit is told to come again (429). Watches and followed logs hold no seat but are counted.
Polder's own components and nodes are not held up: they work for all tenants.

An idle tenant costs nothing: a flow exists while somebody works or waits, and a second longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from polder.api.errors import ApiError
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import ROOT, TenantName

EXEMPT = frozenset({Role.COMPONENT, Role.NODE})
STREAMING = frozenset({"log", "exec", "attach", "portforward", "proxy"})
LARGE = 64 * 1024
"""Bytes of a body or an answer that no longer fit into a connection's buffers."""
RECENT = 1.0
"""Seconds for which a tenant that asked counts among those that share."""


@dataclass(frozen=True, slots=True)
class FairnessSettings:
    """Seats of a tenant that is alone, seats while others ask too, seats of all together; how many of a tenant's requests
    wait, for how many seconds at most; how many watches and followed logs a tenant has; how many large
    answers and bodies of a tenant are under way; and how many of its requests have begun, those ``away`` among them.
    """

    alone: int = 32
    crowded: int = 1
    together: int = 32
    queue: int = 256
    patience: float = 30.0
    streams: int = 2000
    large: int = 16
    begun: int = 128


@dataclass(slots=True)
class _Flow:
    """One tenant's requests: how many work, which wait, when it last asked, and in which round it last had a turn."""

    working: int = 0
    round: int = -1
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    seen: float = 0.0


_seat: ContextVar[Seat | None] = ContextVar("seat", default=None)
_writes: ContextVar[_Writes | None] = ContextVar("writes", default=None)


@dataclass(slots=True)
class _Writes:
    """One tenant's large answers that are being written, and bodies that are being read: each holds memory until it is done."""

    free: asyncio.Semaphore
    users: int = 0


class Fairness:
    """Gives out the seats."""

    def __init__(self, settings: FairnessSettings | None = None) -> None:
        self._settings = settings or FairnessSettings()
        self._flows: OrderedDict[str, _Flow] = OrderedDict()  # who asked longest ago comes first
        self._turns: deque[str] = deque()  # tenants of whose requests some wait
        self._streams: Counter[str] = Counter()
        self._begun: Counter[str] = Counter()
        self._writes: dict[str, _Writes] = {}
        self._working = 0
        self._round = 0
        self._turning = False

    @asynccontextmanager
    async def seated(self, who: Identity, info: RequestInfo) -> AsyncIterator[None]:
        """Held while a request is served. Raises ApiError 429 where the tenant has too many under way."""
        if who.role in EXEMPT:
            yield
            return
        tenant = _flow_of(who, info)
        with self._writing(tenant):
            async with self._served(tenant, streaming=info.verb == "watch" or info.subresource in STREAMING):
                yield

    @contextmanager
    def _writing(self, tenant: str) -> Iterator[None]:
        """Lets ``handing_over`` know whose answer it is."""
        writes = self._writes.setdefault(tenant, _Writes(asyncio.Semaphore(self._settings.large)))
        writes.users += 1
        token = _writes.set(writes)
        try:
            yield
        finally:
            _writes.reset(token)
            writes.users -= 1
            if not writes.users:
                del self._writes[tenant]

    @asynccontextmanager
    async def _served(self, tenant: str, *, streaming: bool) -> AsyncIterator[None]:
        if streaming:
            with self._counted(self._streams, tenant, self._settings.streams, "watches and streams"):
                yield
            return
        seat = Seat(self, tenant)
        await seat.take()
        token = _seat.set(seat)
        try:
            with self._counted(self._begun, tenant, self._settings.begun, "requests that have begun"):
                yield
        finally:
            _seat.reset(token)
            seat.leave()

    @staticmethod
    @contextmanager
    def _counted(counter: Counter[str], tenant: str, limit: int, what: str) -> Iterator[None]:
        """One more of something that a tenant may have ``limit`` of. Raises ApiError 429."""
        if counter[tenant] >= limit:
            raise _too_many(f"this tenant has {limit} {what} under way, which is its limit")
        counter[tenant] += 1
        try:
            yield
        finally:
            counter[tenant] -= 1
            if not counter[tenant]:
                del counter[tenant]

    def _flow(self, tenant: str) -> _Flow:
        """The tenant's flow, which asks now; those that have not asked for ``RECENT`` and do nothing are forgotten."""
        now = time.monotonic()
        flow = self._flows.setdefault(tenant, _Flow())
        flow.seen = now
        self._flows.move_to_end(tenant)
        while (first := next(iter(self._flows.items())))[1].seen < now - RECENT:
            if first[1].working or first[1].waiting:
                first[1].seen = now
                self._flows.move_to_end(first[0])
            else:
                del self._flows[first[0]]
        return flow

    def _may_work(self, flow: _Flow) -> bool:
        if self._working >= self._settings.together:
            return False
        if len(self._flows) == 1:
            return flow.working < self._settings.alone
        return flow.working < self._settings.crowded and flow.round != self._round

    def _seat_one(self, flow: _Flow) -> None:
        """Gives a seat, and with it the flow's turn in this round of the event loop."""
        flow.working += 1
        self._working += 1
        flow.round = self._round
        if not self._turning and len(self._flows) > 1:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._turning = False
        self._round += 1
        self._hand_out()

    async def enter(self, tenant: str, *, again: bool = False) -> None:
        """Takes a seat, in turn; who comes back to a request that has begun goes first and is not refused. Raises ApiError
        429 when the queue is full or nothing became free.
        """
        flow = self._flow(tenant)
        if self._may_work(flow) and (again or not flow.waiting):
            self._seat_one(flow)
            return
        if not again and len(flow.waiting) >= self._settings.queue:
            raise _too_many(f"{len(flow.waiting)} requests of this tenant wait already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not flow.waiting:
            self._turns.append(tenant)
        if again:
            flow.waiting.appendleft(turn)
        else:
            flow.waiting.append(turn)
        try:
            async with asyncio.timeout(None if again else self._settings.patience):
                await turn
        except BaseException as problem:
            self._gave_up(tenant, turn)
            if isinstance(problem, TimeoutError):
                raise _too_many(f"no turn came within {self._settings.patience:g} seconds") from None
            raise

    def enter_at_once(self, tenant: str) -> None:
        """Takes a seat, were it one more than there are."""
        self._seat_one(self._flow(tenant))

    def _gave_up(self, tenant: str, turn: asyncio.Future[None]) -> None:
        flow = self._flows[tenant]
        if turn.done() and not turn.cancelled():
            self.leave(tenant)  # it was given at the last moment
        elif turn in flow.waiting:
            flow.waiting.remove(turn)
            if not flow.waiting:
                self._turns.remove(tenant)

    def leave(self, tenant: str) -> None:
        """Gives a seat back and hands out what is free."""
        flow = self._flows[tenant]
        flow.working -= 1
        self._working -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """Free seats, one to each waiting tenant in turn."""
        passed = 0
        while passed < len(self._turns) and self._working < self._settings.together:
            tenant = self._turns.popleft()
            flow = self._flows[tenant]
            while flow.waiting and flow.waiting[0].done():
                flow.waiting.popleft()  # given up, and not yet told so
            if flow.waiting and self._may_work(flow):
                passed = 0
                self._seat_one(flow)
                flow.waiting.popleft().set_result(None)
            else:
                passed += 1
            if flow.waiting:
                self._turns.append(tenant)


@dataclass(slots=True)
class Seat:
    """One request's right to work."""

    fairness: Fairness
    tenant: str
    held: bool = False

    async def take(self, *, again: bool = False) -> None:
        """Waits for a seat of the tenant."""
        await self.fairness.enter(self.tenant, again=again)
        self.held = True

    def take_at_once(self) -> None:
        """Takes one even where none is free."""
        self.fairness.enter_at_once(self.tenant)
        self.held = True

    def leave(self) -> None:
        """Gives it back, if it is held."""
        if self.held:
            self.held = False
            self.fairness.leave(self.tenant)


@asynccontextmanager
async def away(*, returns_at_once: bool = False) -> AsyncIterator[None]:
    """Held while the request waits for somebody outside: its seat is another's meanwhile. Who ``returns_at_once`` works on
    even where all seats are taken: it may hold what those in the seats wait for.
    """
    seat = _seat.get()
    if seat is None or not seat.held:
        yield
        return
    seat.leave()
    try:
        yield
    finally:
        if returns_at_once:
            seat.take_at_once()
        else:
            await seat.take(again=True)


@asynccontextmanager
async def handing_over(*, patient: bool = False) -> AsyncIterator[None]:
    """Held while a large answer is written or a large body is read, which fills memory for as long as the client takes.
    Raises ApiError 429 where the tenant has as many under way as it may; ``patient`` waits instead, for those that hold
    neither memory nor a seat yet.
    """
    writes = _writes.get()
    if writes is None:
        yield
        return
    if writes.free.locked() and not patient:
        raise _too_many("the clients of this tenant are slow to read large answers, or to send large bodies")
    async with writes.free:
        yield


def _flow_of(who: Identity, info: RequestInfo) -> TenantName:
    """Whose share a request uses: the caller's, wherever it reaches; of those at home nowhere, the tenant they are in. Those
    who show nothing share one that is nobody's: however many ask, they hold up no tenant and not the platform.
    """
    if who.role is Role.NONE and who.home == ROOT and who.impersonator is None:
        return TenantName("")
    return info.tenant if who.role in {Role.PLATFORM_ADMIN, Role.USER} else who.home


def _too_many(why: str) -> ApiError:
    message = f"too many requests: {why}; try again later"
    return ApiError(429, "TooManyRequests", message, {"retryAfterSeconds": 1})
