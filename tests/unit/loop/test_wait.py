from __future__ import annotations

import asyncio

import pytest

from polder.loop.wait import wait_set


async def test_it_returns_when_set_and_when_the_time_is_over():
    event = asyncio.Event()
    assert not await wait_set(event, 0.0)
    assert not await wait_set(event, 0.01)
    asyncio.get_running_loop().call_later(0.01, event.set)
    assert await wait_set(event, 5.0)
    assert await wait_set(event, None)


@pytest.mark.parametrize("ticks", range(5))
async def test_a_cancellation_together_with_the_event_is_not_lost(ticks):
    event = asyncio.Event()
    task = asyncio.ensure_future(wait_set(event, 60.0))
    await asyncio.sleep(0.01)
    event.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert was_done or isinstance(ended, asyncio.CancelledError)
