"""Definitions of OpenAPI documents: the published types and custom schemas in the dialect of each version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec
import orjson

from polder.api.crd import CustomVersion
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.schemas import META, REF, definition_name, type_of
from polder.api.structural import EMBEDDED, INT_OR_STRING, PRESERVE

_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_GVK: Final = "x-kubernetes-group-version-kind"
_TYPE_META: Final = {
    "apiVersion": {
        "type": "string",
        "description": "APIVersion defines the versioned schema of this representation of an object.",
    },
    "kind": {
        "type": "string",
        "description": "Kind is a string value representing the REST resource this object represents.",
    },
}
_PLAIN_KEYS: Final = (
    "description", "title", "format", "required", "enum", "default", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip


class Dialect(Enum):
    """The version of OpenAPI; the value is where references point."""

    V2 = "#/definitions/"
    V3 = "#/components/schemas/"


def name_of(kind: Kind, *, custom: bool) -> str:
    """The definition's name; a custom kind's is its group reversed, version and kind."""
    if not custom:
        return definition_name(kind)
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def reference(name: str, dialect: Dialect) -> Raw:
    """A pointer to a definition."""
    return {"$ref": dialect.value + name}


def convert(raw: Raw, dialect: Dialect) -> Raw:
    """A published schema in a dialect: no nullable, no constants for apiVersion and kind."""
    found: Raw = {key: value for key, value in raw.items() if key.startswith("x-") or key in _PLAIN_KEYS}
    if "$ref" in raw:
        pointer = reference(str(raw["$ref"]).removeprefix(REF), dialect)
        return {**found, **pointer} if dialect is Dialect.V2 else {**found, "allOf": [pointer]}
    if kind := type_of(raw):
        found["type"] = kind
    if "items" in raw:
        found["items"] = convert(raw["items"], dialect)
    if isinstance(raw.get("additionalProperties"), dict):
        found["additionalProperties"] = convert(raw["additionalProperties"], dialect)
    if "properties" in raw:
        found["properties"] = {key: convert(part, dialect) for key, part in raw["properties"].items()}
        for key in ("apiVersion", "kind"):
            if key in found["properties"] and _GVK in raw:
                found["properties"][key].pop("enum", None)
    return found


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)


def published(names: Iterable[str], raw: Mapping[str, msgspec.Raw], dialect: Dialect) -> dict[str, Raw]:
    """The named definitions with everything that they refer to."""
    found: dict[str, Raw] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name == _QUANTITY:
            found[name] = {"type": "string", "description": "A fixed-point number, such as 100m or 1Gi."}
        elif name == _INT_OR_STRING:
            found[name] = {"type": "string", "format": "int-or-string", "description": "A number or a name."}
        else:
            found[name] = convert(msgspec.json.decode(raw[name]), dialect)
            todo.extend(_references(found[name]))
    return found


def list_definition(kind: Kind, item: str, dialect: Dialect) -> Raw:
    """The definition of a kind's list."""
    return {
        "type": "object",
        "description": f"{kind.kind}List is a list of {kind.kind}",
        "required": ["items"],
        "properties": {
            **_TYPE_META,
            "items": {"type": "array", "description": f"List of {kind.plural}.", "items": reference(item, dialect)},
            "metadata": convert({"$ref": f"{REF}{META}.ListMeta", "description": "Standard list metadata."}, dialect),
        },
        _GVK: [{"group": kind.group, "kind": f"{kind.kind}List", "version": kind.version}],
    }


def custom_definition(version: CustomVersion, dialect: Dialect) -> Raw:
    """The definition of a custom kind in one version. Parses the schema itself: documents are built in threads."""
    schema: Raw = orjson.loads(version.text)
    found = _custom(schema, dialect)
    found["type"] = "object"
    meta = convert({"$ref": f"{REF}{META}.ObjectMeta", "description": "Standard object's metadata."}, dialect)
    if "properties" in found or not schema.get(PRESERVE):
        found["properties"] = {**found.get("properties", {}), **_TYPE_META, "metadata": meta}
    kind = version.kind
    found[_GVK] = [{"group": kind.group, "kind": kind.kind, "version": kind.version}]
    return found


def _custom(schema: Raw, dialect: Dialect) -> Raw:
    """A structural schema; version 2 has no nullable, no junctors, and its readers refuse what it does not name."""
    found: Raw = {key: value for key, value in schema.items() if key.startswith("x-") or key in _PLAIN_KEYS}
    second = dialect is Dialect.V2
    if not second:
        found |= {key: schema[key] for key in ("nullable", "allOf", "anyOf", "oneOf", "not") if key in schema}
    open_ended = schema.get(PRESERVE) or schema.get(EMBEDDED)
    if second and (schema.get("nullable") or open_ended or schema.get(INT_OR_STRING)):
        for key in ("pattern", "enum", "minimum", "maximum", "minLength", "maxLength", "required"):
            found.pop(key, None)
        if schema.get("type") == "object" and not schema.get("nullable"):
            found["type"] = "object"
        return found
    if "type" in schema:
        found["type"] = schema["type"]
    if isinstance(schema.get("items"), dict):
        found["items"] = _custom(schema["items"], dialect)
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = _custom(schema["additionalProperties"], dialect)
    if "properties" in schema:
        found["properties"] = {key: _custom(part, dialect) for key, part in schema["properties"].items()}
    return found
