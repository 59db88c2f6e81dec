from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.apiserver.objects import CorruptValueError, View, decode, encode, splice
from polder.store.protocol import Key

KEY = Key("things", "acme", "ns", "x")
TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
META = st.fixed_dictionaries(
    {"name": st.text(min_size=1, max_size=8)},
    optional={
        "annotations": st.dictionaries(TEXT, TEXT, max_size=3),
        "labels": st.dictionaries(TEXT, TEXT, max_size=3),
        "namespace": TEXT,
        "generation": st.integers(0, 9),
    },
)


def thing(meta: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    more = {k: v for k, v in body.items() if k not in {"metadata", "kind", "apiVersion"}}
    return {**more, "metadata": meta, "kind": "Thing", "apiVersion": "a.b/v1"}


@given(META, st.dictionaries(TEXT, JSON, max_size=4), st.booleans(), st.sampled_from(["", "a.b/v2"]))
def test_what_is_spliced_is_what_parsing_would_give(
    meta: dict[str, Any], body: dict[str, Any], tenants: bool, version: str
) -> None:
    obj = thing(meta, body)
    shown = json.loads(splice(encode(obj), 42, KEY, View(version, tenants)))
    wanted = {**obj, "metadata": {k: v for k, v in meta.items() if v not in ("", {})}}
    wanted["metadata"]["resourceVersion"] = "42"
    if tenants:
        wanted["metadata"]["annotations"] = {**wanted["metadata"].get("annotations", {}), "polder.dev/tenant": "acme"}
    assert shown == {**wanted, "apiVersion": version or "a.b/v1"}


@given(META, st.dictionaries(TEXT, JSON, max_size=4))
def test_stored_forms_are_stable(meta: dict[str, Any], body: dict[str, Any]) -> None:
    value = encode(thing(meta, body))
    assert encode(decode(value, 7)) == value


def test_views_are_never_stored() -> None:
    meta = {"name": "x", "resourceVersion": "9", "annotations": {"polder.dev/tenant": "acme"}}
    assert decode(encode(thing(meta, {})), 1)["metadata"] == {"name": "x", "resourceVersion": "1"}


def test_a_value_of_another_form_is_a_defect() -> None:
    with pytest.raises(CorruptValueError, match="name='x'"):
        splice(b'{"a":1}', 1, KEY)
