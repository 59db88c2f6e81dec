"""SQLite on a disk that fails: reads go on, writes fail clearly, and what was acknowledged is there afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from contextlib import suppress

import pytest

from polder.store.protocol import Key, Prefix, Put
from polder.store.sqlite import open_sqlite
from tests.faults import build

CHILD = """
import asyncio, json, sqlite3, sys
from contextlib import aclosing
from pathlib import Path
from polder.store.protocol import Key, Prefix, Put, StoreError, StoreFailedError
from polder.store.sqlite import open_sqlite

def key(name):
    return Key("pods", "acme", "default", name)

async def main():
    store = open_sqlite(Path(sys.argv[1]))
    loop = asyncio.get_running_loop()
    watch = store.watch(Prefix("pods"), await store.revision())
    await anext(watch)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, *names = line.split()
        answer = {}
        if command == "put":
            results = await asyncio.gather(
                *(store.commit([Put(key(n), n.encode() * 200)]) for n in names), return_exceptions=True
            )
            for name, result in zip(names, results, strict=True):
                failed = isinstance(result, Exception)
                answer[name] = f"{type(result).__name__}: {result}" if failed else result
        elif command == "read":
            answer["rows"] = len((await store.list(Prefix("pods"))).entries)
            answer["first"] = (await store.get(key("first"))).revision
            answer["revision"] = await store.revision()
            async with aclosing(store.watch(Prefix("pods"), 1)) as past:
                answer["past"] = len((await anext(past)).changes)
        elif command == "checkpoint":
            try:
                answer["busy"] = store._near.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error as error:
                answer["failed"] = str(error)
        print(json.dumps(answer), flush=True)
    await store.close()

asyncio.run(main())
"""
PODS = Prefix("pods")


@pytest.fixture
def faults(tmp_path):
    return build(tmp_path)


class Child:
    def __init__(self, path, faults):
        argv = [sys.executable, "-c", CHILD, str(path)]
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **faults.environment},
        )

    def ask(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def end(self):
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture
def child(tmp_path, faults):
    found = Child(tmp_path / "db", faults)
    yield found
    found.end()


def present(path):
    async def read():
        store = open_sqlite(path)
        try:
            assert store._near.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            entries = (await store.list(PODS)).entries
            last = await store.commit([Put(Key("pods", "acme", "default", "after"), b"")])
            async with asyncio.timeout(10):
                changes = (await anext(store.watch(PODS, 1))).changes
            return {e.key.name: e.revision for e in entries}, [c.revision for c in changes], last
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("mode", "said"), [("f", "full"), ("s", "full"), ("y", "disk I/O error"), ("e", "disk I/O error")]
)
def test_writes_fail_clearly_reads_go_on_and_it_passes(tmp_path, faults, child, mode, said):
    acknowledged = child.ask("put", "first", *(f"a{n}" for n in range(50)))
    for round_ in range(3):
        faults.set(mode)
        answer = child.ask("put", *(f"x{round_}.{n}" for n in range(20)))
        assert all(str(a).startswith("StoreFailedError: the store could not write") for a in answer.values()), answer
        assert said in str(next(iter(answer.values())))
        read = child.ask("read")
        assert (read["rows"], read["first"]) == (len(acknowledged), 2)
        assert read["revision"] == len(acknowledged) + 1 == read["past"] + 1
        faults.set("0")
        more = child.ask("put", *(f"b{round_}.{n}" for n in range(30)))
        assert all(isinstance(a, int) for a in more.values()), more
        acknowledged |= more
    child.end()
    found, revisions, last = present(tmp_path / "db")
    assert found == acknowledged
    assert revisions == list(range(2, last + 1))


def test_a_checkpoint_that_cannot_be_written_loses_nothing(tmp_path, faults, child):
    acknowledged = child.ask("put", "first", *(f"a{n}" for n in range(300)))
    for mode in "fyes":
        acknowledged |= child.ask("put", *(f"before-{mode}{n}" for n in range(100)))
        faults.set(mode)
        assert "failed" in child.ask("checkpoint"), mode
        faults.set("0")
        acknowledged |= child.ask("put", *(f"{mode}{n}" for n in range(300)))
        faults.set(mode)
        refused = child.ask("put", *(f"no-{mode}{n}" for n in range(50)))
        assert not any(isinstance(a, int) for a in refused.values())
        faults.set("0")
        if mode in "ye":
            assert child.ask("checkpoint") == {"busy": 0}
    child.process.kill()
    child.process.wait()
    found, _, _ = present(tmp_path / "db")
    assert {n: found.get(n) for n in acknowledged} == acknowledged


def test_writes_in_halves_are_writes(tmp_path, faults, child):
    faults.set("h")
    acknowledged = child.ask("put", "first", *(f"a{n}" for n in range(200)))
    assert all(isinstance(a, int) for a in acknowledged.values())
    child.end()
    faults.set("0")
    assert present(tmp_path / "db")[0] == acknowledged


def test_a_torn_write_is_undone(tmp_path, faults):
    acknowledged, random_ = {}, random.Random(3)
    for round_ in range(4):
        faults.set("0")
        child = Child(tmp_path / "db", faults)
        for part in range(random_.randrange(1, 6)):
            acknowledged |= child.ask("put", "first", *(f"{round_}.{part}.{n}" for n in range(40)))
        faults.set("k")
        assert child.ask("put", *(f"torn{round_}.{n}" for n in range(40))) is None
        assert child.process.wait(10) == 9
        child.end()
        found, revisions, last = present(tmp_path / "db")
        assert {n: r for n, r in found.items() if n != "after"} == {n: found[n] for n in acknowledged}
        assert revisions == list(range(2, last + 1))
        acknowledged = {n: r for n, r in found.items() if n != "after"}
