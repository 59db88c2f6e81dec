"""Seats of tenants: alone, crowded, in turn, away, given up; with random requests, none lost and never too many."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polder.api.errors import ApiError
from polder.apiserver.fairness import Fairness, FairnessSettings, away, handing_over
from polder.apiserver.types import Identity, RequestInfo, Role
from polder.base.ids import TenantName

SMALL = FairnessSettings(alone=4, crowded=2, together=5, queue=3, patience=0.2, streams=2)


def who(tenant: str, role: Role = Role.TENANT_ADMIN) -> Identity:
    return Identity("u", role, TenantName(tenant))


def what(tenant: str, verb: str = "get") -> RequestInfo:
    return RequestInfo(TenantName(tenant), verb, "/api/v1/pods", "", "v1", "pods")


def ask(fairness: Fairness, tenant: str):
    return fairness.seated(who(tenant), what(tenant))


async def test_alone_and_crowded() -> None:
    fairness = Fairness(SMALL)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(ask(fairness, "a"))
        async with ask(fairness, "b"):
            pass
        with pytest.raises(ApiError, match="no turn came"):
            await stack.enter_async_context(ask(fairness, "a"))
    async with ask(fairness, "b"), ask(fairness, "a"), ask(fairness, "a"):
        with pytest.raises(ApiError, match="no turn came"):
            async with ask(fairness, "a"):
                pytest.fail("a third seat while another tenant asks")


async def test_those_who_show_nothing_hold_up_neither_the_platform_nor_a_tenant() -> None:
    fairness, nobody = Fairness(SMALL), who("root", Role.NONE)
    async with AsyncExitStack() as stack:
        for tenant in ("root", "a", "nowhere", "b"):
            await stack.enter_async_context(fairness.seated(nobody, what(tenant)))
        with pytest.raises(ApiError, match="no turn came"):
            await stack.enter_async_context(fairness.seated(nobody, what("c")))
        async with fairness.seated(who("root", Role.PLATFORM_ADMIN), what("root")):
            pass


async def test_the_queue_is_bounded_and_served_in_order() -> None:
    fairness, order = Fairness(SMALL), list[int]()

    async def one(number: int) -> None:
        async with ask(fairness, "a"):
            order.append(number)

    async with ask(fairness, "b"), asyncio.TaskGroup() as group, ask(fairness, "a"), ask(fairness, "a"):
        for number in range(3):
            group.create_task(one(number))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await one(9)
        assert (refused.value.code, refused.value.details) == (429, {"retryAfterSeconds": 1})
        assert not order
    assert order == [0, 1, 2]


async def test_who_waits_outside_gives_the_seat_back() -> None:
    fairness = Fairness(SMALL)
    async with ask(fairness, "b"), ask(fairness, "a"), ask(fairness, "a"):
        async with away(), ask(fairness, "a"):
            pass
        with pytest.raises(ApiError):
            async with ask(fairness, "a"):
                pytest.fail("the seat was taken again")


async def test_requests_that_wait_outside_are_counted_too() -> None:
    """Each may hold a body, however long a webhook takes."""
    fairness, end = Fairness(replace(SMALL, begun=3)), asyncio.Event()

    async def one() -> None:
        async with ask(fairness, "a"), away():
            await end.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(one())
        await asyncio.sleep(0.01)
        with pytest.raises(ApiError, match="3 requests that have begun"):
            async with ask(fairness, "a"):
                pytest.fail("a fourth")
        async with ask(fairness, "b"):
            end.set()
    async with ask(fairness, "a"):
        pass


async def test_streams_are_counted_apart_and_the_platform_is_not_held_up() -> None:
    fairness = Fairness(SMALL)
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(fairness.seated(who("a"), what("a", "watch")))
        with pytest.raises(ApiError, match="2 watches"):
            await stack.enter_async_context(fairness.seated(who("a"), what("a", "watch")))
        for _ in range(20):
            await stack.enter_async_context(fairness.seated(who("root", Role.NODE), what("a")))
        await stack.enter_async_context(ask(fairness, "a"))
    async with fairness.seated(who("a"), what("a", "watch")):
        pass


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=40))
def test_random_requests(requests: list[tuple[str, int, bool]]) -> None:
    """Whatever comes and goes: bounds hold, each is served or refused or cancelled, and at the end all seats are free."""
    bounds = FairnessSettings(alone=4, crowded=2, together=5, queue=50, patience=1)
    fairness, working, served = Fairness(bounds), 0, 0

    async def one(tenant: str, steps: int, leaves: bool) -> None:
        nonlocal working, served
        async with ask(fairness, tenant):
            working += 1
            assert working <= bounds.together
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                working -= 1
            if leaves:
                async with away():
                    await asyncio.sleep(0)
            served += 1

    async def play() -> int:
        tasks = []
        for number, (tenant, steps, leaves) in enumerate(requests):
            tasks.append(asyncio.create_task(one(tenant, steps, leaves)))
            if number % 7 == 6:
                await asyncio.sleep(0)
                tasks[-1].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [d for d in done if d is not None and not isinstance(d, asyncio.CancelledError)]
        async with ask(fairness, "z"), ask(fairness, "z"):
            pass
        return sum(d is None for d in done)

    assert asyncio.run(play()) == served
    assert fairness._working == 0


async def test_few_large_answers_of_a_tenant_are_under_way() -> None:
    fairness = Fairness(FairnessSettings(large=2))
    release = asyncio.Event()

    async def large(tenant: str, role: Role = Role.TENANT_ADMIN) -> None:
        async with fairness.seated(who(tenant, role), what(tenant)), handing_over():
            await release.wait()

    async def patient() -> None:
        async with fairness.seated(who("a"), what("a", "watch")), handing_over(patient=True):
            pass

    slow = [asyncio.create_task(large("a")) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="slow to read"):
        await large("a")
    waits = asyncio.create_task(patient())
    others = [asyncio.create_task(large("b")), *(asyncio.create_task(large("a", Role.NODE)) for _ in range(5))]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in (waits, *others))
    release.set()
    await asyncio.gather(*slow, *others, waits)
    assert fairness._writes == {}, "an idle tenant costs nothing"


async def test_beside_others_a_tenant_begins_one_request_in_a_round_of_the_loop() -> None:
    fairness, begun = Fairness(replace(SMALL, crowded=4)), list[str]()

    async def one(tenant: str) -> None:
        async with ask(fairness, tenant):
            begun.append(tenant)

    async with ask(fairness, "b"), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(one("a"))
        await asyncio.sleep(0)
        assert begun == ["a"]
        group.create_task(one("c"))
        await asyncio.sleep(0)
        assert begun[:2] == ["a", "c"]
    assert sorted(begun) == ["a", "a", "a", "a", "c"]


async def test_alone_all_begin_in_the_same_round() -> None:
    fairness, begun = Fairness(SMALL), list[int]()

    async def one(number: int) -> None:
        async with ask(fairness, "a"):
            begun.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(one(number))
        await asyncio.sleep(0)
        assert begun == [0, 1, 2, 3]


async def test_who_holds_a_lock_that_a_seated_one_waits_for_comes_back_all_the_same() -> None:
    fairness, line = Fairness(replace(SMALL, crowded=1)), asyncio.Lock()

    async def holder(out: asyncio.Event, home: asyncio.Event) -> None:
        async with ask(fairness, "a"), line, away(returns_at_once=True):
            out.set()
            await home.wait()

    async with ask(fairness, "b"), asyncio.timeout(2), asyncio.TaskGroup() as group:
        out, home = asyncio.Event(), asyncio.Event()
        group.create_task(holder(out, home))
        await out.wait()
        async with ask(fairness, "a"):
            home.set()
            async with line:
                pass
