"""Whatever JSON comes in the form of a kind, it is taken or refused in the API's own words; nothing falls over."""

from __future__ import annotations

import copy
import random
import string
from datetime import UTC, datetime
from typing import Any

import pytest

from polder.api.conform import conform
from polder.api.defaults import default, initial_status
from polder.api.errors import ApiError, invalid
from polder.api.kinds import BUILT_IN, Kind
from polder.api.patch import PatchType, apply_patch
from polder.api.schemas import Schema, Shape, schema_of
from polder.api.tables import cells, columns_of
from polder.api.unsupported import unsupported
from polder.api.validation import validate_create, validate_update

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUNDS = 150
TEXTS = [
    "",
    "a",
    "A b",
    "default",
    "10.0.0.0/16",
    "10.0.0.5",
    "fd00::/64",
    "root",
    "None",
    "Always",
    "Equal",
    "x/y/z",
    "v1",
]
TIMES = ["2026-01-01T00:00:00Z", "2025-12-31T23:59:59.5+01:00"]
QUANTITIES = ["1", "100m", "1Gi", "-1", "1e3", 5, 0.5]


class Maker:
    """Random objects of a schema, sometimes broken."""

    def __init__(self, seed: int, broken: float) -> None:
        self.random = random.Random(seed)
        self.broken = broken

    def value(self, schema: Schema, depth: int) -> Any:
        if self.random.random() < self.broken:
            return self.random.choice([None, True, -1, 2**40, 1.5, "x", [], {}, [None], {"a": None}])
        match schema.shape:
            case Shape.OBJECT:
                return self.object(schema, depth)
            case Shape.LIST:
                assert schema.items is not None
                return [self.value(schema.items, depth + 1) for _ in range(self.random.randrange(3))]
            case Shape.MAP:
                assert schema.items is not None
                keys = self.random.sample([*TEXTS, "cpu", "memory"], self.random.randrange(3))
                return {key: self.value(schema.items, depth + 1) for key in keys}
            case Shape.OR_BOOLEAN:
                assert schema.items is not None
                return self.random.random() < 0.5 or self.value(schema.items, depth + 1)
        return self.scalar(schema.shape)

    def object(self, schema: Schema, depth: int) -> dict[str, Any]:
        chance = 0.5 if depth < 3 else 0.12
        found = {}
        for name, prop in schema.fields.items():
            if depth < 9 and self.random.random() < (0.9 if name in ("metadata", "spec", "name") else chance):
                found[name] = self.value(prop.schema, depth + 1)
        if self.random.random() < self.broken:
            found["".join(self.random.choices(string.ascii_letters, k=4))] = 1
        return found

    def scalar(self, shape: Shape) -> Any:
        match shape:
            case Shape.INT32 | Shape.INT64 | Shape.NUMBER:
                return self.random.choice([0, 1, 80, -5, 70000, 600])
            case Shape.BOOLEAN:
                return self.random.random() < 0.5
            case Shape.QUANTITY:
                return self.random.choice(QUANTITIES)
            case Shape.INT_OR_STRING:
                return self.random.choice([80, "http", ""])
            case Shape.TIME | Shape.MICRO_TIME:
                return self.random.choice(TIMES)
            case Shape.BYTES:
                return self.random.choice(["", "eA=="])
            case Shape.ANY:
                return self.random.choice([{}, {"a": [1, {"b": None}]}, "x", 1, []])
        return self.random.choice(TEXTS)


def objects(kind: Kind, broken: float) -> list[Any]:
    schema = schema_of(kind)
    assert schema is not None
    return [Maker(seed, broken).object(schema, 0) for seed in range(ROUNDS)]


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.resource)
def test_sound_forms_are_taken_checked_and_printed(kind: Kind) -> None:
    before = None
    for given in objects(kind, 0.0):
        kept = copy.deepcopy(given)
        taken = conform(kind, given)
        assert given == kept
        assert taken.unknown == ()
        obj = default(kind, taken.obj)
        assert default(kind, conform(kind, obj).obj) == obj, "stored objects stay as they are"
        problems = validate_create(kind, obj)
        if problems:
            assert invalid(kind, "x", problems).to_status()["code"] == 422
        if before is not None:
            validate_update(kind, obj, before)
        if kind.resource == "pods":
            unsupported(obj, tenant_is_root=False)
        initial_status(kind, obj)
        columns = columns_of(kind, tenants=True)
        assert len(cells(columns, obj, NOW)) == len(columns)
        before = obj


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.resource)
def test_broken_forms_are_bad_requests(kind: Kind) -> None:
    taken = 0
    for given in objects(kind, 0.02):
        try:
            obj = default(kind, conform(kind, given).obj)
        except ApiError as refused:
            assert refused.code == 400
        else:
            taken += 1
            validate_create(kind, obj)
    assert taken, "not all are broken"


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: kind.resource)
@pytest.mark.parametrize("how", [PatchType.MERGE, PatchType.STRATEGIC])
def test_any_object_can_be_a_patch_of_any_other(kind: Kind, how: PatchType) -> None:
    schema = schema_of(kind)
    sound = objects(kind, 0.0)
    for doc, patch in zip(sound, [*sound[1:], sound[0]], strict=True):
        kept = copy.deepcopy((doc, patch))
        try:
            found = apply_patch(how, doc, patch, schema)
        except ApiError as refused:
            assert refused.code == 400
            assert how is PatchType.STRATEGIC
        else:
            assert how is PatchType.STRATEGIC or apply_patch(how, found, patch, schema) == found
        assert (doc, patch) == kept
