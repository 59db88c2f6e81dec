"""The API on SQLite and on etcd: requests one by one and together, long lists, watches, memory."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import uvloop

from bench.daemon import Server, resident
from bench.report import Result, median
from polder.client.client import Client
from tests.etcd import Etcd

TITLE = "API: requests, lists, watches, memory"
NOTES = """\
Over HTTPS on loopback with a client certificate; the client takes part of the machine. *Lone* is one caller after the other's
answer (p50 / p99), *together* 32 callers at once. With etcd the memory is the server's alone."""

PODS = "/api/v1/namespaces/default/pods"
LONE, CALLERS, MANY, WATCHERS = 200, 32, 10_000, 1000
READY_GOAL, EMPTY_GOAL, FULL_GOAL = 1.0, 80.0, 200.0


def pod(name: str) -> bytes:
    """About 1,100 bytes when it is stored."""
    environment = [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)]
    container = {"name": "main", "image": "registry.example/team/app:1.2.3", "env": environment}
    meta = {"name": name, "labels": {"app": "bench", "part": name[-1]}}
    return json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
    ).encode()


def applied(name: str) -> bytes:
    """What server-side apply sends."""
    document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"tier": "x"}}}
    return json.dumps(document).encode()


class Run:
    """One server, measured in order."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.found: dict[str, str] = {}
        self.numbers: dict[str, float] = {}

    async def measure(self) -> None:
        begun = time.perf_counter()
        self.server.start()
        client = await self.server.ready()
        self._note("start to `/readyz`", time.perf_counter() - begun, "{:.2f} s")
        await asyncio.sleep(3)
        self._note("resident memory, empty", self._memory(), "{:.0f} MB")
        try:
            await self._lone(client)
            await self._together(client)
            await self._lists(client)
            self._note(f"resident memory, {MANY:,} pods", self._memory(), "{:.0f} MB")
            await self._fan_out(client)
        finally:
            await client.close()
            self.server.stop()

    def _memory(self) -> float:
        assert self.server.process is not None
        return resident(self.server.process.pid) / 1e6

    def _note(self, what: str, value: float, form: str) -> None:
        self.numbers[what], self.found[what] = value, form.format(value)

    async def _lone(self, client: Client) -> None:
        merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
        calls: dict[str, Callable[[int], Awaitable[object]]] = {
            "create": lambda n: client.raw("POST", PODS, pod(f"lone{n}")),
            "get": lambda n: client.raw("GET", f"{PODS}/lone{n}"),
            "patch": lambda n: client.raw(
                "PATCH", f"{PODS}/lone{n}", b'{"metadata":{"labels":{"a":"b"}}}', content_type=merge
            ),
            "server-side apply": lambda n: client.raw(
                "PATCH", f"{PODS}/lone{n}?fieldManager=bench", applied(f"lone{n}"), content_type=apply
            ),
        }
        for name, call in calls.items():
            taken = []
            for number in range(LONE):
                begun = time.perf_counter()
                await call(number)
                taken.append((time.perf_counter() - begun) * 1000)
            taken.sort()
            self.found[f"lone {name}"] = f"{median(taken):.1f} / {taken[int(LONE * 0.99)]:.1f} ms"

    async def _together(self, client: Client) -> None:
        async def caller(first: int) -> None:
            for number in range(first, MANY - LONE, CALLERS):
                await client.raw("POST", PODS, pod(f"many{number}"))

        begun = time.perf_counter()
        await asyncio.gather(*(caller(n) for n in range(CALLERS)))
        self._note("creates together", (MANY - LONE) / (time.perf_counter() - begun), "{:,.0f}/s")

        async def reader(first: int) -> None:
            for number in range(first, MANY - LONE, CALLERS):
                await client.raw("GET", f"{PODS}/many{number}")

        begun = time.perf_counter()
        await asyncio.gather(*(reader(n) for n in range(CALLERS)))
        self._note("gets together", (MANY - LONE) / (time.perf_counter() - begun), "{:,.0f}/s")

    async def _lists(self, client: Client) -> None:
        for count, query in ((1000, "?limit=1000"), (MANY, "")):
            taken = []
            for _ in range(5):
                begun = time.perf_counter()
                await client.raw("GET", PODS + query)
                taken.append((time.perf_counter() - begun) * 1000)
            self._note(f"list of {count:,} pods", median(taken), "{:.0f} ms")

    async def _fan_out(self, client: Client) -> None:
        """From a write to the last of a thousand watchers."""
        version = json.loads(await client.raw("GET", f"{PODS}?limit=1"))["metadata"]["resourceVersion"]
        seen: list[float] = []

        async def follow() -> None:
            path = f"{PODS}?watch=1&resourceVersion={version}&timeoutSeconds=120"
            async with aclosing(client.lines(path)) as lines:
                async for _ in lines:
                    seen.append(time.perf_counter())
                    return

        tasks = []
        for _ in range(WATCHERS):
            tasks.append(asyncio.create_task(follow()))
            await asyncio.sleep(0.005)
        await asyncio.sleep(5)
        begun = time.perf_counter()
        await client.raw("POST", PODS, pod("seen"))
        await asyncio.gather(*tasks)
        self._note(f"a change to {WATCHERS:,} watchers", (max(seen) - begun) * 1000, "{:.0f} ms")


def _one(etcd: str) -> Run:
    server = Server.prepare(etcd)
    try:
        run = Run(server)
        uvloop.run(run.measure())
        return run
    finally:
        server.remove()


def results() -> list[Result]:
    file = _one("")
    etcd = Etcd(("--max-txn-ops", "1024"), folder=tempfile.mkdtemp(prefix="polder-bench", dir="/tmp")).start()
    try:
        shared = _one(etcd.endpoint)
    finally:
        etcd.stop()
    goals = {
        "start to `/readyz`": (READY_GOAL, "s"),
        "resident memory, empty": (EMPTY_GOAL, "MB"),
        f"resident memory, {MANY:,} pods": (FULL_GOAL, "MB"),
    }
    rows = []
    for what, figure in file.found.items():
        goal = goals.get(what)
        met = file.numbers[what] <= goal[0] if goal else None
        words = f"≤ {goal[0]:.0f} {goal[1]}" if goal else ""
        rows.append(Result(what, f"SQLite {figure}, etcd {shared.found[what]}", words, met))
    return rows
