import asyncio
import time

import pytest

from polder.store.compactor import keep_compacted
from polder.store.memory import MemoryStore
from polder.store.protocol import CompactedError, Key, Prefix, Put, StoreFailedError

PODS = Prefix("pods")


async def test_history_stays_as_long_as_promised_and_then_goes():
    store = MemoryStore()
    made = {}
    task = asyncio.ensure_future(keep_compacted(store, keep=0.2))
    end = time.monotonic() + 0.7
    while time.monotonic() < end:
        made[await store.commit([Put(Key("pods", "a", "b", "c"), b"")])] = time.monotonic()
        await asyncio.sleep(0.01)
        young = min(r for r, at in made.items() if time.monotonic() - at < 0.15)
        await store.list(PODS, revision=young)
    with pytest.raises(CompactedError):
        await store.list(PODS, revision=3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_failure_is_survived(caplog):
    class Failing(MemoryStore):
        fails = 2

        async def compact(self, keep_from):
            if self.fails:
                self.fails -= 1
                raise StoreFailedError("disk full")
            await super().compact(keep_from)

    store = Failing()
    for _ in range(5):
        await store.commit([Put(Key("pods", "a", "b", "c"), b"")])
    task = asyncio.ensure_future(keep_compacted(store, keep=0.05))
    async with asyncio.timeout(5):
        while True:
            try:
                await store.list(PODS, revision=2)
            except CompactedError:
                break
            await asyncio.sleep(0.01)
    assert caplog.text.count("disk full") == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
