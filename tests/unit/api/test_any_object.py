"""Whatever a schema allows is judged: no object makes defaults, rules, columns or conversions fail."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from polder.api.conform import conform
from polder.api.convert import convert
from polder.api.defaults import default
from polder.api.kinds import BUILT_IN, Kind
from polder.api.schemas import Schema, Shape, schema_of
from polder.api.strategies import prepare
from polder.api.tables import cells, columns_of
from polder.api.validation import validate_create, validate_update
from tests.unit.api.kit import Raw

NOW: Final = datetime(2026, 11, 21, tzinfo=UTC)
OBJECTS: Final = 12
DEEP: Final = 8
"""Levels below which lists are empty and few fields are there."""
SOUND: Final[dict[str, Raw]] = yaml.safe_load(
    (Path(__file__).parents[2] / "contract" / "kinds.yaml").read_text().replace("${request}", "eA==")
)
TEXTS: Final = (
    "", "a", "x/y", "-", "a.b", "10.0.0.1", "10.0.0.0/8", "::1", "50%", "*", "TCP", "Always", "Never", "IPv4", "0", "Local",
    "Recreate", "ClusterIP", "ExternalName", "LoadBalancer", "None", "In", "Exists", "/x", "true", "é" * 3, "x" * 300, "{",
    "https://a.b/c", "kubernetes.io/tls", "spec.x", "a,b", "Indexed", "Resource", "Pods", "External", "Utilization",
    "Limited", "Exempt", "Queue", "Delete", "Immediate",
)  # fmt: skip
VALUES: Final[dict[Shape, tuple[Any, ...]]] = {
    Shape.STRING: TEXTS,
    Shape.INT32: (0, 1, -1, 80, 31000, 2**31 - 1, -(2**31)),
    Shape.INT64: (0, 1, -1, 86400, 2**63 - 1, -(2**63)),
    Shape.NUMBER: (0, 1.5, -1, 1e300),
    Shape.BOOLEAN: (True, False),
    Shape.QUANTITY: ("0", "1", "-1", "100m", "1Gi", "1e3", 5, "9" * 22, "1n"),
    Shape.INT_OR_STRING: (0, 1, -1, "50%", "http", "", "x%", "101%", 2**31 - 1),
    Shape.TIME: ("2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
    Shape.MICRO_TIME: ("2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    Shape.BYTES: ("", "eA==", "LS0t"),
    Shape.OR_BOOLEAN: (True, False, {"type": "string"}),
    Shape.ANY: (None, 1, "x", [], {}, {"a": 1}, [1, "a"]),
}


def value(rng: random.Random, schema: Schema, depth: int = 0) -> Any:
    """Something that the schema allows."""
    if schema.shape is Shape.OBJECT:
        share = 0.5 if depth < 3 else 0.25 if depth < DEEP else 0.03
        return {
            name: value(rng, part.schema, depth + 1)
            for name, part in schema.fields.items()
            if rng.random() < (0.9 if part.required else share)
        }
    if schema.shape is Shape.MAP and schema.items is not None:
        return {rng.choice(TEXTS): value(rng, schema.items, depth + 1) for _ in range(rng.randrange(3))}
    if schema.shape is Shape.LIST and schema.items is not None:
        count = rng.choice((0, 1, 1, 2, 3)) if depth < DEEP else 0
        return [value(rng, schema.items, depth + 1) for _ in range(count)]
    return rng.choice(VALUES[schema.shape])


def places(at: Any, schema: Schema, put: Callable[[Any], None]) -> list[tuple[Callable[[Any], None], Schema]]:
    """Every value of an object, and every field that it could have besides, with what replaces it."""
    found = [(put, schema)]
    if schema.shape is Shape.OBJECT and isinstance(at, dict):
        for name, part in schema.fields.items():
            set_, known = (lambda new, name=name: at.__setitem__(name, new)), at.get(name)
            found += places(known, part.schema, set_)
    elif schema.items is not None and isinstance(at, list):
        for number, inner in enumerate(at):
            found += places(inner, schema.items, lambda new, number=number: at.__setitem__(number, new))
    elif schema.items is not None and isinstance(at, dict):
        for key, inner in list(at.items()):
            found += places(inner, schema.items, lambda new, key=key: at.__setitem__(key, new))
    return found


def changed(rng: random.Random, obj: Raw, schema: Schema) -> Raw:
    """The object with one value replaced."""
    found = copy.deepcopy(obj)
    put, part = rng.choice(places(found, schema, lambda _: None)[1:])
    put(value(rng, part, 4))
    return found


def taken(kind: Kind, obj: Raw) -> Raw:
    """The object as the server has it when rules judge it."""
    meta = obj.get("metadata") if isinstance(obj.get("metadata"), dict) else {}
    found = conform(kind, {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta}).obj
    found["metadata"] |= {"name": "x", "uid": "u"} | ({"namespace": "default"} if kind.namespaced else {})
    return default(kind, found)


@pytest.mark.parametrize(
    "kind", [kind for kind in BUILT_IN if kind.stored], ids=lambda kind: f"{kind.qualified}-{kind.version}"
)
def test_any_object_is_judged(kind: Kind) -> None:
    rng = random.Random(f"{kind.qualified} {kind.version}")
    schema = schema_of(kind)
    sound = SOUND.get(kind.qualified, {}).get("object", {})
    others = [other for other in BUILT_IN if other.resource == kind.resource and other != kind]
    for number in range(OBJECTS):
        obj = taken(kind, changed(rng, sound, schema) if sound and number % 2 else value(rng, schema))
        old = taken(kind, copy.deepcopy(sound) if sound else value(rng, schema))
        prepare(kind, obj, None)
        prepare(kind, old, None)
        again = copy.deepcopy(obj)
        prepare(kind, again, old)
        problems = [*validate_create(kind, obj), *validate_update(kind, again, old), *validate_update(kind, old, obj)]
        assert all(str(problem) for problem in problems)
        for other in others:
            convert(obj, other)
        if not validate_create(kind, obj):
            cells(columns_of(kind), obj, NOW)
