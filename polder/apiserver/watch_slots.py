"""How many watchers of a tenant may have a large event before them that they have not read: each holds its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from polder.apiserver.fairness import EXEMPT
from polder.apiserver.hooks import Call

UNREAD: Final = 16
"""Watchers of one tenant."""


@dataclass(slots=True)
class Slots:
    """One tenant's; a watch keeps them as long as it runs."""

    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(UNREAD))
    users: int = 0


class WatchSlots:
    """The slots of the tenants that watch."""

    def __init__(self) -> None:
        self._held: dict[str, Slots] = {}

    @asynccontextmanager
    async def of(self, call: Call) -> AsyncIterator[Slots | None]:
        """Those that a watch uses. None for Polder's own parts and nodes, which watch for all tenants."""
        if call.who.role in EXEMPT:
            yield None
            return
        slots = self._held.setdefault(call.info.tenant, Slots())
        slots.users += 1
        try:
            yield slots
        finally:
            slots.users -= 1
            if not slots.users:
                del self._held[call.info.tenant]


@asynccontextmanager
async def held(slots: Slots | None, seconds: float) -> AsyncIterator[None]:
    """Held while a large event is written and read. Raises TimeoutError where none becomes free."""
    if slots is None:
        yield
        return
    async with asyncio.timeout(seconds):
        await slots.free.acquire()
    try:
        yield
    finally:
        slots.free.release()
