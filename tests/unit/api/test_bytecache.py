"""The cache that is bounded by weights."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polder.api.bytecache import ByteCache


def test_who_fills_its_share_forgets_its_own() -> None:
    cache: ByteCache[str, int] = ByteCache(limit=100, share=50)
    cache.put("other", 1, 30, "b")
    for n in range(10):
        cache.put(f"mine{n}", n, 20, "a")
    assert cache.get("other") == 1
    assert [cache.get(f"mine{n}") for n in range(8, 10)] == [8, 9] and cache.get("mine7") is None
    assert cache.used == 70


def test_what_was_used_lately_stays() -> None:
    cache: ByteCache[str, int] = ByteCache(limit=60, share=60)
    for n, key in enumerate("abc"):
        cache.put(key, n, 20)
    assert cache.get("a") == 0
    cache.put("d", 3, 20)
    assert cache.get("b") is None and cache.get("a") == 0
    cache.put("large", 4, 61)
    assert cache.get("large") is None and cache.used == 60


_steps = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), st.sampled_from("abc")))


@given(_steps)
def test_bounds_hold(steps: list[tuple[int, int, str]]) -> None:
    cache: ByteCache[int, int] = ByteCache(limit=90, share=50)
    for key, weight, owner in steps:
        cache.put(key, key, weight, owner)
        held = list(cache._held.values())
        assert cache.used == sum(row[1] for row in held) <= 90
        for who in "abc":
            assert sum(row[1] for row in held if row[2] == who) <= 50
