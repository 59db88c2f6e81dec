"""One tenant's bytes do not fill the event loop: in each round, one piece of one of its streams goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from weakref import WeakValueDictionary


@dataclass(slots=True)
class Pace:
    """Taken after each piece (some 64 KiB) that was carried. Who carries nothing costs nothing."""

    _tenants: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def step(self, tenant: str) -> None:
        """Returns in a later round, after those of the tenant's that asked before."""
        lock = self._tenants.get(tenant)
        if lock is None:
            lock = self._tenants[tenant] = asyncio.Lock()
        async with lock:
            await asyncio.sleep(0)


PACE = Pace()
"""The process's own: everything that carries bytes for tenants shares one event loop."""
