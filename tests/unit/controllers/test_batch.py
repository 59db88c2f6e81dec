"""Many requests of one reconciliation at a time: all are tried, and a cancellation leaves none behind."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from polder.controllers.batch import LIMIT, each


class LostError(Exception):
    """What one of them ends with."""


async def test_all_are_tried_and_the_first_error_is_raised() -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        done.append(number)
        if number == 1:
            raise LostError

    with pytest.raises(LostError):
        await each([one(number) for number in range(3)])
    assert done == [0, 1, 2]


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_cancellation_at_any_moment_leaves_none_that_nobody_awaits(turns: int) -> None:
    async def one() -> None:
        await asyncio.sleep(60)

    work = [one() for _ in range(2 * LIMIT)]
    task = asyncio.create_task(each(work))
    for _ in range(1 + turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {inspect.getcoroutinestate(item) for item in work} == {inspect.CORO_CLOSED}
