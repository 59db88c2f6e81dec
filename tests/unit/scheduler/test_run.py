import asyncio

import pytest

from polder.client.client import Client, ClientSettings
from polder.scheduler.run import Scheduler
from polder.scheduler.settings import SchedulerSettings
from tests.unit.scheduler.make import demand


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize("pending", [False, True])
async def test_a_cancellation_together_with_a_change_is_not_lost(ticks, pending):
    scheduler = Scheduler(Client(ClientSettings("https://127.0.0.1:1", "ca")), SchedulerSettings())
    if pending:
        scheduler._backlog.put(demand())
        scheduler._backlog.refuse(
            scheduler._backlog.take(scheduler._clock.monotonic()).uid, scheduler._clock.monotonic()
        )
    task = asyncio.ensure_future(scheduler._rest())
    await asyncio.sleep(0.01)
    assert not task.done()
    scheduler._wake.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    was_done = task.done()
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert was_done or isinstance(ended, asyncio.CancelledError)
