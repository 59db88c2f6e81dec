"""Many requests of one reconciliation, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

LIMIT = 16
"""Requests under way at once."""


async def each(work: Iterable[Awaitable[object]]) -> None:
    """Awaits all of them; all are tried, then the first error is raised."""
    slots = asyncio.Semaphore(LIMIT)

    async def one(item: Awaitable[object]) -> None:
        async with slots:
            await item

    results = await asyncio.gather(*(one(item) for item in work), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
