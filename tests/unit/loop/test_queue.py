import asyncio
import time

import pytest

from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.controllers.internal import Item
from polder.controllers.resources import Resource
from polder.loop.queue import Queue

MAPS = Resource("", "v1", "configmaps", "ConfigMap", True)


def ref(tenant, name="x"):
    return Ref(TenantName(tenant), "default", name)


@pytest.fixture
async def queue():
    made = Queue(SystemClock())
    yield made
    made.close()


async def soon(awaitable, seconds=2.0):
    return await asyncio.wait_for(awaitable, seconds)


async def test_a_key_waits_once(queue):
    for _ in range(3):
        queue.add("a")
    assert len(queue) == 1
    assert await soon(queue.take()) == "a"
    with pytest.raises(TimeoutError):
        await soon(queue.take(), 0.02)


async def test_a_key_added_while_worked_on_comes_again_after_done(queue):
    queue.add("a")
    await soon(queue.take())
    queue.add("a")
    with pytest.raises(TimeoutError):
        await soon(queue.take(), 0.02)
    queue.done("a")
    assert await soon(queue.take()) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_tenants_take_turns_whatever_the_keys_are(queue):
    for tenant, count in (("big", 50), ("small", 1)):
        for n in range(count):
            queue.add(Item(ref(tenant, f"n{n}"), MAPS, f"{tenant}-{n}"))
    first = [(await soon(queue.take())).tenant for _ in range(2)]
    assert set(first) == {"big", "small"}


async def test_tenants_take_turns(queue):
    for n in range(50):
        queue.add(ref("big", f"n{n}"))
    queue.add(ref("small"))
    queue.add(ref("tiny"))
    taken = [await soon(queue.take()) for _ in range(4)]
    assert [k.tenant for k in taken] == ["big", "small", "tiny", "big"]


async def test_a_tenant_has_no_more_keys_in_work_than_its_share():
    queue = Queue(SystemClock(), share=2)
    for n in range(4):
        queue.add(ref("big", f"n{n}"))
    queue.add(ref("small"))
    taken = [await soon(queue.take()) for _ in range(3)]
    assert [k.tenant for k in taken] == ["big", "small", "big"]
    third = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0.01)
    assert not third.done()
    queue.add(taken[0])
    queue.done(taken[0])
    assert await soon(third) == ref("big", "n2")
    queue.done(taken[2])
    assert await soon(queue.take()) == ref("big", "n3")
    queue.done(ref("big", "n2"))
    assert await soon(queue.take()) == taken[0]
    for key in (taken[0], taken[1], ref("big", "n3")):
        queue.done(key)
    assert len(queue) == 0


async def test_keys_of_nobody_have_no_share():
    queue = Queue(SystemClock(), share=1)
    for key in "abc":
        queue.add(key)
    assert [await soon(queue.take()) for _ in range(3)] == ["a", "b", "c"]


async def test_a_share_is_kept_when_takers_wait_already():
    queue = Queue(SystemClock(), share=1)
    takers = [asyncio.ensure_future(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    for n in range(3):
        queue.add(ref("big", f"n{n}"))
    queue.add(ref("small"))
    await asyncio.sleep(0.01)
    taken = [t.result() for t in takers if t.done()]
    assert sorted(k.tenant for k in taken) == ["big", "small"]
    for key in taken:
        queue.done(key)
    await asyncio.sleep(0.01)
    assert all(t.done() for t in takers)


async def test_delays_come_in_order_and_the_earlier_wins(queue):
    queue.add_after("late", 0.06)
    queue.add_after("early", 0.02)
    queue.add_after("late", 10)
    queue.add_after("moved", 10)
    queue.add_after("moved", 0.04)
    began = time.monotonic()
    assert [await soon(queue.take()) for _ in range(3)] == ["early", "moved", "late"]
    assert time.monotonic() - began >= 0.055
    with pytest.raises(TimeoutError):
        await soon(queue.take(), 0.02)


async def test_an_add_overtakes_a_delay(queue):
    queue.add_after("a", 0.03)
    queue.add("a")
    assert await soon(queue.take()) == "a"
    queue.done("a")
    with pytest.raises(TimeoutError):
        await soon(queue.take(), 0.06)


async def test_back_off_doubles_up_to_a_minute_and_is_forgotten(queue):
    delays = [queue.retry("a") for _ in range(20)]
    assert delays[:4] == [0.005, 0.01, 0.02, 0.04]
    assert delays[-1] == 60.0
    assert queue.retry("b", at_least=7.0) == 7.0
    queue.forget("a")
    assert queue.retry("a") == 0.005


async def test_a_cancelled_taker_hands_its_turn_on(queue):
    first = asyncio.ensure_future(queue.take())
    second = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await soon(second) == "a"
    with pytest.raises(asyncio.CancelledError):
        await first
