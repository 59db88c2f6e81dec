"""The laws of field ownership, over random objects, appliers and updaters."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polder.api import fieldsets
from polder.api.apply import STRIPPED, Conflicts
from polder.api.apply_compare import compare
from polder.api.apply_typed import fields_of, merge, with_named
from tests.unit.api.applykit import TYPE, One, thing

LETTERS = st.sampled_from("abc")
TEXT = st.sampled_from(["1", "2"])
LABELS = st.dictionaries(LETTERS, TEXT, max_size=3)
NAMES = st.lists(LETTERS, unique=True, min_size=1, max_size=3)
PART = st.fixed_dictionaries({"name": LETTERS}, optional={"on": st.booleans(), "tags": LABELS})
PARTS = st.lists(PART, unique_by=lambda part: part["name"], min_size=1, max_size=3)
"""An empty set or map in a configuration owns nothing, as upstream has it, so laws say nothing of it."""
BODY = st.fixed_dictionaries(
    {},
    optional={
        "one": TEXT,
        "two": st.integers(0, 2),
        "labels": LABELS,
        "inner": st.fixed_dictionaries({}, optional={"x": TEXT, "y": TEXT}),
        "whole": st.lists(LETTERS, max_size=2),
        "atom": st.fixed_dictionaries({}, optional={"p": TEXT, "q": TEXT}),
        "names": NAMES,
        "parts": PARTS,
        "free": st.recursive(st.integers(0, 1), lambda inner: st.dictionaries(LETTERS, inner, max_size=2)).filter(
            lambda value: isinstance(value, dict)
        ),
    },
)
WHO = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(st.tuples(st.sampled_from(["apply", "force", "update"]), WHO, BODY), max_size=5)


def owners_are_sound(one: One) -> None:
    """Nobody owns what is not there, and no set is empty."""
    everything = compare(TYPE, {}, one.obj).written
    for owned in one.managed.owners.values():
        assert owned.fields and not fieldsets.difference(owned.fields, everything), (owned.fields, one.obj)


def play(steps: Any) -> One:
    one = One()
    one.apply("z", thing())
    for what, who, body in steps:
        if what == "update":
            one.update(who, thing(**body))
        else:
            try:
                one.apply(who, thing(**body), force=what == "force")
            except Conflicts:
                assert what == "apply"
        owners_are_sound(one)
    return one


def says(obj: Any, config: Any) -> bool:
    """Whether the object says all that the configuration says."""
    return bool(merge(TYPE, obj, config) == obj) or not compare(TYPE, obj, merge(TYPE, obj, config)).written


@settings(max_examples=60, deadline=None)
@given(STEPS, BODY)
def test_applying_twice_is_applying_once(steps: Any, body: Any) -> None:
    """(An object that nobody owns anything of is another matter: it is as if it came from before the first apply.)"""
    one, config = play(steps), thing(**{**body, "two": 1})
    one.apply("a", config, force=True)
    obj, stored = copy.deepcopy(one.body), one.stored()
    one.apply("a", config)
    assert one.body == obj and one.stored() == stored, "and not even the time moves"


@settings(max_examples=60, deadline=None)
@given(STEPS, BODY)
def test_an_applier_owns_what_it_sent_and_the_object_says_it(steps: Any, body: Any) -> None:
    one = play(steps)
    config = thing(**body)
    one.apply("a", config, force=True)
    assert one.owned("a") == fieldsets.difference(fields_of(TYPE, config), STRIPPED)
    assert says(one.obj, config)


@settings(max_examples=60, deadline=None)
@given(STEPS, BODY)
def test_force_takes_what_differs_and_nothing_else(steps: Any, body: Any) -> None:
    """From scratch: every other owner keeps exactly what the apply neither changed nor removed."""
    one = play(steps)
    before, owned = (
        one.obj,
        {m: o.fields for m, o in one.managed.owners.items() if (m.name, m.operation) != ("a", "Apply")},
    )
    one.apply("a", thing(**body), force=True)
    difference = compare(TYPE, before, one.obj)
    changed = set(fieldsets.paths(difference.written)) | set(fieldsets.paths(difference.removed))
    for manager, fields in owned.items():
        left = one.managed.owners.get(manager)
        expected = set(fieldsets.paths(fields)) - changed
        assert set(fieldsets.paths(left.fields if left else {})) == expected


@settings(max_examples=60, deadline=None)
@given(STEPS, BODY)
def test_without_force_nothing_of_others_changes(steps: Any, body: Any) -> None:
    one = play(steps)
    before = copy.deepcopy((one.obj, one.stored()))
    others = [o.fields for m, o in one.managed.owners.items() if (m.name, m.operation) != ("a", "Apply")]
    try:
        one.apply("a", thing(**body))
    except Conflicts as conflicts:
        assert conflicts.listed() and (one.obj, one.stored()) == before
        return
    written = compare(TYPE, before[0], one.obj).written
    assert not any(fieldsets.intersection(fields, written) for fields in others)


@settings(max_examples=60, deadline=None)
@given(BODY, BODY)
def test_disjoint_appliers_never_conflict(left: Any, right: Any) -> None:
    right = {key: value for key, value in right.items() if key not in left}
    one = One()
    one.apply("a", thing(**left))
    one.apply("b", thing(**right))
    one.apply("a", thing(**left))
    assert says(one.obj, thing(**left)) and says(one.obj, thing(**right))


@settings(max_examples=80, deadline=None)
@given(STEPS, BODY, BODY)
def test_what_an_applier_alone_owned_goes_with_it(steps: Any, first: Any, second: Any) -> None:
    one = play(steps)
    one.apply("a", thing(**first), force=True)
    mine = one.owned("a")
    others = [o.fields for m, o in one.managed.owners.items() if (m.name, m.operation) != ("a", "Apply")]
    one.apply("a", thing(**second), force=True)
    there = compare(TYPE, {}, one.obj).written
    dropped = fieldsets.difference(with_named(TYPE, mine), with_named(TYPE, one.owned("a")))
    for path in fieldsets.paths(dropped):
        below = any(fieldsets.has(with_named(TYPE, o), path) or _above(o, path) for o in [*others, one.owned("a")])
        if not below:
            assert not fieldsets.has(there, path), path
    for fields in others:
        for path in fieldsets.paths(fieldsets.intersection(fields, mine)):
            if fieldsets.has(one_owner_fields(one, fields), path):
                assert fieldsets.has(there, path), "what was owned together stays"


def _above(fields: Any, path: Any) -> bool:
    """Whether the set has something below the path, which keeps it."""
    found: Any = fields
    for element in path:
        found = found.get(element) if found else None
        if found is None:
            return False
    return True


def one_owner_fields(one: One, fields: Any) -> Any:
    """What of a set somebody still owns."""
    found: Any = {}
    for owned in one.managed.owners.values():
        found = fieldsets.union(found, fieldsets.intersection(owned.fields, fields))
    return found


@settings(max_examples=60, deadline=None)
@given(STEPS, BODY)
def test_an_update_takes_exactly_what_it_changes(steps: Any, body: Any) -> None:
    one = play(steps)
    before, owned = one.obj, {m: o.fields for m, o in one.managed.owners.items()}
    one.update("u", thing(**body))
    difference = compare(TYPE, before, one.obj)
    written, removed = set(fieldsets.paths(difference.written)), set(fieldsets.paths(difference.removed))
    stripped = set(fieldsets.paths(STRIPPED))
    assert set(fieldsets.paths(one.owned("u", "Update"))) >= written - stripped
    for manager, fields in owned.items():
        if (manager.name, manager.operation) == ("u", "Update"):
            continue
        left = one.managed.owners.get(manager)
        assert set(fieldsets.paths(left.fields if left else {})) == set(fieldsets.paths(fields)) - written - removed


@settings(max_examples=60, deadline=None)
@given(BODY, BODY)
def test_the_difference_tells_what_is_equal(left: Any, right: Any) -> None:
    assert not compare(TYPE, left, copy.deepcopy(left)).written
    there, back = compare(TYPE, left, right), compare(TYPE, right, left)
    gone = set(fieldsets.paths(there.removed))
    assert gone <= set(fieldsets.paths(back.written)), "what goes one way comes the other"
