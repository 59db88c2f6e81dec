import asyncio
import logging
import time
from contextlib import asynccontextmanager

from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.loop.runner import Runner


@asynccontextmanager
async def running(runner):
    task = asyncio.ensure_future(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition, seconds=3.0):
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition
            await asyncio.sleep(0.002)


async def test_a_failing_key_is_tried_until_it_works():
    seen = []

    async def reconcile(key):
        seen.append(key)
        if seen.count("bad") < 4 and key == "bad":
            raise ValueError("not yet")

    runner = Runner("test", reconcile)
    async with running(runner):
        runner.add("bad")
        runner.add("good")
        await until(lambda: seen.count("bad") == 4)
        await asyncio.sleep(0.1)
    assert (seen.count("bad"), seen.count("good")) == (4, 1)


async def test_a_permanent_error_is_logged_once_and_waits_for_the_next_event(caplog):
    seen = []

    async def reconcile(key):
        seen.append(key)
        raise PermanentError("the CIDR is malformed")

    runner = Runner("networks", reconcile)
    with caplog.at_level(logging.ERROR):
        async with running(runner):
            runner.add("a")
            await until(lambda: seen)
            await asyncio.sleep(0.1)
            assert seen == ["a"]
            assert [r.getMessage() for r in caplog.records] == ["networks: a: the CIDR is malformed"]
            runner.add("a")
            await until(lambda: len(seen) == 2)


async def test_the_shortest_useful_wait_is_respected():
    times = []

    async def reconcile(key):
        times.append(time.monotonic())
        if len(times) == 1:
            raise RetryableError("busy", after=0.1)

    runner = Runner("test", reconcile)
    async with running(runner):
        runner.add("a")
        await until(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.095


async def test_the_answer_says_when_to_look_again():
    times = []

    async def reconcile(key):
        times.append(time.monotonic())
        return 0.05 if len(times) == 1 else None

    runner = Runner("test", reconcile)
    async with running(runner):
        runner.add("a")
        await until(lambda: len(times) == 2)
        await asyncio.sleep(0.1)
    assert len(times) == 2
    assert times[1] - times[0] >= 0.045


async def test_no_key_is_worked_on_twice_at_a_time_and_a_slow_tenant_holds_up_nobody():
    now, most, done = set(), [0], []

    async def reconcile(key):
        assert key not in now
        now.add(key)
        most[0] = max(most[0], len(now))
        await asyncio.sleep(0.01)
        now.discard(key)
        done.append(key)

    runner = Runner("test", reconcile, workers=6)
    small = Ref(TenantName("small"), "", "only")
    async with running(runner):
        for n in range(30):
            runner.add(Ref(TenantName("big"), "", f"n{n}"))
        runner.add(small)
        for n in range(30):
            runner.add(Ref(TenantName("big"), "", f"n{n}"))
        await until(lambda: len(done) == 31)
    assert most[0] == 3 + 1
    assert done.index(small) <= 5


async def test_a_tenant_whose_keys_hang_leaves_workers_to_others():
    hanging, done = [], []

    async def reconcile(key):
        if key.tenant == "big":
            hanging.append(key)
            await asyncio.sleep(60)
        done.append(key)

    runner = Runner("test", reconcile, workers=4)
    async with running(runner):
        for n in range(30):
            runner.add(Ref(TenantName("big"), "", f"n{n}"))
        await asyncio.sleep(0.05)
        for n in range(30):
            runner.add(Ref(TenantName("small"), "", f"n{n}"))
        await until(lambda: len(done) == 30)
    assert len(hanging) == 2


async def test_whom_a_key_is_counted_for_may_be_said():
    now, most = set(), []

    async def reconcile(key):
        now.add(key)
        most.append(len(now))
        await asyncio.sleep(0.02)
        now.discard(key)

    runner = Runner("tenants", reconcile, workers=4, turn=lambda ref: ref.name)
    async with running(runner):
        for n in range(8):
            runner.add(Ref(TenantName("root"), "", f"tenant-{n}"))
        await until(lambda: len(most) == 8)
    assert max(most) == 4
