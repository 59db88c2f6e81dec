"""A queue of keys: each waits once, none is worked on twice at a time, a failing one waits longer each time.

Keys are taken in turn between tenants, so that one with ten thousand does not make another with one wait; and no tenant has
more than its share of them in work, so that one whose keys take long does not hold every worker.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from polder.base.clock import Clock
from polder.loop.turns import Turn, Turns, turn_of

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF = 0.005
LONGEST_BACKOFF = 60.0


class Queue(Generic[K]):
    """All methods run on one event loop. Times in seconds on the clock's monotonic time. ``share`` is how many keys of one
    tenant are worked on at a time, if that is bounded; ``turn`` says whose a key is.
    """

    def __init__(self, clock: Clock, share: int | None = None, turn: Turn = turn_of) -> None:
        self._clock = clock
        self._ready: Turns[K] = Turns(turn, share)
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
