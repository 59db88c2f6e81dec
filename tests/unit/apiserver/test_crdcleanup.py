"""What follows definitions goes on after defects and gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from polder.apiserver import crdcleanup
from polder.apiserver.crdcleanup import CrdCleanup
from polder.apiserver.custom import DEFINITIONS
from polder.store.memory import MemoryStore
from polder.store.protocol import Batch, CompactedError, Key, Prefix, Put


class GappyStore(MemoryStore):
    """Its watches end with what the test says, once."""

    trouble: Exception | None = None
    watching: int = 0

    async def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """The changes, until there is trouble."""
        self.watching += 1
        async for batch in super().watch(prefix, since):
            if self.trouble is not None:
                trouble, self.trouble = self.trouble, None
                raise trouble
            yield batch


def definition(generation: int) -> bytes:
    meta = {"name": "widgets.example.com", "uid": "1", "generation": generation}
    return orjson.dumps({"metadata": meta, "spec": {}, "status": {"acceptedNames": {"plural": "widgets"}}})


@asynccontextmanager
async def following(store: MemoryStore) -> AsyncIterator[list[str]]:
    ended: list[str] = []
    deleter = cast("Any", SimpleNamespace(writer=SimpleNamespace(store=store)))
    cleanup = CrdCleanup(deleter, lambda tenant, name: ended.append(f"{tenant}/{name}"))
    task = asyncio.create_task(cleanup.run())
    try:
        yield ended
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(met: Any) -> None:
    async with asyncio.timeout(5):
        while not met():  # noqa: ASYNC110 - what is waited for is not this test's
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("trouble", [RuntimeError("a defect"), CompactedError(1, 2)])
async def test_changes_in_a_gap_end_watches(monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    async def renamed(_self: CrdCleanup, _key: Key) -> bool:
        return True

    monkeypatch.setattr(crdcleanup, "PAUSE", 0.01)
    monkeypatch.setattr(CrdCleanup, "_rename", renamed)
    store = GappyStore()
    key = Key(DEFINITIONS.resource, "t", "", "widgets.example.com")
    await store.commit([Put(key, definition(1))])
    async with following(store) as ended:
        await until(lambda: store.watching == 1)
        await asyncio.sleep(0.02)
        store.trouble = trouble
        await store.commit([Put(key, definition(2))])
        await until(lambda: store.watching == 2)
        await until(lambda: ended)
        assert ended == ["t/widgets.example.com"]
        await store.commit([Put(key, definition(2))])
        await store.commit([Put(key, definition(3))])
        await until(lambda: len(ended) == 2)
    await store.close()


async def test_work_that_is_asked_for_while_it_ends_is_done_again() -> None:
    store = MemoryStore()
    looks: list[int] = []
    deleter = cast("Any", SimpleNamespace(writer=SimpleNamespace(store=store)))
    cleanup = CrdCleanup(deleter)
    key = Key(DEFINITIONS.resource, "t", "", "*")

    async def step(_key: Key) -> bool:
        looks.append(len(looks))
        if len(looks) == 1:  # has looked already when it is asked for again
            cleanup._start(key, step)
        if len(looks) == 2:
            raise RuntimeError("a defect")
        return True

    cleanup._start(key, step)
    await until(lambda: len(looks) == 3)
    await asyncio.sleep(0)
    assert cleanup._tasks == {}
    await store.close()
