"""What makes a schema structural (apiextensions/v1): KEP 20190425-structural-openapi, in upstream's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.cel import regex
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.structural import EMBEDDED, INT_OR_STRING, LIST_KEYS, LIST_TYPE, MAP_TYPE, PRESERVE, RULES

DEPTH_LIMIT: Final = 64
_LEVELS: Final = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_EMPTY: Final = ("title", "description", "type")
_UNDEFINED: Final = ("additionalProperties", "default", LIST_TYPE, MAP_TYPE)
_FALSE: Final = ("nullable", PRESERVE, EMBEDDED, INT_OR_STRING)
_NESTED: Final = ("allOf", "anyOf", "oneOf")


def check_structural(schema: Raw, at: Field) -> list[FieldError]:
    """Everything that keeps a schema from being structural, in a fixed order."""
    return sorted(_walk(schema, at, "root", 0), key=str)


def _walk(schema: Any, at: Field, level: str, depth: int) -> Iterator[FieldError]:
    if not isinstance(schema, dict):
        yield at.invalid(schema, "must be a schema")
        return
    if depth > DEPTH_LIMIT:
        yield at.forbidden(f"a schema may be nested {DEPTH_LIMIT} levels deep")
        return
    items, more = schema.get("items"), schema.get("additionalProperties")
    if schema.get("type") == "array" and items is None:
        yield (at / "items").required("must be specified")
    if isinstance(items, dict):
        yield from _walk(items, at / "items", "item", depth + 1)
    for key, part in (schema.get("properties") or {}).items():
        yield from _walk(part, (at / "properties")[key], "field", depth + 1)
    if more is not None:
        if level == "root":
            yield (at / "additionalProperties").forbidden("must not be used at the root")
        if isinstance(more, dict):
            yield from _walk(more, at / "additionalProperties", "field", depth + 1)
    yield from _extensions(schema, at)
    yield from _value_rules(schema, at, depth, in_junctor=False)
    yield from _typed(schema, at, level)
    yield from _resource(schema, at, level)


def _extensions(schema: Raw, at: Field) -> Iterator[FieldError]:
    if schema.get(INT_OR_STRING):
        for key in (PRESERVE, EMBEDDED):
            if schema.get(key):
                yield (at / key).invalid(True, f"must be false if {INT_OR_STRING} is true")


def _typed(schema: Raw, at: Field, level: str) -> Iterator[FieldError]:
    kind = schema.get("type") or ""
    if schema.get(EMBEDDED) and kind != "object":
        why = f"must be object if {EMBEDDED} is true"
        yield (at / "type").invalid(kind, why) if kind else (at / "type").required(why)
    elif not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        yield (at / "type").required(f"must not be empty {_LEVELS[level]}")
    if level == "root" and kind and kind != "object":
        yield (at / "type").invalid(kind, "must be object at the root")


def _resource(schema: Raw, at: Field, level: str) -> Iterator[FieldError]:
    """What holds where a whole resource stands: at the root, and where one is embedded."""
    embedded, properties = bool(schema.get(EMBEDDED)), schema.get("properties") or {}
    if embedded and schema.get("additionalProperties") is not None:
        yield (at / "additionalProperties").forbidden(f"must not be used if {EMBEDDED} is set")
    is_resource = level == "root" or embedded
    below = at / "properties"
    for key in ("kind", "apiVersion"):
        part = properties.get(key)
        if is_resource and isinstance(part, dict) and part.get("type") != "string":
            yield (below[key] / "type").invalid(part.get("type", ""), "must be string")
    meta = properties.get("metadata")
    if isinstance(meta, dict):
        if is_resource and meta.get("type") != "object":
            yield (below["metadata"] / "type").invalid(meta.get("type", ""), "must be object")
        if level == "root" and not _says_only_names(meta):
            why = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            yield below["metadata"].forbidden(why)
    if embedded and not schema.get(PRESERVE) and not properties:
        yield (at / "properties").required(f"must not be empty if {EMBEDDED} is true without {PRESERVE}")


def _says_only_names(meta: Raw) -> bool:
    rest = {key for key, value in meta.items() if value not in (None, "", {}, [], False)}
    return rest <= {"type", "properties", "default"} and set(meta.get("properties") or ()) <= {"name", "generateName"}


# --- junctors -----------------------------------------------------------------------------------------------------------


def _is_int_or_string(parts: Any) -> bool:
    return bool(parts == _INT_OR_STRING)


def _value_rules(schema: Raw, at: Field, depth: int, *, in_junctor: bool) -> Iterator[FieldError]:
    """What narrows values. The one place where a junctor may name types is the pattern of int-or-string."""
    for name in _NESTED:
        parts = schema.get(name) or []
        for number, part in enumerate(parts):
            if name == "anyOf" and _is_int_or_string(parts) and not in_junctor:
                continue
            where = (at / name)[number]
            if name == "allOf" and number == 0 and isinstance(part, dict) and _is_int_or_string(part.get("anyOf")):
                part = {key: value for key, value in part.items() if key != "anyOf"}  # noqa: PLW2901
            yield from _nested(part, where, depth + 1)
    if "not" in schema:
        yield from _nested(schema["not"], at / "not", depth + 1)
    pattern = schema.get("pattern")
    if pattern:
        try:
            regex.compiled(pattern)
        except regex.RegexError as error:
            yield (at / "pattern").invalid(pattern, f"must be a valid regular expression, but isn't: {error}")


def _nested(part: Any, at: Field, depth: int) -> Iterator[FieldError]:
    """A schema inside a junctor says nothing of structure."""
    if not isinstance(part, dict):
        yield at.invalid(part, "must be a schema")
        return
    if depth > DEPTH_LIMIT:
        yield at.forbidden(f"a schema may be nested {DEPTH_LIMIT} levels deep")
        return
    yield from _value_rules(part, at, depth, in_junctor=True)
    if isinstance(part.get("items"), dict):
        yield from _nested(part["items"], at / "items", depth + 1)
    for key, inner in (part.get("properties") or {}).items():
        yield from _nested(inner, (at / "properties")[key], depth + 1)
    for names, why in ((_EMPTY, "must be empty"), (_UNDEFINED, "must be undefined"), (_FALSE, "must be false")):
        for key in names:
            if part.get(key) not in (None, "", False):
                yield (at / key).forbidden(f"{why} to be structural")
    for key in (LIST_KEYS, RULES):
        if part.get(key):
            yield (at / key).forbidden("must be empty to be structural")
    if "metadata" in (part.get("properties") or {}):
        yield (at / "properties")["metadata"].forbidden("must not be specified in a nested context")
