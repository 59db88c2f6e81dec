"""A queue of keys: each waits once, none is worked on twice at a time, a failing one waits longer each time.

Keys are taken in turn between tenants, so that one with ten thousand does not make another with one wait; and no tenant has
more than its share of them in work, so that one whose keys take long does not hold every worker.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from polder.base.clock import Clock

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.005
LONGEST_BACKOFF = 60.0


Turn = Callable[[Any], Hashable]
"""Whom a key's turn is counted for; None: nobody, and without a share."""


def turn_of(key: Hashable) -> Hashable:
    """The key's ``tenant``, if it has one."""
    turn: Hashable = getattr(key, "tenant", None)
    return turn


class _Turns(Generic[K]):
    """The keys that are ready, one line for each tenant, the lines served round robin. The line of one that has its share of
    keys in work stands aside until one of them is done.
    """

    def __init__(self, turn: Turn, share: int | None) -> None:
        self._turn = turn
        self._share = share
        self._lines: OrderedDict[Hashable, deque[K]] = OrderedDict()
        self._aside: dict[Hashable, deque[K]] = {}
        self._busy: Counter[Hashable] = Counter()

    def __bool__(self) -> bool:
        """Whether there is a key that may be taken."""
        return bool(self._lines)

    def push(self, key: K) -> bool:
        """Whether its line may be served."""
        turn = self._turn(key)
        if self._is_full(turn):
            self._aside.setdefault(turn, deque()).append(key)
            return False
        self._lines.setdefault(turn, deque()).append(key)
        return True

    def pop(self) -> K:
        """The next key, in work from now on."""
        turn, line = self._lines.popitem(last=False)
        key = line.popleft()
        if turn is not None:
            self._busy[turn] += 1
        if line and self._is_full(turn):
            self._aside[turn] = line
        elif line:
            self._lines[turn] = line  # at the end: the others come first
        return key

    def done(self, key: K) -> bool:
        """A key's work is over; whether that lets a line be served again."""
        turn = self._turn(key)
        if turn is None:
            return False
        self._busy[turn] -= 1
        if not self._busy[turn]:
            del self._busy[turn]
        line = self._aside.pop(turn, None)
        if line is None:
            return False
        self._lines[turn] = line
        return True

    def _is_full(self, turn: Hashable) -> bool:
        return turn is not None and self._share is not None and self._busy[turn] >= self._share


class Queue(Generic[K]):
    """All methods run on one event loop. Times in seconds on the clock's monotonic time. ``share`` is how many keys of one
    tenant are worked on at a time, if that is bounded; ``turn`` says whose a key is.
    """

    def __init__(self, clock: Clock, share: int | None = None, turn: Turn = turn_of) -> None:
        self._clock = clock
        self._ready: _Turns[K] = _Turns(turn, share)
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._order = itertools.count()
        self._takers: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Makes the key ready. One that is being worked on becomes ready again when that is done."""
        self._due.pop(key, None)
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            if self._ready.push(key):
                self._wake()

    def add_after(self, key: K, delay: float) -> None:
        """Makes the key ready after ``delay``, or earlier if it is due earlier already."""
        if delay <= 0:
            self.add(key)
            return
        at = self._clock.monotonic() + delay
        if key in self._waiting or self._due.get(key, at + 1) <= at:
            return
        self._due[key] = at
        heapq.heappush(self._later, (at, next(self._order), key))
        self._set_timer()

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Makes a key ready that failed, after its back-off; returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(min(FIRST_BACKOFF * 2.0 ** min(failures, 30), LONGEST_BACKOFF), at_least)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key worked: its back-off starts anew."""
        self._failures.pop(key, None)

    async def take(self) -> K:
        """The next key, which nobody else gets until ``done``."""
        while not self._ready:
            taker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake()  # the wake-up was ours: hand it on
                raise
        key = self._ready.pop()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """Ends the work on a key; what was added meanwhile makes it ready."""
        self._working.discard(key)
        if self._ready.done(key):
            self._wake()
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Stops the timer; keys that wait are dropped."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later:
            delay = max(0.0, self._later[0][0] - self._clock.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._release)

    def _release(self) -> None:
        """Adds what is due. Entries that ``add`` or an earlier delay has overtaken are passed over."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            at, _, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                self.add(key)
        self._set_timer()
