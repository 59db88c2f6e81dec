"""Sets of fields: their JSON, their elements, and their algebra against sets of paths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api import fieldsets
from polder.api.fieldsets import FieldsError, key_element, of_paths, path_text, paths, read_fields, value_element

ELEMENTS = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
PATHS = st.lists(st.lists(ELEMENTS, min_size=1, max_size=3).map(tuple), max_size=6)


def flat(fields: Any) -> set[tuple[str, ...]]:
    return set(paths(fields))


def is_canonical(fields: Any) -> bool:
    """No node says ``.`` without children, and no empty branch is left."""
    return all(
        (not inner or set(inner) != {"."}) and is_canonical({k: v for k, v in inner.items() if k != "."})
        for inner in fields.values()
    )


@given(PATHS, PATHS)
def test_the_algebra_is_that_of_sets_of_paths(left: Any, right: Any) -> None:
    a, b = of_paths(*left), of_paths(*right)
    assert flat(a) == set(left)
    for ours, theirs in (
        (fieldsets.union(a, b), set(left) | set(right)),
        (fieldsets.difference(a, b), set(left) - set(right)),
        (fieldsets.intersection(a, b), set(left) & set(right)),
        (fieldsets.without(a, b), {p for p in left if not any(p[: len(q)] == q for q in right)}),
    ):
        assert flat(ours) == theirs and is_canonical(ours)
    assert all(fieldsets.has(a, path) == (path in set(left)) for path in [*left, *right])


@given(PATHS, PATHS)
def test_only_keeps_what_lies_on_above_or_below(left: Any, right: Any) -> None:
    found = flat(fieldsets.only(of_paths(*left), of_paths(*right)))
    related = {p for p in left if any(p[: len(q)] == q or q[: len(p)] == p for q in right)}
    assert found == related


def test_a_star_stands_for_any_element() -> None:
    pattern = of_paths(("f:c", "*", "f:r"))
    owned = of_paths(("f:c", 'k:{"name":"x"}', "f:r", "f:cpu"), ("f:c", 'k:{"name":"x"}', "f:image"), ("f:d",))
    assert flat(fieldsets.only(owned, pattern)) == {("f:c", 'k:{"name":"x"}', "f:r", "f:cpu")}


@given(PATHS)
def test_what_was_written_is_read_back(some: Any) -> None:
    fields = of_paths(*some)
    assert read_fields(fields) == fields


def test_elements_are_written_as_go_writes_them() -> None:
    assert key_element({"protocol": "TCP", "containerPort": 80}) == 'k:{"containerPort":80,"protocol":"TCP"}'
    assert key_element({"name": "a<b>&c"}) == 'k:{"name":"a\\u003cb\\u003e\\u0026c"}'
    assert value_element("x") == 'v:"x"' and value_element(1.0) == "v:1" and value_element(True) == "v:true"
    path = ("f:spec", 'k:{"containerPort":80,"protocol":"TCP"}', 'v:"x"', "i:3")
    assert path_text(path) == '.spec[containerPort=80,protocol="TCP"][="x"][3]'


def test_a_clients_elements_become_canonical() -> None:
    sent = {"f:a": {'k:{"b": 1, "a": "x"}': {"x:later": {}, ".": {}}}, "f:b": {".": {}}}
    assert read_fields(sent) == {"f:a": {'k:{"a":"x","b":1}': {}}, "f:b": {}}


@pytest.mark.parametrize("wrong", [{"f": {}}, {"fa": {}}, {"k:[]": {}}, {"v:{": {}}, {"i:x": {}}, {"f:a": 1}, []])
def test_what_is_no_set_is_refused(wrong: Any) -> None:
    with pytest.raises(FieldsError):
        read_fields(wrong)


def test_depth_is_bounded() -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"f:a": deep}
    with pytest.raises(FieldsError):
        read_fields(deep)
