"""Nodes hear of changes of what their pods mention, and of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson

from polder.apiserver import mentions
from polder.apiserver.mentions import MOST, ChangeFeed
from polder.apiserver.share import Share
from polder.client.mux import Stream
from polder.store.memory import MemoryStore
from polder.store.protocol import Delete, Key, Put


class Heard:
    """The node's end of a stream: keeps what is written."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.came = asyncio.Event()
        self.holds = asyncio.Event()
        self.holds.set()

    async def write(self, data: bytes) -> None:
        await self.holds.wait()
        self.lines += [orjson.loads(line) for line in data.splitlines()]
        self.came.set()

    async def until(self, count: int) -> list[dict[str, Any]]:
        async with asyncio.timeout(5):
            while len(self.lines) < count:
                self.came.clear()
                await self.came.wait()
        return self.lines


def pod(tenant: str, node: str, name: str, config: str) -> Put:
    volumes = [{"name": "v", "configMap": {"name": config}}]
    body = {"metadata": {"name": name}, "spec": {"nodeName": node, "volumes": volumes}}
    return Put(Key("pods", tenant, "ns", name), orjson.dumps(body))


def config(tenant: str, name: str, text: bytes = b"{}") -> Put:
    return Put(Key("configmaps", tenant, "ns", name), text)


def line(tenant: str, name: str) -> dict[str, str]:
    return {"resource": "configmaps", "tenant": tenant, "namespace": "ns", "name": name}


@asynccontextmanager
async def feeding(store: MemoryStore) -> AsyncIterator[ChangeFeed]:
    share = Share(store)
    await share.load()
    feed = ChangeFeed(store, share.mentioning)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(share.run()), group.create_task(feed.run())]
        await asyncio.sleep(0.05)
        yield feed
        for task in tasks:
            task.cancel()
    await store.close()


@asynccontextmanager
async def listening(feed: ChangeFeed, node: str) -> AsyncIterator[Heard]:
    heard = Heard()
    task = asyncio.create_task(feed.serve(node, {}, cast(Stream, heard)))
    try:
        await heard.until(1)
        yield heard
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_node_hears_of_what_its_pods_mention() -> None:
    store = MemoryStore()
    await store.commit([pod("acme", "n1", "a", "c"), pod("globex", "n2", "b", "c"), config("acme", "c")])
    async with feeding(store) as feed, listening(feed, "n1") as one, listening(feed, "n2") as two:
        assert one.lines == two.lines == [{"ready": True}]
        await store.commit([config("acme", "other"), config("acme", "c", b"1"), config("globex", "d")])
        assert (await one.until(2))[1] == line("acme", "c")
        await store.commit([Delete(Key("configmaps", "acme", "ns", "c"))])
        assert (await one.until(3))[2] == line("acme", "c")
        assert two.lines == [{"ready": True}], "the other tenant's pod on the other node mentions another one"


async def test_a_pod_that_was_bound_just_before_hears_too() -> None:
    store = MemoryStore()
    async with feeding(store) as feed, listening(feed, "n1") as one:
        await store.commit([config("acme", "c")])
        await store.commit([pod("acme", "n1", "a", "c")])
        assert (await one.until(2))[1] == line("acme", "c"), "told once more a moment later"
        await store.commit([Delete(Key("pods", "acme", "ns", "a"))])
        await asyncio.sleep(0.05)
        await store.commit([config("acme", "c", b"2")])
        await asyncio.sleep(2 * mentions.LATER)
        assert len(one.lines) <= 3, "a pod that is gone mentions nothing"
        assert not feed._mentions(Key("configmaps", "acme", "ns", "c"))


async def test_who_does_not_keep_up_is_told_to_look_at_everything() -> None:
    store = MemoryStore()
    names = [f"c{number}" for number in range(MOST + 2)]
    await store.commit([pod("acme", "n1", f"p-{name}", name) for name in names])
    async with feeding(store) as feed, listening(feed, "n1") as one:
        one.holds.clear()
        await store.commit([config("acme", names[0])])
        await asyncio.sleep(0.05)
        await store.commit([config("acme", name) for name in names])
        await asyncio.sleep(0.2)
        one.holds.set()
        assert {"any": True} in await one.until(3)
        assert len(one.lines) < 10


async def test_a_stream_that_ends_leaves_nothing() -> None:
    store = MemoryStore()
    async with feeding(store) as feed:
        async with listening(feed, "n1"):
            assert feed._listeners
        assert not feed._listeners
