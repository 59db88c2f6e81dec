"""Turns at starting commands in containers.

A runtime that is asked for forty at once takes many times as long as for eight after eight (measured with containerd 1.6 and
runc on two cores: 48 s and 3 s), and whoever starts a pod meanwhile waits with them. A tenant has a few turns of its own, so that
others wait for one command and not for all of its.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

TOGETHER: Final = 8
EACH: Final = 4
"""Commands that are being started at a time, in all and of one tenant."""
STARTING: Final = 1.0
"""Seconds after which a command that says nothing counts as started."""


class Starts:
    """Gives out the turns. ``each``: of one tenant."""

    def __init__(self, each: int = EACH) -> None:
        self._each = each
        self._all = asyncio.Semaphore(TOGETHER)
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[Callable[[], None]]:
        """Waits for a turn. It ends with the context, or when what was given is called, or ``STARTING`` is over."""
        own = self._tenants.setdefault(tenant, asyncio.Semaphore(self._each))
        held: list[asyncio.Semaphore] = []

        def give() -> None:
            while held:
                held.pop().release()

        timer: asyncio.TimerHandle | None = None
        try:
            for semaphore in (own, self._all):
                await semaphore.acquire()
                held.append(semaphore)
            timer = asyncio.get_running_loop().call_later(STARTING, give)
            yield give
        finally:
            if timer is not None:
                timer.cancel()
            give()
