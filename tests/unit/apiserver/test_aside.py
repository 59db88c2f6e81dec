"""Work beside the event loop: large pieces leave it, one at a time for a tenant, and errors come back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from polder.apiserver.aside import LIMIT, Aside, drive


async def where() -> int:
    return threading.get_ident()


async def test_only_large_work_leaves_the_loop() -> None:
    aside, here = Aside(), threading.get_ident()
    assert await aside.run("a", LIMIT, where) == here
    assert await aside.run("a", LIMIT + 1, where) != here


async def test_the_loop_goes_on_meanwhile() -> None:
    done = threading.Event()

    async def busy() -> str:
        until = time.monotonic() + 5
        while not done.is_set() and time.monotonic() < until:
            sum(range(1000))
        return "done" if done.is_set() else "late"

    aside = Aside()
    first = asyncio.create_task(aside.run("a", LIMIT + 1, busy))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(aside.run("b", LIMIT + 1, where))
    await asyncio.sleep(0.05)
    assert not first.done() and not second.done(), "one piece at a time, and the loop still runs"
    done.set()
    assert await first == "done" and await second


async def test_errors_come_back() -> None:
    async def broken() -> None:
        raise ValueError("no")

    for size in (0, LIMIT + 1):
        with pytest.raises(ValueError, match="no"):
            await Aside().run("a", size, broken)


async def test_work_that_waits_is_a_defect() -> None:
    async def waits() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError):
        drive(waits())
