"""Typed merge and field ownership by example; the expectations are those of upstream's structured-merge-diff."""

from __future__ import annotations

from typing import Any

import pytest

from polder.api.apply import Conflicts
from polder.api.apply_compare import compare
from polder.api.apply_typed import TypedError, check, fields_of, merge, reconciled, remove
from polder.api.apply_types import type_of_custom, type_of_schema
from polder.api.kinds import built_in
from polder.api.ownership import ManagedFieldsError, is_reset, read_sent
from polder.api.schemas import schema_of
from tests.unit.api.applykit import TYPE, One, thing


def pod_type() -> Any:
    schema = schema_of(built_in("v1", "pods"))
    assert schema is not None
    return type_of_schema(schema)


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        ({"one": "a"}, {"two": 1}, {"one": "a", "two": 1}),
        ({"labels": {"a": "1"}}, {"labels": {"b": "2"}}, {"labels": {"a": "1", "b": "2"}}),
        ({"atom": {"p": "1"}}, {"atom": {"q": "2"}}, {"atom": {"q": "2"}}),
        ({"whole": ["a", "b"]}, {"whole": ["c"]}, {"whole": ["c"]}),
        ({"names": ["a", "b", "c"]}, {"names": ["c", "d", "a"]}, {"names": ["b", "c", "d", "a"]}),
        ({"names": ["a", "b"]}, {"names": []}, {"names": ["a", "b"]}),
        ({"labels": {"a": "1"}}, {"labels": None}, {"labels": {"a": "1"}}),
        ({"one": "a"}, {"one": None}, {"one": None}),
        ({"names": []}, {"names": None}, {"names": None}),
        ({"labels": {}}, {"labels": None}, {"labels": None}),
        ({"free": {"a": [1], "b": {"c": 1}}}, {"free": {"a": [2], "b": {"d": 1}}}, {"free": {"a": [2], "b": {"c": 1, "d": 1}}}),
        ({"free": {"a": {"b": 1}}}, {"free": {"a": "text"}}, {"free": {"a": "text"}}),
    ],
)  # fmt: skip
def test_merging(live: Any, config: Any, merged: Any) -> None:
    assert merge(TYPE, live, config) == merged


def test_items_are_merged_by_their_keys_with_defaults() -> None:
    live = {"parts": [{"name": "a", "port": 80, "on": True}, {"name": "a", "port": 81}]}
    config = {"parts": [{"name": "a", "tags": {"x": "y"}}, {"name": "b"}]}
    assert merge(TYPE, live, config)["parts"] == [
        {"name": "a", "port": 80, "on": True, "tags": {"x": "y"}},
        {"name": "a", "port": 81},
        {"name": "b"},
    ]


@pytest.mark.parametrize(
    ("live", "config", "merged"),
    [
        ("abc", "cba", "cba"),
        ("abcd", "ca", "bcda"[:1] + "cda"),
        ("ab", "xay", "xayb"),
        ("abc", "xc", "abxc"),
        ("aab", "b", "aab"),
        ("abab", "ba", "ba"),
    ],
)
def test_the_order_of_a_set_follows_the_configuration(live: str, config: str, merged: str) -> None:
    """Items that both have stand as the configuration has them; others stay where they were among them."""
    found = "".join(merge(TYPE, {"names": list(live)}, {"names": list(config)})["names"])
    assert [c for c in found if c in config] == list(config) and set(found) == set(live) | set(config)
    if len(set(live)) == len(live):
        rest = [c for c in live if c not in config]
        assert [c for c in found if c in rest] == rest


def test_merging_leaves_its_arguments_alone() -> None:
    live, config = {"labels": {"a": "1"}, "names": ["a"]}, {"labels": {"b": "2"}, "names": ["b"]}
    merge(TYPE, live, config)
    assert live == {"labels": {"a": "1"}, "names": ["a"]} and config == {"labels": {"b": "2"}, "names": ["b"]}


# --- what is owned, what changed --------------------------------------------------------------------------------------


def test_the_fields_of_a_configuration() -> None:
    config = {
        "one": "a", "labels": {"x": "1"}, "inner": {}, "whole": [], "names": ["n"], "atom": {"p": "1"},
        "parts": [{"name": "a", "tags": {"t": "1"}}], "free": {"deep": {"er": 1}, "nil": None},
    }  # fmt: skip
    assert fields_of(TYPE, config) == {
        "f:one": {},
        "f:labels": {"f:x": {}},
        "f:inner": {},
        "f:whole": {},
        "f:names": {'v:"n"': {}},
        "f:atom": {},
        "f:parts": {'k:{"name":"a","port":80}': {".": {}, "f:name": {}, "f:tags": {"f:t": {}}}},
        "f:free": {"f:deep": {".": {}, "f:er": {}}, "f:nil": {}},
    }


def test_what_came_and_went() -> None:
    old = {"one": "a", "labels": {"x": "1", "y": "1"}, "names": ["a"], "parts": [{"name": "p", "on": True}]}
    new = {"one": "b", "labels": {"x": "1"}, "inner": {"x": "1"}, "parts": [{"name": "p", "on": False}, {"name": "q"}]}
    found = compare(TYPE, old, new)
    assert found.written == {
        "f:one": {},
        "f:inner": {".": {}, "f:x": {}},
        "f:parts": {
            'k:{"name":"p","port":80}': {"f:on": {}},
            'k:{"name":"q","port":80}': {".": {}, "f:name": {}},
        },
    }
    assert found.removed == {"f:labels": {"f:y": {}}, "f:names": {".": {}, 'v:"a"': {}}}


def test_true_is_not_one() -> None:
    assert compare(TYPE, {"free": {"a": 1}}, {"free": {"a": True}}).written == {"f:free": {"f:a": {}}}
    assert compare(TYPE, {"free": {"a": 1}}, {"free": {"a": 1.0}}).written == {}


@pytest.mark.parametrize(
    ("old", "new", "written", "removed"),
    [
        ({"b": 1}, {"c": 1}, {"f:c": {}}, {"f:b": {}}),
        ([1], {"b": 1}, {".": {}, "f:b": {}}, {}),
        ("x", {"b": {"c": 1}}, {".": {}, "f:b": {".": {}, "f:c": {}}}, {}),
        ({"b": 1}, [1], {}, {"f:b": {}}),
        ({"b": 1}, {}, None, {"f:b": {}}),
        ({}, "x", {}, {}),
        (None, {"b": 1}, {"f:b": {}}, {}),
    ],
)
def test_a_value_that_becomes_another_kind(old: Any, new: Any, written: Any, removed: Any) -> None:
    """What is a whole on one of the sides is written as such, beside what is in the new value."""
    found = compare(TYPE, {"free": {"a": old}}, {"free": {"a": new}})
    assert found.written == ({"f:free": {"f:a": written}} if written is not None else {})
    assert found.removed == ({"f:free": {"f:a": removed}} if removed else {})


def test_duplicates_count_as_one_whole() -> None:
    twice, once = {"names": ["a", "a", "b"]}, {"names": ["a", "b"]}
    assert fields_of(TYPE, twice) == {"f:names": {'v:"a"': {}, 'v:"b"': {}}}
    assert compare(TYPE, twice, once).removed == {"f:names": {'v:"a"': {}}}
    assert compare(TYPE, twice, twice).written == {}
    with pytest.raises(TypedError, match=r'\.names: duplicate entries for key \[="a"\]'):
        check(TYPE, twice)
    check(TYPE, twice, duplicates=True)


def test_structs_that_go_holds_by_value_have_no_owner() -> None:
    kind = pod_type()
    pod = {"spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {}}]}}
    assert compare(kind, {}, pod).written == {
        "f:spec": {
            "f:containers": {'k:{"name":"c"}': {".": {}, "f:name": {}, "f:resources": {}}},
            "f:volumes": {".": {}, 'k:{"name":"v"}': {".": {}, "f:emptyDir": {}, "f:name": {}}},
        }
    }


# --- removing ---------------------------------------------------------------------------------------------------------


def test_removing_leaves_emptied_objects_and_lists() -> None:
    value = {"labels": {"a": "1"}, "names": ["a", "b"], "parts": [{"name": "p", "on": True}], "one": "x"}
    gone = {
        "f:labels": {"f:a": {}},
        "f:names": {'v:"a"': {}},
        "f:parts": {'k:{"name":"p","port":80}': {"f:on": {}}},
        "f:one": {},
    }
    assert remove(TYPE, value, gone) == {"labels": {}, "names": ["b"], "parts": [{"name": "p"}]}


# --- checking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"none": 1}, ".none: field not declared in schema"),
        ({"one": 1}, ".one: expected string, got 1"),
        ({"two": "x"}, ".two: expected numeric (int or float), got string"),
        ({"two": True}, ".two: expected numeric (int or float), got bool"),
        ({"labels": ["x"]}, ".labels: expected map, got"),
        ({"names": {"x": 1}}, ".names: expected list, got"),
        ({"names": [None]}, ".names: element 0: associative list without keys has an element that's an explicit null"),
        ({"parts": ["x"]}, ".parts: element 0: associative list with keys may not have non-map elements"),
        ({"parts": [{"name": "a", "zz": 1}]}, '.parts[name="a",port=80].zz: field not declared in schema'),
    ],
)
def test_what_does_not_have_its_type(value: Any, said: str) -> None:
    with pytest.raises(TypedError) as found:
        check(TYPE, value)
    assert said in str(found.value)


def test_an_item_needs_a_key() -> None:
    item = {"type": "object", "properties": {"name": {"type": "string"}, "x": {"type": "string"}}}
    parts = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item}
    kind = type_of_custom({"type": "object", "properties": {"parts": parts}})
    with pytest.raises(TypedError, match=r'omits all key fields \["name"\]'):
        check(kind, {"parts": [{"x": "y"}]})


# --- owners -----------------------------------------------------------------------------------------------------------


def test_a_field_owned_together_stays() -> None:
    one = One()
    one.apply("a", thing(labels={"x": "1", "y": "1"}))
    one.apply("b", thing(labels={"x": "1"}))
    one.apply("a", thing(labels={"y": "1"}))
    assert one.body == {"labels": {"x": "1", "y": "1"}}
    one.apply("b", thing())
    assert one.body == {"labels": {"y": "1"}}


def test_an_updater_keeps_a_field_that_an_applier_lets_go() -> None:
    one = One()
    one.update("u", thing(one="x"))
    one.apply("a", thing(one="x"))
    one.apply("a", thing())
    assert one.body == {"one": "x"}


def test_a_whole_list_has_one_owner() -> None:
    one = One()
    one.apply("a", thing(whole=["x"]))
    with pytest.raises(Conflicts) as found:
        one.apply("b", thing(whole=["y"]))
    assert found.value.listed() == [('"a"', ("f:whole",))]
    one.apply("b", thing(whole=["y"]), force=True)
    assert one.owned("a") == {} and one.owned("b") == {"f:whole": {}}


def test_what_became_a_whole_is_owned_whole() -> None:
    granular = {"f:atom": {"f:p": {}}, "f:labels": {"f:x": {}}}
    assert reconciled(TYPE, granular) == {"f:atom": {}, "f:labels": {"f:x": {}}}
    same = {"f:labels": {"f:x": {}}}
    assert reconciled(TYPE, same) is same


def test_owners_in_versions_that_are_gone_are_forgotten() -> None:
    one = One()
    entry = {
        "manager": "old", "operation": "Update", "apiVersion": "test.io/v0", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:one": {}},
    }  # fmt: skip
    one.update("u", thing(one="x"))
    one.managed.owners.update(read_sent([entry]).owners)
    one.apply("a", thing(two=1))
    assert {manager.name for manager in one.managed.owners} == {"u", "a"}


def test_reading_what_clients_send() -> None:
    assert is_reset([]) and is_reset([{}]) and not is_reset(None) and not is_reset([{"manager": "x"}])
    good = {"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}}
    assert [manager.name for manager in read_sent([good]).owners] == ["m"]
    for wrong in (
        {"operation": "No"},
        {"apiVersion": ""},
        {"fieldsType": "V2"},
        {"fieldsV1": {"zz": {}}},
        {"fieldsV1": 1},
    ):
        with pytest.raises(ManagedFieldsError):
            read_sent([{**good, **wrong}])
