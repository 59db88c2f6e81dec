"""Definitions of OpenAPI documents: the published types in the dialect of each version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.schemas import META, REF, definition_name, type_of

_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_CONVENTIONS: Final = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
GVK: Final = "x-kubernetes-group-version-kind"
TYPE_META: Final = {
    "apiVersion": {
        "type": "string",
        "description": "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
        "recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
        f"{_CONVENTIONS}#resources",
    },
    "kind": {
        "type": "string",
        "description": "Kind is a string value representing the REST resource this object represents. Servers may infer this "
        "from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
        f"{_CONVENTIONS}#types-kinds",
    },
}
PLAIN_KEYS: Final = (
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
    found: Raw = {key: value for key, value in raw.items() if key.startswith("x-") or key in PLAIN_KEYS}
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
            if key in found["properties"] and GVK in raw:
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
            **TYPE_META,
            "items": {"type": "array", "description": f"List of {kind.plural}.", "items": reference(item, dialect)},
            "metadata": convert({"$ref": f"{REF}{META}.ListMeta", "description": "Standard list metadata."}, dialect),
        },
        GVK: [{"group": kind.group, "kind": f"{kind.kind}List", "version": kind.version}],
    }
