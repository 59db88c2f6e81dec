"""Random concurrent commits and watches against a plain model, on every backend; on etcd through two stores at once."""

import asyncio
import itertools
import shutil
import tempfile
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polder.store.etcd import open_etcd
from polder.store.hub import HubSettings, matches
from polder.store.memory import MemoryStore
from polder.store.protocol import ChangeType, Check, CompactedError, ConflictError, Delete, Key, Prefix, Put
from polder.store.sqlite import open_sqlite
from tests.etcd import Etcd

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
TERMS = ("owner/1", "owner/2", "owner/3")
OPS = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "delete", "check"]),
    KEYS,
    EXPECT,
    st.lists(st.sampled_from(TERMS), max_size=2),
)
COMMITS = st.lists(st.lists(OPS, min_size=1, max_size=4, unique_by=lambda o: o[1]), min_size=1, max_size=8)
WATCHES = st.lists(st.tuples(PREFIXES, st.integers(0, 30), st.integers(0, 3), st.integers(1, 6)), max_size=5)
"""Watches: of what, from when, how slow a reader, and after how many batches it connects anew."""


class Model:
    """States by revision, learnt from what commits answered. ``base`` is the revision before the first."""

    def __init__(self, base):
        self.base = base
        self.commits = {}

    def learn(self, revision, ops):
        writes = [op for op in ops if not isinstance(op, Check)]
        if writes:
            assert revision not in self.commits
            self.commits[revision] = writes

    def state(self, revision):
        state = {}
        for at in sorted(r for r in self.commits if r <= revision):
            for op in self.commits[at]:
                if isinstance(op, Put):
                    state[op.key] = (op.value, at, op.terms)
                else:
                    del state[op.key]
        return state

    def changes(self, prefix, since, to):
        found = []
        for at in range(max(since, self.base) + 1, to + 1):
            before = self.state(at - 1)
            for op in self.commits[at]:
                if not matches(prefix, op.key):
                    continue
                old = before[op.key][0] if op.key in before else None
                if isinstance(op, Put):
                    found.append((ChangeType.PUT, op.key, op.value, old, at))
                else:
                    found.append((ChangeType.DELETE, op.key, old, old, at))
        return sorted(found, key=lambda c: (c[4], c[1]))

    def check_index(self, by_term, resources):
        state = self.state(max(self.commits))
        for term, keys in by_term.items():
            assert keys == sorted(k for k, (_, _, terms) in state.items() if term in terms)
        for (tenant, namespace), found in resources.items():
            here = [k for k in state if k.tenant == tenant and namespace in (None, k.namespace)]
            assert found == ({"pods": len(here)} if here else {})


async def author(store, model, number, commits, done=lambda: None):
    for count, commit in enumerate(commits):
        ops = []
        for what, key, expect, terms in commit:
            entry = await store.get(key)
            at = entry.revision if entry else 0
            expected = {"any": None, "absent": 0, "current": at, "stale": at + 1000}[expect]
            if what == "put":
                ops.append(Put(key, f"{number}.{count}.{key.name}".encode(), expected, tuple(terms)))
            else:
                ops.append(Delete(key, expected) if what == "delete" else Check(key, expected or 0))
        try:
            model.learn(await store.commit(ops), ops)
        except ConflictError as error:
            assert error.key in {op.key for op in ops}
        done()


async def follower(stores, prefix, since, pace, stop):
    """What a watch gave, up to the revision that ``stop`` resolves to; None if it was too slow for compaction. Connects
    anew now and then, each time to the next store.
    """
    pause, patience = pace
    got, position = [], since
    try:
        for store in itertools.cycle(stores):
            count = 0
            await asyncio.sleep(0.002)
            async with aclosing(store.watch(prefix, position)) as watch:
                async for batch in watch:
                    assert batch.revision >= position
                    assert all(position < c.revision <= batch.revision for c in batch.changes)
                    position = batch.revision
                    changes = [(c.type, c.key, c.value, c.previous, c.revision) for c in batch.changes]
                    got += sorted(changes, key=lambda c: (c[4], c[1]))
                    for _ in range(pause):
                        await asyncio.sleep(0.001)
                    if stop.done() and position >= stop.result():
                        return got
                    count += 1
                    if count >= patience:
                        break
    except CompactedError:
        return None


async def scenario(stores, authors, watches, compact_at, model=None):
    store = stores[0]
    model = model or Model(await store.revision())
    compact_at += model.base - 1
    stop = asyncio.get_running_loop().create_future()
    followers = []

    async def open_watches():
        for prefix, since, *pace in watches:
            at = min(model.base - 1 + since, await store.revision())
            followers.append((prefix, at, asyncio.ensure_future(follower(stores, prefix, at, pace, stop))))
            await asyncio.sleep(0)

    turns = itertools.cycle(stores)
    await asyncio.gather(open_watches(), *(author(next(turns), model, n, c) for n, c in enumerate(authors)))
    await store.compact(compact_at)
    ops = [Put(Key("pods", "acme", "a", "end"), b"")]
    end = await store.commit(ops)
    model.learn(end, ops)
    stop.set_result(end)
    model.check_index(
        {term: await stores[-1].by_term(term) for term in TERMS},
        {(t, n): dict(await stores[-1].resources(t, n)) for t in ("acme", "globex", "x") for n in (None, "a", "b")},
    )
    # Whoever saw the end before this line learns of it by the progress that this makes.
    await store.commit([Put(Key("others", "acme", "a", "end"), b"")])
    assert sorted(model.commits) == list(range(model.base + 1, end + 1))
    for prefix, since, task in followers:
        async with asyncio.timeout(10):
            got = await task
        if got is None:
            assert since < compact_at
        else:
            assert got == model.changes(prefix, since, end)
    for at in range(max(compact_at, model.base), end + 1):
        page = await stores[-1].list(Prefix("pods"), revision=at)
        assert {e.key: (e.value, e.revision) for e in page.entries} == {k: v[:2] for k, v in model.state(at).items()}
        assert [e.key for e in page.entries] == sorted(e.key for e in page.entries)


EXAMPLES = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
}
HISTORIES = given(authors=st.lists(COMMITS, min_size=1, max_size=4), watches=WATCHES, compact_at=st.integers(0, 12))


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
@settings(max_examples=60, **EXAMPLES)
@HISTORIES
def test_histories_lists_and_watches_agree_with_the_model(backend, authors, watches, compact_at):
    async def run(path):
        store = MemoryStore(TINY) if backend == "memory" else open_sqlite(path / "db", TINY)
        try:
            await scenario([store], authors, watches, compact_at)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


@pytest.fixture(scope="module")
def etcd():
    server = Etcd().start()
    yield server
    server.stop()


PREFIX_COUNT = itertools.count()


@settings(max_examples=40, **EXAMPLES)
@HISTORIES
def test_two_stores_on_one_etcd_agree_with_the_model(etcd, authors, watches, compact_at):
    async def run():
        where = etcd.settings(prefix=f"/p{next(PREFIX_COUNT)}")
        stores = [await open_etcd(where, TINY), await open_etcd(where, TINY)]
        try:
            await scenario(stores, authors, watches, compact_at)
        finally:
            for store in stores:
                await store.close()

    asyncio.run(run())


def image(path, target):
    """The files as a crash at this moment would leave them. The database's own pages change only in checkpoints, of which
    there are none below a thousand pages of log; the log only grows.
    """
    target.mkdir()
    for name in ("db", "db-wal"):
        shutil.copyfile(path / name, target / name)


@settings(max_examples=40, **EXAMPLES)
@given(
    before=st.lists(COMMITS, min_size=1, max_size=4),
    after=st.lists(COMMITS, min_size=1, max_size=3),
    watches=WATCHES,
    crash_after=st.integers(0, 12),
    compact_at=st.integers(0, 10),
)
def test_what_a_crash_leaves_is_a_beginning_of_history_that_goes_on(before, after, watches, crash_after, compact_at):
    async def run(path):
        store = open_sqlite(path / "db", TINY)
        model, count, known = Model(1), itertools.count(1), []

        def crash():
            if next(count) == crash_after + 1:
                known.append(max(model.commits, default=1))
                image(path, path / "crashed")

        await asyncio.gather(*(author(store, model, n, c, crash) for n, c in enumerate(before)))
        await store.close()
        if not known:
            return
        store = open_sqlite(path / "crashed" / "db", TINY)
        try:
            end = await store.revision()
            assert end >= known[0]
            model.commits = {at: ops for at, ops in model.commits.items() if at <= end}
            page = await store.list(Prefix("pods"))
            assert {e.key: (e.value, e.revision) for e in page.entries} == {
                k: v[:2] for k, v in model.state(end).items()
            }
            for term in TERMS:
                assert list(await store.by_term(term)) == sorted(k for k, v in model.state(end).items() if term in v[2])
            await scenario([store], after, watches, compact_at, model)
        finally:
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
