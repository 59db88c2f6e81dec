"""Many requests of one reconciliation, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

LIMIT = 16
"""Requests under way at once."""


async def each(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Awaits all of them; all are tried, then the first error is raised. A cancellation ends also those that wait."""
    slots = asyncio.Semaphore(LIMIT)
    todo = list(work)

    async def one(item: Coroutine[Any, Any, object]) -> None:
        async with slots:
            await item

    try:
        results = await asyncio.gather(*map(one, todo), return_exceptions=True)
    finally:
        for item in todo:
            item.close()
    for result in results:
        if isinstance(result, BaseException):
            raise result
