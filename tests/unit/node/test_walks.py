"""Long work on tenants' files."""

from __future__ import annotations

import asyncio
import threading

import pytest

from polder.node.walks import Walks


async def test_who_has_much_work_waits_for_himself() -> None:
    walks, gate, begun = Walks(2), threading.Event(), []

    def long(name: str) -> str:
        begun.append(name)
        gate.wait(30)
        return name

    mine = [asyncio.create_task(walks.run("evil", long, f"evil {n}")) for n in range(8)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(20):
            assert await walks.run("good", lambda: "good") == "good"
        assert begun == ["evil 0"], "one piece of a tenant at a time"
    finally:
        gate.set()
    assert await asyncio.gather(*mine) == [f"evil {n}" for n in range(8)]


async def test_work_that_nobody_waits_for_keeps_its_turn() -> None:
    walks, gate, begun = Walks(2), threading.Event(), []

    def long(name: str) -> None:
        begun.append(name)
        gate.wait(30)

    first = asyncio.create_task(walks.run("evil", long, "first"))
    async with asyncio.timeout(20):
        while not begun:  # noqa: ASYNC110  a thread tells nobody
            await asyncio.sleep(0.01)
    first.cancel()
    second = asyncio.create_task(walks.run("evil", long, "second"))
    async with asyncio.timeout(20):
        await walks.run("good", lambda: None)
    assert begun == ["first"]
    gate.set()
    async with asyncio.timeout(20):
        await second
    assert first.cancelled()


async def test_what_the_work_raises_is_raised_and_the_turn_is_given_back() -> None:
    walks = Walks(1)

    def fail() -> None:
        raise OSError("no")

    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            await walks.run("a", fail)
    assert await walks.run("a", lambda: 1) == 1
