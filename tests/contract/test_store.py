"""The store's contract, on every backend."""

import asyncio
from contextlib import aclosing

import pytest

from polder.store.protocol import (
    EVERYTHING,
    ChangeType,
    CompactedError,
    ConflictError,
    Delete,
    DuplicateKeyError,
    FutureRevisionError,
    Key,
    Prefix,
    Put,
    StoreFailedError,
)
from tests.stores import BACKENDS, opened, pod, take

PODS = Prefix("pods")


@pytest.fixture(params=BACKENDS)
async def store(request, tmp_path):
    async with opened(request.param, tmp_path) as store:
        yield store


async def names(store, prefix=PODS, **how):
    return [e.key.name for e in (await store.list(prefix, **how)).entries]


async def test_a_fresh_store_is_empty_at_revision_1(store):
    assert await store.revision() == 1
    page = await store.list(PODS)
    assert (list(page.entries), page.revision, page.after, page.remaining) == ([], 1, None, 0)
    assert await store.get(pod("web")) is None


async def test_put_get_delete(store):
    assert await store.commit([Put(pod("web"), b"1", expect=0)]) == 2
    entry = await store.get(pod("web"))
    assert (entry.key, entry.value, entry.revision) == (pod("web"), b"1", 2)
    assert await store.commit([Put(pod("web"), b"2", expect=2)]) == 3
    assert (await store.get(pod("web"))).value == b"2"
    assert await store.commit([Delete(pod("web"), expect=3)]) == 4
    assert await store.get(pod("web")) is None
    assert await store.revision() == 4


@pytest.mark.parametrize(
    "op",
    [
        Put(pod("there"), b"x", expect=0),
        Put(pod("there"), b"x", expect=1),
        Put(pod("absent"), b"x", expect=2),
        Delete(pod("there"), expect=9),
        Delete(pod("absent")),
        Delete(pod("absent"), expect=2),
    ],
)
async def test_a_failed_expectation_writes_nothing_of_the_commit(store, op):
    await store.commit([Put(pod("there"), b"v")])
    with pytest.raises(ConflictError) as caught:
        await store.commit([Put(pod("other"), b"x"), op])
    assert caught.value.key == op.key
    assert caught.value.current == await store.get(op.key)
    assert await store.revision() == 2
    assert await names(store) == ["there"]


async def test_a_commit_gives_all_ops_one_revision_and_may_be_empty(store):
    await store.commit([Put(pod("a"), b"1"), Put(pod("b"), b"2")])
    assert {(e.key.name, e.revision) for e in (await store.list(PODS)).entries} == {("a", 2), ("b", 2)}
    assert await store.commit([]) == 2
    with pytest.raises(DuplicateKeyError):
        await store.commit([Put(pod("a"), b"1"), Delete(pod("a"))])


async def test_prefixes_select_by_tenant_and_namespace_in_key_order(store):
    keys = [
        pod("b"),
        pod("a"),
        pod("a", "globex"),
        pod("z", "acme", "kube-system"),
        Key("podsx", "acme", "x", "n"),
        Key("nodes", "root", "", "n1"),
    ]
    for key in keys:
        await store.commit([Put(key, b"")])
    assert [e.key for e in (await store.list(PODS)).entries] == sorted(k for k in keys if k.resource == "pods")
    assert await names(store, Prefix("pods", "acme")) == ["a", "b", "z"]
    assert await names(store, Prefix("pods", "acme", "default")) == ["a", "b"]
    assert await names(store, Prefix("pods", None, "default")) == ["a", "b", "a"]
    assert await names(store, Prefix("nodes", "root", "")) == ["n1"]
    assert [e.key for e in (await store.list(EVERYTHING)).entries] == sorted(keys)
    assert await names(store, Prefix("", "acme")) == ["a", "b", "z", "n"]
    assert await names(store, Prefix("", None, "default")) == ["a", "b", "a"]
    page = await store.list(Prefix("", "acme"), limit=2, revision=5)
    assert ([e.key.name for e in page.entries], page.remaining) == (["a", "b"], 1)
    page = await store.list(Prefix("", "acme"), limit=2, after=page.after, revision=5)
    assert ([e.key.name for e in page.entries], page.after) == (["z"], None)


async def test_a_page_with_a_limit_ends_by_its_bytes_too(store):
    for name in "abcde":
        await store.commit([Put(pod(name), b"x" * 900_000, 0)])
    first = await store.list(PODS, limit=100)
    assert ([e.key.name for e in first.entries], first.after, first.remaining) == (["a", "b", "c"], pod("c"), 2)
    rest = await store.list(PODS, limit=100, after=first.after)
    assert ([e.key.name for e in rest.entries], rest.after) == (["d", "e"], None)


async def test_pages_stay_at_the_revision_of_the_first(store):
    for name in "acegi":
        await store.commit([Put(pod(name), name.encode())])
    first = await store.list(PODS, limit=2)
    assert ([e.key.name for e in first.entries], first.remaining) == (["a", "c"], 3)
    await store.commit([Put(pod("d"), b"new"), Delete(pod("e"))])
    await store.commit([Put(pod("g"), b"changed")])
    await store.commit([Put(pod("g"), b"changed again")])
    await store.commit([Put(pod("e"), b"again"), Delete(pod("i"))])
    second = await store.list(PODS, limit=2, after=first.after, revision=first.revision)
    third = await store.list(PODS, limit=2, after=second.after, revision=first.revision)
    assert [(e.key.name, e.value, e.revision) for e in second.entries] == [("e", b"e", 4), ("g", b"g", 5)]
    assert [(e.key.name, e.value, e.revision) for e in third.entries] == [("i", b"i", 6)]
    assert (second.remaining, third.remaining, third.after) == (1, 0, None)
    assert second.revision == third.revision == first.revision


async def test_a_list_of_the_future_or_of_what_is_forgotten_is_refused(store):
    for n in range(5):
        await store.commit([Put(pod("a"), b"%d" % n)])
    with pytest.raises(FutureRevisionError):
        await store.list(PODS, revision=7)
    await store.compact(4)
    assert (await store.list(PODS, revision=4)).entries[0].value == b"2"
    with pytest.raises(CompactedError) as caught:
        await store.list(PODS, revision=3)
    assert caught.value.oldest == 4
    await store.compact(100)
    assert (await store.list(PODS, revision=6)).entries[0].value == b"4"


async def test_a_watch_gives_what_comes_with_what_stood_before(store):
    await store.commit([Put(pod("old"), b"")])
    async with aclosing(store.watch(Prefix("pods", "acme"), 2)) as watch:
        first = await anext(watch)
        assert (list(first.changes), first.revision) == ([], 2)
        await store.commit([Put(pod("web"), b"1")])
        await store.commit([Put(pod("web", "globex"), b"foreign"), Put(pod("web"), b"2")])
        await store.commit([Delete(pod("web"))])
        seen, revision = await take(watch, 3)
    assert [(c.type, c.value, c.previous, c.revision) for c in seen] == [
        (ChangeType.PUT, b"1", None, 3),
        (ChangeType.PUT, b"2", b"1", 4),
        (ChangeType.DELETE, b"2", b"2", 5),
    ]
    assert revision == 5


@pytest.mark.parametrize("since", [0, 1, 5, 40, 60])
async def test_a_watch_from_the_past_loses_and_repeats_nothing(store, since):
    for n in range(60):
        await store.commit([Put(pod(f"p{n % 7}"), bytes(100)), Put(pod("x", "globex"), b"")])
    async with aclosing(store.watch(Prefix("pods", "acme"), since)) as watch:
        if since < 60:
            await take(watch, 1)
        await store.commit([Put(pod("last"), b"")])
        seen = []
        while not seen or seen[-1].key.name != "last":
            seen += (await anext(watch)).changes
        assert seen[-1].revision == 62
    async with aclosing(store.watch(Prefix("pods", "acme"), since)) as watch:
        seen, _ = await take(watch, 62 - max(since, 1))
    assert [c.revision for c in seen] == list(range(max(since, 1) + 1, 63))


@pytest.mark.parametrize("since", [1, 4])
async def test_a_watch_of_everything_gives_every_resource_from_log_and_from_memory(store, since):
    await store.commit([Put(pod("a"), b"1"), Put(Key("secrets", "globex", "", "s"), b"2")])
    await store.commit([Delete(pod("a"))])
    await store.commit([Put(Key("nodes", "root", "", "n"), b"3")])
    expected = [2, 2, 3, 4, 5] if since == 1 else [5]
    async with aclosing(store.watch(EVERYTHING, since)) as watch:
        await anext(watch)
        await store.commit([Put(Key("tenants.polder.dev", "root", "", "acme"), b"4")])
    async with aclosing(store.watch(EVERYTHING, since)) as watch:
        seen, revision = await take(watch, len(expected))
    assert ([c.revision for c in seen], revision) == (expected, 5)
    async with aclosing(store.watch(EVERYTHING, 5)) as watch:
        await anext(watch)
        await store.commit([Put(pod("live"), b"")])
        assert [c.key for c in (await take(watch, 1))[0]] == [pod("live")]


async def test_a_slow_reader_is_served_from_the_log(store):
    async with aclosing(store.watch(PODS, 1)) as watch:
        await anext(watch)
        for n in range(50):
            await store.commit([Put(pod("a"), b"%d" % n)])
        seen, _ = await take(watch, 50)
    assert [c.revision for c in seen] == list(range(2, 52))


async def test_a_step_through_the_past_is_bounded_in_bytes(store):
    for n in range(24):
        await store.commit([Put(pod(f"p{n}"), b"%d" % n * 50_000)])
        await store.commit([Put(pod(f"p{n}"), b"%d" % n * 50_000)])
    seen = []
    async with asyncio.timeout(10), aclosing(store.watch(PODS, 1)) as watch:
        while len(seen) < 48:
            batch = await anext(watch)
            assert sum(len(c.value) + len(c.previous or b"") for c in batch.changes) < 1_300_000
            seen += [c.revision for c in batch.changes]
    assert seen == list(range(2, 50))


async def test_a_reader_slower_than_compaction_is_told(store):
    async with aclosing(store.watch(PODS, 1)) as watch:
        await anext(watch)
        for n in range(50):
            await store.commit([Put(pod("a"), b"%d" % n)])
        await store.compact(40)
        with pytest.raises(CompactedError):
            await take(watch, 50)


async def test_a_watch_from_a_forgotten_or_future_revision_fails_at_once(store):
    for _ in range(5):
        await store.commit([Put(pod("a"), b"")])
    await store.compact(4)
    with pytest.raises(CompactedError):
        await anext(store.watch(PODS, 3))
    with pytest.raises(FutureRevisionError):
        await anext(store.watch(PODS, 7))
    async with aclosing(store.watch(PODS, 4)) as watch:
        seen, _ = await take(watch, 2)
    assert [c.revision for c in seen] == [5, 6]


async def test_batches_never_split_a_commit(store):
    ops = [Put(pod(f"p{n}"), b"") for n in range(40)]
    await store.commit(ops)
    await store.commit(ops)
    async with aclosing(store.watch(PODS, 1)) as watch:
        for _ in range(3):
            batch = await anext(watch)
            for revision in {c.revision for c in batch.changes}:
                assert sum(c.revision == revision for c in batch.changes) == 40
            if batch.revision == 4:
                break
            if batch.revision == 3:
                await store.commit(ops)


async def test_idle_watches_learn_of_progress_elsewhere(store):
    async with aclosing(store.watch(Prefix("nodes"), 1)) as watch:
        assert (await anext(watch)).revision == 1
        await store.commit([Put(pod("a"), b"")])
        batch = await asyncio.wait_for(anext(watch), 5)
        assert (list(batch.changes), batch.revision) == ([], 2)


async def test_concurrent_commits_on_one_key_have_one_winner_each_round(store):
    await store.commit([Put(pod("n"), b"0")])

    async def count(times):
        won = 0
        while won < times:
            entry = await store.get(pod("n"))
            try:
                await store.commit([Put(pod("n"), b"%d" % (int(entry.value) + 1), expect=entry.revision)])
                won += 1
            except ConflictError:
                await asyncio.sleep(0)

    await asyncio.gather(*(count(10) for _ in range(8)))
    assert (await store.get(pod("n"))).value == b"80"
    assert await store.revision() == 82


async def test_a_watch_sees_a_commit_before_its_author_goes_on(store):
    async with aclosing(store.watch(PODS, 1)) as watch:
        await anext(watch)
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        revision = await store.commit([Put(pod("a"), b"")])
        batch = await asyncio.wait_for(waiting, 5)
        assert batch.revision == revision


async def test_closing_ends_watches_and_refuses_writes(store):
    watch = store.watch(PODS, 1)
    await anext(watch)
    waiting = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(StoreFailedError):
        await store.commit([Put(pod("a"), b"")])
