"""What makes a schema structural, and what of a schema Polder does not do yet (apiextensions/v1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.structural import EMBEDDED, INT_OR_STRING, PRESERVE, apply_defaults, pattern_matcher, prune, validate

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_MAX_DEPTH: Final = 64
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_ONLY_OUTSIDE: Final = (
    "additionalProperties", "default", "description", "nullable", "title", "type", PRESERVE, EMBEDDED,
)  # fmt: skip
"""What may not stand inside a logical junctor."""
_LATER: Final = {
    "x-kubernetes-validations": "rules in CEL (x-kubernetes-validations) are not supported by this version of Polder",
}


def check_schema(schema: Raw, at: Field) -> Iterator[FieldError]:
    """Everything that keeps a schema from being structural."""
    if schema.get("type") != "object":
        if not schema.get("type"):
            yield (at / "type").required("must not be empty at the root")
        else:
            yield (at / "type").invalid(schema["type"], "must be object at the root")
    yield from _walk(schema, at, 0)


def _walk(schema: Any, at: Field, depth: int) -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        yield at.invalid(schema, "must be a schema")
        return
    if depth > _MAX_DEPTH:
        yield at.forbidden(f"a schema may be nested {_MAX_DEPTH} levels deep")
        return
    yield from _keywords(schema, at)
    properties, more, items = (schema.get(key) for key in ("properties", "additionalProperties", "items"))
    if properties and more:
        yield (at / "additionalProperties").forbidden("additionalProperties and properties are mutual exclusive")
    for key, part in (properties or {}).items():
        where = (at / "properties")[key]
        yield from _typed(part, where, "must not be empty for specified object fields")
        yield from _walk(part, where, depth + 1)
    if isinstance(more, dict):
        yield from _typed(more, at / "additionalProperties", "must not be empty for specified object fields")
        yield from _walk(more, at / "additionalProperties", depth + 1)
    if isinstance(items, list):
        yield (at / "items").forbidden("items must be a schema object and not an array")
    elif items is not None:
        yield from _typed(items, at / "items", "must not be empty for specified array items")
        yield from _walk(items, at / "items", depth + 1)
    elif schema.get("type") == "array":
        yield (at / "items").required("must be specified")
    yield from _junctors(schema, at, depth)
    if "default" in schema:
        yield from _default(schema, at / "default")


def _typed(part: Any, at: Field, why: str) -> Iterator[FieldError]:
    if isinstance(part, dict) and not part.get("type") and not part.get(INT_OR_STRING) and not part.get(PRESERVE):
        yield (at / "type").required(why)


def _keywords(schema: Raw, at: Field) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    if kind and kind not in _TYPES:
        yield (at / "type").not_supported(kind, _TYPES)
    if schema.get(INT_OR_STRING) and kind:
        yield (at / "type").forbidden("must be empty if x-kubernetes-int-or-string is true")
    if schema.get("$ref"):
        yield (at / "$ref").forbidden("$ref is not supported")
    for key in ("definitions", "dependencies", "patternProperties", "additionalItems"):
        if schema.get(key):
            yield (at / key).forbidden(f"{key} is not supported")
    if schema.get("uniqueItems"):
        yield (at / "uniqueItems").forbidden(
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )
    for key, why in _LATER.items():
        if schema.get(key):
            yield (at / key).forbidden(why)
    if "pattern" in schema:
        try:
            pattern_matcher(schema["pattern"])
        except ValueError as error:
            yield (at / "pattern").invalid(schema["pattern"], str(error))
    if schema.get(EMBEDDED) and kind != "object":
        yield (at / "type").invalid(kind, "must be object if x-kubernetes-embedded-resource is true")
    if schema.get(PRESERVE) is False:
        yield (at / PRESERVE).invalid(False, "must be true or undefined")


def _junctors(schema: Raw, at: Field, depth: int) -> Iterator[FieldError]:
    parts = [((at / name)[n], part) for name in _JUNCTORS for n, part in enumerate(schema.get(name) or ())]
    if "not" in schema:
        parts.append((at / "not", schema["not"]))
    for where, part in parts:
        yield from _inside(part, where, depth + 1, int_or_string=bool(schema.get(INT_OR_STRING)))


def _inside(part: Any, at: Field, depth: int, *, int_or_string: bool = False) -> Iterator[FieldError]:
    """A schema inside a junctor only narrows: it says nothing of types or structure."""
    if not isinstance(part, dict) or depth > _MAX_DEPTH:
        yield at.invalid(part, "must be a schema")
        return
    for key in _ONLY_OUTSIDE:
        if part.get(key) and not (key == "type" and int_or_string):
            yield (at / key).forbidden("must be empty to be structural")
    if "pattern" in part or part.get("$ref") or part.get("x-kubernetes-validations"):
        yield from _keywords(part, at)
    for name, inner in (part.get("properties") or {}).items():
        yield from _inside(inner, (at / "properties")[name], depth + 1)
    if isinstance(part.get("items"), dict):
        yield from _inside(part["items"], at / "items", depth + 1)
    yield from _junctors(part, at, depth)


def _default(schema: Raw, at: Field) -> Iterator[FieldError]:
    """A default fits its own schema and has no field that would be pruned."""
    value = schema["default"]
    problems = list(validate(schema, apply_defaults(schema, value), at))
    yield from problems
    if not problems and isinstance(value, dict):
        unknown = prune({"type": "object", "properties": {"default": schema}}, {"default": value})[1]
        if unknown:
            yield at.invalid(value, f"must not have unknown fields: {', '.join(unknown)}")
