"""A log of what policies drop: a line for each policy, from the counts of the kernel's rules.

The rules count anyway, so that a flood costs no more than its packets; a line for each packet would be a tenant's means to
fill the node's disk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from polder.base.errors import PolderError

log = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two looks at the counts."""
LINES = 20
"""Lines for one tenant at one look; what else was dropped is one more."""

Counts = Mapping[str, tuple[int, int]]
"""Packets and bytes by direction and policy, as ``ingress default/deny``."""


class Dropping(Protocol):
    """The part of the pipeline that is asked."""

    def policed(self) -> Collection[str]:
        """Tenants that have policies on this node."""
        ...

    async def drops(self, tenant: str) -> Counts:
        """What has been dropped since the rules were last changed."""
        ...


class DropLog:
    """Looks from time to time, and says what was dropped since."""

    def __init__(self, source: Dropping, every: float = EVERY) -> None:
        self._source = source
        self._every = every
        self._before: dict[str, Counts] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            await self.look()

    async def look(self) -> None:
        """One look at all tenants that have policies here, one after the other."""
        tenants = sorted(self._source.policed())
        for gone in self._before.keys() - set(tenants):
            del self._before[gone]
        for tenant in tenants:
            try:
                now = await self._source.drops(tenant)
            except (PolderError, OSError) as error:
                log.warning("network: tenant %s: what policies dropped is not known: %s", tenant, error)
                continue
            before, self._before[tenant] = self._before.get(tenant, {}), now
            grown = {title: grown for title, count in now.items() if (grown := _since(before.get(title), count))[0]}
            for title, (packets, size) in _most(grown):
                log.info("network: tenant %s: policy %s dropped %d packets (%d bytes)", tenant, title, packets, size)


def _since(before: tuple[int, int] | None, now: tuple[int, int]) -> tuple[int, int]:
    """The growth; a chain that was made anew counts from nothing."""
    packets, size = before or (0, 0)
    return (now[0] - packets, now[1] - size) if packets <= now[0] else now


def _most(grown: Counts) -> list[tuple[str, tuple[int, int]]]:
    """Those that dropped most, and the sum of the others."""
    ranked = sorted(grown.items(), key=lambda one: one[1], reverse=True)
    rest = ranked[LINES:]
    if not rest:
        return ranked
    total = sum(packets for _, (packets, _) in rest), sum(size for _, (_, size) in rest)
    return [*ranked[:LINES], (f"({len(rest)} others)", total)]
