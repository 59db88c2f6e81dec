"""Pure work on large values, in a thread beside the event loop, so that one tenant's megabyte holds up nobody else's request.

A tenant has one such piece of work at a time, and so has the server: the loop keeps its share of the interpreter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

LIMIT: Final = 24 * 1024
"""Bytes of JSON that are worked on at once on the loop: a few milliseconds at most."""
T = TypeVar("T")


def drive(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("the work waits for something")


@dataclass(slots=True)
class Aside:
    """Runs pieces of work."""

    _turn: asyncio.Semaphore | None = None
    _tenants: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def run(self, tenant: str, size: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of work that waits for nothing, on ``size`` bytes of JSON. Raises what the work raises."""
        if size <= LIMIT:
            return await work()
        if self._turn is None:
            self._turn = asyncio.Semaphore(1)
        lock = self._tenants.setdefault(tenant, asyncio.Lock())
        async with lock, self._turn:
            return await asyncio.to_thread(lambda: drive(work()))
