"""Runs a reconcile function over the keys of a queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from polder.api.errors import ApiError
from polder.base.clock import Clock, SystemClock
from polder.base.errors import PermanentError, PolderError, RetryableError
from polder.loop.queue import Queue
from polder.loop.turns import Turn, turn_of

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

Reconcile = Callable[[K], Awaitable[float | None]]
"""Makes the world fit the key, from what it reads anew; returns the seconds after which to look again, or None."""

LOUD = 5
"""Failures in a row of one key after which they are warnings: conflicts and races settle before."""


class Runner(Generic[K]):
    """``add`` and ``add_after`` are what event handlers call; ``run`` works with ``workers`` at a time, of which one tenant has
    at most half: what it makes slow holds up nobody else. ``turn`` says whose a key is.

    A reconcile that raises is tried again after the key's back-off (RetryableError: not before ``after``), but after a
    PermanentError only when the key is added again.
    """

    def __init__(
        self, name: str, reconcile: Reconcile[K], workers: int = 4, clock: Clock | None = None, turn: Turn = turn_of
    ) -> None:
        self.name = name
        self._reconcile = reconcile
        self._workers = workers
        self._failures: dict[K, int] = {}
        self.queue: Queue[K] = Queue(clock or SystemClock(), max(1, workers // 2), turn)

    def add(self, key: K) -> None:
        """Something about the key may have changed."""
        self.queue.add(key)

    def add_after(self, key: K, delay: float) -> None:
        """Look at the key in ``delay`` seconds."""
        self.queue.add_after(key, delay)

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._once(key)
            finally:
                self.queue.done(key)

    async def _once(self, key: K) -> None:
        try:
            again = await self._reconcile(key)
        except PermanentError as error:
            self._settled(key)
            log.error("%s: %s: %s", self.name, key, error)  # noqa: TRY400 - the sentence says it, no trace needed
        except RetryableError as error:
            self._failed(key, error, error.after)
        except ApiError as error:
            self._failed(key, error, float(error.details.get("retryAfterSeconds", 0)))
        except Exception as error:  # noqa: BLE001 - logged with its trace, and one key must not end the others' work
            self._failed(key, error, 0.0)
        else:
            self._settled(key)
            if again is not None:
                self.queue.add_after(key, again)

    def _settled(self, key: K) -> None:
        self._failures.pop(key, None)
        self.queue.forget(key)

    def _failed(self, key: K, error: Exception, after: float) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self.queue.retry(key, after)
        known = isinstance(error, PolderError)
        level = logging.WARNING if count >= LOUD or not known else logging.DEBUG
        log.log(level, "%s: %s: %s; again in %.3g s", self.name, key, error, delay, exc_info=None if known else error)
