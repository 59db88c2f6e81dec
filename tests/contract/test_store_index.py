"""The store's contract about what is found without its key: index terms, counts, and expectations without a write."""

from contextlib import aclosing

import pytest

from polder.store.protocol import Check, ConflictError, Delete, DuplicateKeyError, Key, Prefix, Put
from tests.stores import BACKENDS, opened, pod, take

PODS = Prefix("pods")


@pytest.fixture(params=BACKENDS)
async def store(request, tmp_path):
    async with opened(request.param, tmp_path) as store:
        yield store


async def test_terms_stand_with_their_row(store):
    await store.commit(
        [
            Put(pod("b"), b"1", terms=("owner/1", "owner/2")),
            Put(pod("a"), b"1", terms=("owner/1", "owner/1")),
            Put(pod("a", "globex"), b"1", terms=("owner/1",)),
            Put(pod("c"), b"1"),
        ]
    )
    assert await store.by_term("owner/1") == [pod("a"), pod("b"), pod("a", "globex")]
    assert await store.by_term("owner/1", "acme") == [pod("a"), pod("b")]
    assert await store.by_term("owner/2", "globex") == []
    assert await store.by_term("owner/") == []
    await store.commit([Put(pod("b"), b"2", terms=("owner/2", "owner/3")), Put(pod("c"), b"2", terms=("owner/1",))])
    assert await store.by_term("owner/1", "acme") == [pod("a"), pod("c")]
    assert await store.by_term("owner/2") == await store.by_term("owner/3") == [pod("b")]
    await store.commit([Delete(pod("a")), Put(pod("b"), b"3")])
    assert await store.by_term("owner/1") == [pod("c"), pod("a", "globex")]
    assert await store.by_term("owner/2") == []
    await store.commit([Put(pod("a"), b"new")])
    assert await store.by_term("owner/1", "acme") == [pod("c")]


async def test_terms_of_a_commit_that_failed_are_not_kept(store):
    await store.commit([Put(pod("a"), b"1", terms=("old",))])
    with pytest.raises(ConflictError):
        await store.commit([Put(pod("a"), b"2", terms=("new",)), Put(pod("b"), b"", expect=7)])
    assert (await store.by_term("old"), await store.by_term("new")) == ([pod("a")], [])


async def test_terms_may_hold_any_text(store):
    odd = ['owner/"x"', "owner/x\n", "a/b", "a", "a/", "ünïcode", "owner/%2F", "owner//", "a\x00b", "a b"]
    for number, term in enumerate(odd):
        await store.commit([Put(pod(f"p{number}"), b"", terms=(term,))])
    for number, term in enumerate(odd):
        assert await store.by_term(term) == [pod(f"p{number}")]


async def test_resources_counts_the_rows_of_a_place(store):
    keys = [
        pod("a"),
        pod("b"),
        pod("a", namespace="kube-system"),
        pod("a", "globex"),
        Key("secrets", "acme", "default", "s"),
        Key("nodes", "acme", "", "n"),
        Key("gone", "acme", "default", "g"),
        Key("pods", "acme2", "default", "x"),
    ]
    for key in keys:
        await store.commit([Put(key, b"", terms=("t",))])
    await store.commit([Delete(Key("gone", "acme", "default", "g")), Put(pod("a"), b"2")])
    assert dict(await store.resources("acme")) == {"pods": 3, "secrets": 1, "nodes": 1}
    assert dict(await store.resources("acme", "default")) == {"pods": 2, "secrets": 1}
    assert dict(await store.resources("acme", "")) == {"nodes": 1}
    assert dict(await store.resources(None)) == {"pods": 5, "secrets": 1, "nodes": 1}
    assert dict(await store.resources(None, "default")) == {"pods": 4, "secrets": 1}
    assert dict(await store.resources("nobody")) == dict(await store.resources("acme", "none")) == {}


async def test_a_check_is_an_expectation_without_a_write(store):
    await store.commit([Put(pod("a"), b"1")])
    assert await store.commit([Check(pod("a"), 2), Check(pod("b"), 0)]) == 2
    assert await store.commit([Check(pod("a"), 2), Put(pod("b"), b"1")]) == 3
    for wrong in (Check(pod("a"), 0), Check(pod("a"), 1), Check(pod("none"), 2)):
        with pytest.raises(ConflictError) as caught:
            await store.commit([Put(pod("c"), b""), wrong])
        assert caught.value.current == await store.get(wrong.key)
    assert await store.revision() == 3
    assert (await store.get(pod("a"))).revision == 2
    with pytest.raises(DuplicateKeyError):
        await store.commit([Check(pod("a"), 2), Put(pod("a"), b"2")])
    async with aclosing(store.watch(PODS, 1)) as watch:
        seen, _ = await take(watch, 2)
    assert [(c.key, c.revision) for c in seen] == [(pod("a"), 2), (pod("b"), 3)]
