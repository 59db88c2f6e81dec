"""Waiting for an event for some time, without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_set(event: asyncio.Event, seconds: float | None) -> bool:
    """Returns when the event is set, or after ``seconds`` (None: never); whether it is set.

    Not ``asyncio.wait_for``: in Python 3.11 that loses a cancellation which comes together with what it waits for, and a
    task that was told to end goes on for ever.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Does what must not be left half done: a cancellation counts when it has ended."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
