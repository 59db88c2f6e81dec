"""Schemas of the kinds that Polder serves, compiled on first use from the published definitions and our own types.

The published file marks optional fields as nullable and flattens int-or-string and quantities into alternatives; the
compiler puts that right. Descriptions are left out: OpenAPI documents read the file again (see ``definitions``).
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib.resources import files
from typing import Any, Final

import msgspec

from polder.api.descriptions import FIELDS
from polder.api.kinds import BUILT_IN, BY_PATH, Kind
from polder.api.meta import Object, Raw
from polder.api.protobuf_table import plain_fields

REF: Final = "#/$defs/"
_PACKAGES: Final = {
    "": "io.k8s.api.core",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
    "polder.dev": "dev.polder",
    "metrics.k8s.io": "io.k8s.metrics.pkg.apis.metrics",
    "policy.networking.k8s.io": "io.k8s.networking.policy",
}
FROM_TYPES: Final = ("polder.dev", "policy.networking.k8s.io", "metrics.k8s.io")
"""Groups whose definitions come from our types: the published file has none."""
_JSON_SCHEMA: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
EXTRA: Final = (
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.policy.v1.Eviction",
)
"""Definitions of bodies that are no stored kind."""


class Shape(Enum):
    """What JSON a value must be, with Go's name for it in messages."""

    OBJECT = "object"
    MAP = "map"
    LIST = "list"
    STRING = "string"
    INT32 = "int32"
    INT64 = "int64"
    NUMBER = "float64"
    BOOLEAN = "bool"
    QUANTITY = "resource.Quantity"
    INT_OR_STRING = "intstr.IntOrString"
    TIME = "v1.Time"
    MICRO_TIME = "v1.MicroTime"
    BYTES = "[]uint8"
    OR_BOOLEAN = "v1.JSONSchemaPropsOrBool"
    ANY = "any"


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """One type. ``name`` is Go's name of a struct; ``items`` is what a list or map holds, or what stands beside a boolean.

    ``relation`` says how server-side apply merges it: ``set`` or ``map`` (with ``keys``) of a list, ``atomic`` or
    ``granular`` of an object; empty is the usual: lists whole, objects field by field.
    """

    shape: Shape
    name: str = ""
    fields: dict[str, Property] = field(default_factory=dict)
    items: Schema | None = None
    relation: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Property:
    """One field of a struct: its type and how a strategic merge treats it; ``relation`` overrides the type's own."""

    schema: Schema
    merge_key: str = ""
    strategies: frozenset[str] = frozenset()
    required: bool = False
    relation: str = ""
    plain: bool = False
    """Whether Go leaves it out when it is zero, false or empty."""


ANY: Final = Schema(Shape.ANY)
_SPECIAL: Final = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": Schema(Shape.QUANTITY),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": Schema(Shape.INT_OR_STRING),
    f"{META}.Time": Schema(Shape.TIME),
    f"{META}.MicroTime": Schema(Shape.MICRO_TIME),
    "io.k8s.apimachinery.pkg.runtime.RawExtension": Schema(Shape.ANY, relation="atomic"),
}
_SCALARS: Final = {
    ("integer", "int32"): Schema(Shape.INT32),
    ("integer", ""): Schema(Shape.INT64),
    ("number", ""): Schema(Shape.NUMBER),
    ("boolean", ""): Schema(Shape.BOOLEAN),
    ("string", "byte"): Schema(Shape.BYTES),
    ("string", "date-time"): Schema(Shape.TIME),
    ("string", ""): Schema(Shape.STRING),
}


def definition_name(kind: Kind) -> str:
    """The name of the kind's definition, such as ``io.k8s.api.core.v1.Pod``."""
    package = _PACKAGES.get(kind.group) or f"io.k8s.api.{kind.group.partition('.')[0]}"
    return f"{package}.{kind.version}.{kind.kind}"


def type_of(raw: Raw) -> str:
    """The JSON type, ``null`` put aside; empty where there is none."""
    found = raw.get("type", "")
    if isinstance(found, list):
        return next((str(name) for name in found if name != "null"), "")
    return str(found)


def required_of(raw: Raw) -> frozenset[str]:
    """The fields that must be there."""
    return frozenset(raw.get("required") or ())


def list_relation(raw: Raw) -> tuple[str, tuple[str, ...]]:
    """How apply merges a list: ``atomic``, ``set``, or ``map`` with its keys. Where no list type is declared, the strategy of
    strategic merge tells. Source: kube-openapi's schemaconv.
    """
    declared = raw.get("x-kubernetes-list-type")
    if declared in ("set", "map"):
        return str(declared), tuple(raw.get("x-kubernetes-list-map-keys") or ()) if declared == "map" else ()
    if declared is None and raw.get("x-kubernetes-patch-strategy") in ("merge", "merge,retainKeys"):
        key = raw.get("x-kubernetes-patch-merge-key")
        return ("map", (str(key),)) if key else ("set", ())
    return "atomic", ()


class _Definitions(msgspec.Struct):
    defs: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


def definitions() -> Mapping[str, msgspec.Raw]:
    """All published definitions as undecoded JSON, with Polder's own; drop the mapping when done (2 MB)."""
    packed = files("polder._generated").joinpath("definitions.json.gz").read_bytes()
    found = msgspec.json.decode(gzip.decompress(packed), type=_Definitions).defs
    return {**found, **_own()}


def _own() -> dict[str, msgspec.Raw]:
    """Definitions of kinds from their types."""
    found: dict[str, msgspec.Raw] = {}
    for group in FROM_TYPES:
        kinds = [kind for kind in BUILT_IN if kind.group == group and kind.type is not None]
        found.update(_own_group(kinds, f"{_PACKAGES[group]}.{kinds[0].version}."))
    return found


def _own_group(kinds: list[Kind], prefix: str) -> dict[str, msgspec.Raw]:
    types: list[type[Object]] = [kind.type for kind in kinds if kind.type is not None]
    _, parts = msgspec.json.schema_components(types, ref_template=REF + prefix + "{name}")
    found: dict[str, msgspec.Raw] = {}
    for name, part in parts.items():
        if name in ("ObjectMeta", "OwnerReference"):
            continue
        tidy = _tidy(part, prefix)
        for field_name, text in FIELDS.get(name, {}).items():
            tidy["properties"][field_name]["description"] = text
        kind = next((kind for kind in kinds if kind.kind == name), None)
        if kind is not None:
            entry = {"group": kind.group, "kind": kind.kind, "version": kind.version}
            tidy["x-kubernetes-group-version-kind"] = [entry]
            tidy.get("properties", {}).get("status", {}).pop("default", None)
        found[prefix + name] = msgspec.Raw(msgspec.json.encode(tidy))
    return found


def _tidy(part: Any, prefix: str) -> Any:
    """msgspec's JSON Schema in the shape of the published definitions."""
    if isinstance(part, list):
        return [_tidy(item, prefix) for item in part]
    if not isinstance(part, dict):
        return part
    if "anyOf" in part:
        choices = [choice for choice in part["anyOf"] if choice.get("type") != "null"]
        if len(choices) == 1:
            return _tidy(choices[0], prefix)
        types = {choice.get("type") for choice in choices}
        if types == {"integer", "number", "string"}:
            return {"$ref": f"{REF}io.k8s.apimachinery.pkg.api.resource.Quantity"}
        if types == {"integer", "string"}:
            return {"$ref": f"{REF}io.k8s.apimachinery.pkg.util.intstr.IntOrString"}
    found = {key: _tidy(value, prefix) for key, value in part.items() if key not in ("title", "default")}
    if found.get("$ref") == f"{REF}{prefix}ObjectMeta":
        return {"$ref": f"{REF}{META}.ObjectMeta"}
    return found


class _Compiler:
    """Turns raw definitions into Schemas, one for each name, recursion included."""

    def __init__(self, raw: Mapping[str, msgspec.Raw]) -> None:
        self.raw = raw
        self.done: dict[str, Schema] = dict(_SPECIAL)

    def named(self, name: str) -> Schema:
        if (found := self.done.get(name)) is not None:
            return found
        if name == f"{_JSON_SCHEMA}OrArray":
            return self.named(_JSON_SCHEMA)
        if name == f"{_JSON_SCHEMA}OrBool":
            return Schema(Shape.OR_BOOLEAN, items=self.named(_JSON_SCHEMA))
        raw: Raw = msgspec.json.decode(self.raw[name])
        properties = raw.get("properties")
        if not properties:
            return self.done.setdefault(name, self.inline(raw))
        *_, version, short = name.split(".")
        schema = Schema(Shape.OBJECT, f"{version}.{short}", relation=str(raw.get("x-kubernetes-map-type", "")))
        self.done[name] = schema
        required, plain = required_of(raw), plain_fields(name)
        for key, part in properties.items():
            schema.fields[key] = self.property(part, key in required, key in plain)
        return schema

    def property(self, raw: Raw, required: bool, plain: bool) -> Property:
        strategies = frozenset(filter(None, str(raw.get("x-kubernetes-patch-strategy", "")).split(",")))
        merge_key, relation = raw.get("x-kubernetes-patch-merge-key", ""), raw.get("x-kubernetes-map-type", "")
        return Property(self.inline(raw), str(merge_key), strategies, required, str(relation), plain)

    def inline(self, raw: Raw) -> Schema:
        if "$ref" in raw:
            return self.named(str(raw["$ref"]).removeprefix(REF))
        kind = type_of(raw)
        if kind == "array":
            relation, keys = list_relation(raw)
            return Schema(Shape.LIST, items=self.inline(raw.get("items") or {}), relation=relation, keys=keys)
        if kind == "object":
            more = raw.get("additionalProperties")
            relation = str(raw.get("x-kubernetes-map-type", ""))
            return Schema(Shape.MAP, items=self.inline(more), relation=relation) if isinstance(more, dict) else ANY
        scalar = _SCALARS.get((kind, str(raw.get("format", "")))) or _SCALARS.get((kind, ""))
        return scalar or ANY


@functools.cache
def _compiled() -> dict[str, Schema]:
    compiler = _Compiler(definitions())
    for name in (*map(definition_name, BUILT_IN), *EXTRA):
        compiler.named(name)
    return compiler.done


def named(name: str) -> Schema:
    """The schema of a definition among the served kinds' and ``EXTRA``; KeyError when there is none."""
    return _compiled()[name]


def schema_of(kind: Kind) -> Schema | None:
    """The kind's schema; None for a kind that a CustomResourceDefinition made."""
    if (kind.group, kind.version, kind.plural) not in BY_PATH:
        return None
    return _compiled().get(definition_name(kind))
