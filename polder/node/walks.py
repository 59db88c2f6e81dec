"""Long work on tenants' files (given to a group, measured, removed): beside the threads that all else on the node uses, and one
piece of a tenant at a time, so that whoever has a million files waits for himself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

THREADS: Final = 3

Args = ParamSpec("Args")
Result = TypeVar("Result")


class Walks:
    """Threads are made when they are needed, and end with the process."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, "walks")
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def run(self, tenant: str, work: Callable[Args, Result], /, *args: Args.args, **more: Args.kwargs) -> Result:
        """What the work answers. Raises what it raises. Work that nobody waits for any more keeps its turn to its end."""
        turn = self._turns.setdefault(tenant, asyncio.Semaphore(1))
        await turn.acquire()
        try:
            done = asyncio.wrap_future(self._pool.submit(work, *args, **more))
        except BaseException:
            turn.release()
            raise
        done.add_done_callback(lambda _: turn.release())
        return await asyncio.shield(done)
