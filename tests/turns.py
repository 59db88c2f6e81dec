"""Whether others get their turn on the event loop meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass
class Turns:
    """How many turns of the event loop somebody else had."""

    taken: int = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Counts the turns of a task that asks for nothing but turns."""
    turns = Turns()

    async def others() -> None:
        while True:
            turns.taken += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(others())
    try:
        yield turns
    finally:
        counting.cancel()
