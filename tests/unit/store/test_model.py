"""Random concurrent commits and watches against a plain model, on both backends."""

import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polder.store.hub import HubSettings, matches
from polder.store.memory import MemoryStore
from polder.store.protocol import ChangeType, CompactedError, ConflictError, Delete, Key, Prefix, Put
from polder.store.sqlite import open_sqlite

TINY = HubSettings(recent=1500, pending=3, progress=0.02)

KEYS = st.builds(
    Key,
    st.just("pods"),
    st.sampled_from(["acme", "globex"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["x", "y", "z"]),
)
PREFIXES = st.builds(
    Prefix, st.just("pods"), st.sampled_from([None, "acme", "globex"]), st.sampled_from([None, "a", "b"])
)
EXPECT = st.sampled_from(["any", "absent", "current", "stale"])
OPS = st.tuples(st.booleans(), KEYS, EXPECT)
COMMITS = st.lists(st.lists(OPS, min_size=1, max_size=4, unique_by=lambda o: o[1]), min_size=1, max_size=8)
WATCHES = st.lists(st.tuples(PREFIXES, st.integers(0, 30), st.integers(0, 3)), max_size=5)


class Model:
    """States by revision, learnt from what commits answered."""

    def __init__(self):
        self.commits = {}

    def learn(self, revision, ops):
        assert revision not in self.commits
        self.commits[revision] = ops

    def state(self, revision):
        state = {}
        for at in sorted(r for r in self.commits if r <= revision):
            for op in self.commits[at]:
                if isinstance(op, Put):
                    state[op.key] = (op.value, at)
                else:
                    del state[op.key]
        return state

    def changes(self, prefix, since, to):
        found = []
        for at in range(max(since, 1) + 1, to + 1):
            before = self.state(at - 1)
            for op in self.commits[at]:
                if not matches(prefix, op.key):
                    continue
                old = before[op.key][0] if op.key in before else None
                if isinstance(op, Put):
                    found.append((ChangeType.PUT, op.key, op.value, old, at))
                else:
                    found.append((ChangeType.DELETE, op.key, old, old, at))
        return found


async def author(store, model, number, commits):
    for count, commit in enumerate(commits):
        ops = []
        for put, key, expect in commit:
            entry = await store.get(key)
            at = entry.revision if entry else 0
            expected = {"any": None, "absent": 0, "current": at, "stale": at + 1000}[expect]
            ops.append(Put(key, f"{number}.{count}.{key.name}".encode(), expected) if put else Delete(key, expected))
        try:
            model.learn(await store.commit(ops), ops)
        except ConflictError as error:
            assert error.key in {op.key for op in ops}


async def follower(store, prefix, since, pause, stop):
    """What a watch gave, up to the revision that ``stop`` resolves to; None if it was too slow for compaction."""
    got, position = [], since
    try:
        async with aclosing(store.watch(prefix, since)) as watch:
            async for batch in watch:
                assert batch.revision >= position
                assert all(position < c.revision <= batch.revision for c in batch.changes)
                position = batch.revision
                got += [(c.type, c.key, c.value, c.previous, c.revision) for c in batch.changes]
                for _ in range(pause):
                    await asyncio.sleep(0.001)
                if stop.done() and position >= stop.result():
                    return got
    except CompactedError:
        return None


async def scenario(store, authors, watches, compact_at):
    model = Model()
    stop = asyncio.get_running_loop().create_future()
    followers = []

    async def open_watches():
        for prefix, since, pause in watches:
            at = min(since, await store.revision())
            followers.append((prefix, at, asyncio.ensure_future(follower(store, prefix, at, pause, stop))))
            await asyncio.sleep(0)

    await asyncio.gather(open_watches(), *(author(store, model, n, c) for n, c in enumerate(authors)))
    await store.compact(compact_at)
    end = await store.commit([Put(Key("pods", "acme", "a", "end"), b"")])
    model.learn(end, [Put(Key("pods", "acme", "a", "end"), b"")])
    stop.set_result(end)
    # Whoever saw the end before this line learns of it by the progress that this makes.
    await store.commit([Put(Key("others", "acme", "a", "end"), b"")])
    assert sorted(model.commits) == list(range(2, end + 1))
    for prefix, since, task in followers:
        got = await asyncio.wait_for(task, 10)
        if got is None:
            assert since < compact_at
        else:
            assert got == model.changes(prefix, since, end)
    for at in range(compact_at, end + 1):
        page = await store.list(Prefix("pods"), revision=at)
        assert {e.key: (e.value, e.revision) for e in page.entries} == model.state(at)
        assert [e.key for e in page.entries] == sorted(e.key for e in page.entries)


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(authors=st.lists(COMMITS, min_size=1, max_size=4), watches=WATCHES, compact_at=st.integers(0, 12))
def test_histories_lists_and_watches_agree_with_the_model(backend, authors, watches, compact_at):
    async def run(path):
        store = MemoryStore(TINY) if backend == "memory" else open_sqlite(path / "db", TINY)
        try:
            await scenario(store, authors, watches, compact_at)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
