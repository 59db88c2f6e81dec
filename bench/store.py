"""The store on SQLite and on etcd: the same work on both, in turn."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import uvloop

from bench.report import Result, median
from polder.store.etcd import open_etcd
from polder.store.protocol import Key, Prefix, Put, Store
from polder.store.sqlite import open_sqlite
from tests.etcd import Etcd

TITLE = "Store: SQLite and etcd"
NOTES = """\
Values of 1,200 bytes, about a pod's. Every write is on the disk when it is answered: SQLite's in this process, etcd's (one
member, Debian's) in its own, over a unix socket. *Lone* is one caller after the other's answer, *together* 64 callers at once."""

ROUNDS = 3
VALUE = b"x" * 1200
LONE, TOGETHER, CALLERS = 300, 6400, 64
WATCHERS = 1000
PODS = Prefix("pods")


def pod(number: int | str) -> Key:
    return Key("pods", "acme", "default", f"p{number}")


async def timed(calls: list[Callable[[], Awaitable[object]]]) -> list[float]:
    """Seconds of each call, one after the other."""
    taken = []
    for call in calls:
        begun = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)


async def throughput(call: Callable[[int], Awaitable[object]]) -> float:
    """Calls a second, by many callers."""

    async def caller(first: int) -> None:
        for number in range(first, TOGETHER, CALLERS):
            await call(number)

    begun = time.perf_counter()
    await asyncio.gather(*(caller(n) for n in range(CALLERS)))
    return TOGETHER / (time.perf_counter() - begun)


async def fan_out(store: Store) -> float:
    """Seconds from a commit until a thousand watches have it."""
    since = await store.revision()
    ready, seen = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def follow() -> None:
        async with aclosing(store.watch(PODS, since)) as watch:
            async for batch in watch:
                (seen if batch.changes else ready).release()
                if batch.changes:
                    return

    tasks = [asyncio.create_task(follow()) for _ in range(WATCHERS)]
    for _ in tasks:
        await ready.acquire()
    begun = time.perf_counter()
    await store.commit([Put(pod("seen"), VALUE)])
    for _ in tasks:
        await seen.acquire()
    took = time.perf_counter() - begun
    await asyncio.gather(*tasks)
    return took


async def measure(store: Store) -> dict[str, float]:
    """Milliseconds, or calls a second."""
    found: dict[str, float] = {}
    writes = await timed([lambda n=n: store.commit([Put(pod(f"lone{n}"), VALUE, 0)]) for n in range(LONE)])  # type: ignore[misc]
    reads = await timed([lambda n=n: store.get(pod(f"lone{n}")) for n in range(LONE)])  # type: ignore[misc]
    for name, taken in (("write", writes), ("read", reads)):
        found[f"lone {name}, p50"] = median(taken) * 1000
        found[f"lone {name}, p99"] = taken[int(len(taken) * 0.99)] * 1000
    found["writes together"] = await throughput(lambda n: store.commit([Put(pod(n), VALUE, 0)]))
    found["reads together"] = await throughput(lambda n: store.get(pod(n)))
    for number in range(TOGETHER, 10_000, 100):
        await store.commit([Put(pod(n), VALUE) for n in range(number, min(number + 40, 10_000))])
        await store.commit([Put(pod(n), VALUE) for n in range(number + 40, min(number + 80, 10_000))])
        await store.commit([Put(pod(n), VALUE) for n in range(number + 80, min(number + 100, 10_000))])
    found["list of 1,000"] = median(await timed([lambda: store.list(PODS, limit=1000)] * 3)) * 1000
    found["list of 10,300"] = median(await timed([lambda: store.list(PODS)] * 3)) * 1000
    found[f"a change to {WATCHERS:,} watches"] = median([await fan_out(store) for _ in range(3)]) * 1000
    return found


async def _sqlite() -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="polder-bench", dir="/tmp") as folder:
        store = open_sqlite(Path(folder) / "db")
        try:
            return await measure(store)
        finally:
            await store.close()


async def _etcd() -> dict[str, float]:
    etcd = Etcd(folder=tempfile.mkdtemp(prefix="polder-bench", dir="/tmp")).start()
    try:
        store = await open_etcd(etcd.settings())
        try:
            return await measure(store)
        finally:
            await store.close()
    finally:
        etcd.stop()
        shutil.rmtree(etcd.folder, ignore_errors=True)


def results() -> list[Result]:
    runs: dict[str, list[dict[str, float]]] = {"SQLite": [], "etcd": []}
    for _ in range(ROUNDS):
        for name, one in (("SQLite", _sqlite), ("etcd", _etcd)):
            runs[name].append(uvloop.run(one()))
    rows = []
    for what in runs["SQLite"][0]:
        ours, theirs = (median([run[what] for run in runs[name]]) for name in ("SQLite", "etcd"))
        if what.endswith("together"):
            figure = f"SQLite {ours:,.0f}/s, etcd {theirs:,.0f}/s"
        else:
            figure = f"SQLite {ours:.2f} ms, etcd {theirs:.2f} ms"
        rows.append(Result(what, figure))
    return rows
