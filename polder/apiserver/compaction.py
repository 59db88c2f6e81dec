"""Forgets the store's history after some minutes: watches and continue tokens older than that are answered with 410."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field

from polder.base.clock import Clock
from polder.store.protocol import Store, StoreError

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Compaction:
    """Keeps what happened in the last ``keep`` seconds, at least; looks every ``interval`` seconds."""

    store: Store
    clock: Clock
    keep: float
    interval: float
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    async def run(self) -> None:
        """Compacts until cancelled; a store that cannot is asked again the next time."""
        while True:
            try:
                await self.step()
            except StoreError as problem:
                log.warning("history is not compacted: %s", problem)
            await asyncio.sleep(self.interval)

    async def step(self) -> None:
        """Notes where the store is now, and forgets what came before the last note that is old enough."""
        now = self.clock.monotonic()
        self._seen.append((now, await self.store.revision()))
        floor = 0
        while self._seen and self._seen[0][0] <= now - self.keep:
            floor = self._seen.popleft()[1]
        if floor:
            await self.store.compact(floor)
