"""Laws of pruning, defaulting, correlation and validation, for any schema and any object."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polder.api.correlation import Pair, same
from polder.api.crd_rules import check_structural
from polder.api.errors import Field
from polder.api.schema_validate import validate
from polder.api.structural import apply_defaults, prune

FEW = settings(max_examples=60, deadline=None)
NAMES = st.sampled_from(["a", "b", "c", "metadata", "kind"])
LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "default": "d"},
        {"type": "integer", "nullable": True},
        {"type": "integer", "default": 1, "minimum": 0},
        {"type": "boolean"},
        {"x-kubernetes-int-or-string": True},
        {"x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    ]
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.builds(lambda p: {"type": "object", "properties": p}, properties),
        st.builds(
            lambda p: {"type": "object", "properties": p, "x-kubernetes-preserve-unknown-fields": True}, properties
        ),
        st.builds(lambda v: {"type": "object", "additionalProperties": v}, inner),
        st.builds(lambda v: {"type": "array", "items": v}, inner),
        st.builds(lambda p: {"type": "object", "properties": p, "x-kubernetes-embedded-resource": True}, properties),
    )


SCHEMAS = st.builds(
    lambda p: {"type": "object", "properties": p},
    st.dictionaries(NAMES, st.recursive(LEAVES, nested, max_leaves=5), max_size=3),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "d", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


@FEW
@given(SCHEMAS, OBJECTS)
def test_pruning_twice_is_pruning_once(schema: Any, obj: Any) -> None:
    given_schema, before = copy.deepcopy(schema), copy.deepcopy(obj)
    once, unknown = prune(schema, obj)
    assert prune(schema, once) == (once, [])
    assert (schema, obj) == (given_schema, before), "nothing that was given changes"
    assert bool(unknown) == (not same(once, obj))


@FEW
@given(SCHEMAS, OBJECTS)
def test_defaulting_twice_is_defaulting_once(schema: Any, obj: Any) -> None:
    before = copy.deepcopy(obj)
    once = apply_defaults(schema, obj)
    assert same(apply_defaults(schema, once), once)
    assert same(obj, before)


@FEW
@given(SCHEMAS, OBJECTS)
def test_what_is_pruned_stays_so_when_defaults_are_filled_in(schema: Any, obj: Any) -> None:
    assume(not check_structural(schema, Field("s")))  # a default inside metadata, for one, is refused before it is used
    pruned, _ = prune(schema, obj)
    assert prune(schema, apply_defaults(schema, pruned))[1] == []


@FEW
@given(SCHEMAS, OBJECTS)
def test_an_unchanged_object_is_never_refused(schema: Any, obj: Any) -> None:
    assert list(validate(schema, obj, Field(), None, Pair(obj, copy.deepcopy(obj), schema))) == []


@FEW
@given(SCHEMAS, OBJECTS, OBJECTS)
def test_ratcheting_only_forgives(schema: Any, new: Any, old: Any) -> None:
    strict = {str(error) for error in validate(schema, new, Field())}
    lenient = {str(error) for error in validate(schema, new, Field(), None, Pair(new, old, schema))}
    assert lenient <= strict


@FEW
@given(SCHEMAS)
def test_generated_schemas_are_structural_or_say_why_not(schema: Any) -> None:
    found = [str(error) for error in check_structural(schema, Field("s"))]
    assert found == sorted(found)
    assert all(line.startswith("s.") for line in found)
