"""The rules of a definition's schemas beyond being structural (apiextensions/v1), in upstream's words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from polder.api.crd_rules import check_structural
from polder.api.default_check import check_defaults
from polder.api.errors import Field, FieldError
from polder.api.field_path import FieldPathError, resolve
from polder.api.meta import Raw
from polder.api.rule_check import Place, Total, check_rules
from polder.api.structural import EMBEDDED, LIST_KEYS, LIST_TYPE, MAP_TYPE, PRESERVE, RESOURCE_KEYS, RULES

_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_REFUSED: Final = ("additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_LINES: Final = re.compile(r"[\n\r]")
_AT_ROOT: Final = (
    "description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
    "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required", "items", "properties",
    "externalDocs", "example", PRESERVE, RULES,
)  # fmt: skip
"""What may stand at the root where status has a schema of its own."""


@dataclass(frozen=True, slots=True)
class Old:
    """What of the older definition spares a new one some checks: nobody's stored definition becomes unwritable."""

    same_schema: bool = False
    set_items: bool = False
    map_keys: bool = False
    defaults: bool = False


def check_schema(schema: Raw, at: Field, *, has_status: bool = False, old: Old | None = None) -> list[FieldError]:
    """Everything that is wrong with one version's schema."""
    old = old or Old()
    found = list(_root(schema, at, has_status))
    structural = check_structural(schema, at)
    total = Total()
    place = None
    if structural:
        found += structural
    else:
        defaults = list(check_defaults(schema, at, pruned=not old.defaults))
        found += defaults
        place = Place(total) if not defaults else None
    walk = _Walk(old)
    walk.schema(schema, at, _Ssv(), place)
    found += walk.problems + walk.rules
    found += total.problems(at)
    return found


def _root(schema: Raw, at: Field, has_status: bool) -> Iterator[FieldError]:
    if has_status:
        kind = schema.get("type", "")
        if kind and kind != "object":
            why = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            yield (at / "type").invalid(kind, why)
        elif any(key not in _AT_ROOT for key, value in schema.items() if value not in (None, "", [], {}, False)):
            listed = " ".join(_shown(key) for key in _AT_ROOT)
            why = f"only [{listed}] fields are allowed at the root of the schema if the status subresource is enabled"
            yield at.invalid("object", why)
    if schema.get("nullable"):
        yield (at / "nullable").forbidden("nullable cannot be true at the root")


def _shown(key: str) -> str:
    """As upstream's message names a field: by its name in Go."""
    return {PRESERVE: "XPreserveUnknownFields", RULES: "XValidations"}.get(key, key[0].upper() + key[1:])


@dataclass(frozen=True, slots=True)
class _Ssv:
    """What holds at a place of the schema."""

    in_metadata: bool = False
    no_defaults: str = ""
    lost: Field | None = None

    def losing(self, at: Field) -> _Ssv:
        """Below here it cannot be told which old value a new one was."""
        return self if self.lost is not None else replace(self, lost=at)


class _Walk:
    """Goes through a schema and notes what is wrong, with schemas and with rules."""

    def __init__(self, old: Old) -> None:
        self.problems: list[FieldError] = []
        self.rules: list[FieldError] = []
        self._old = old

    def schema(self, schema: Any, at: Field, here: _Ssv, place: Place | None) -> None:
        """One schema and what is below it."""
        if not isinstance(schema, dict):
            return
        before = len(self.problems)
        self.problems += _keywords(schema, at, here)
        self._below(schema, at, here, place)
        self._junctors(schema, at, here)
        self.problems += _lists(schema, at, self._old)
        if schema.get(RULES):
            self.problems += _rule_forms(schema, at)
            if len(self.problems) == before and place is not None:
                there = replace(place, lost=here.lost)
                self.rules += check_rules(schema, at / RULES, there, known=self._old.same_schema)

    def _below(self, schema: Raw, at: Field, here: _Ssv, place: Place | None) -> None:
        more, properties, items = (schema.get(key) for key in ("additionalProperties", "properties", "items"))
        if more is not None:
            if properties:
                why = "additionalProperties and properties are mutual exclusive"
                self.problems.append((at / "additionalProperties").forbidden(why))
            inner = here
            if here.in_metadata:
                inner = replace(here, no_defaults="inside additionalProperties applying to object metadata")
            self._part(schema, "additionalProperties", more, (at / "additionalProperties", inner, place))
        for key, part in (properties or {}).items():
            inner = here if schema.get(MAP_TYPE) in (None, "granular", "atomic") else here.losing(at)
            is_root = not here.in_metadata and not at.path.endswith("]") and at.path.endswith("openAPIV3Schema")
            if (is_root or schema.get(EMBEDDED)) and key in RESOURCE_KEYS:
                inner = replace(inner, in_metadata=True)
                if is_root:
                    inner = replace(inner, no_defaults=f"in top-level {key}")
            self._part(schema, key, part, ((at / "properties")[key], inner, place))
        if isinstance(items, dict):
            inner = here if schema.get(LIST_TYPE) == "map" else here.losing(at)
            self._part(schema, "items", items, (at / "items", inner, place))
        elif isinstance(items, list):
            self.problems.append((at / "items").forbidden("items must be a schema object and not an array"))

    def _part(self, schema: Raw, key: str, part: Any, where: tuple[Field, _Ssv, Place | None]) -> None:
        at, here, place = where
        if isinstance(part, dict):
            self.schema(part, at, here, place.child(schema, key, part) if place is not None else None)

    def _junctors(self, schema: Raw, at: Field, here: _Ssv) -> None:
        for name in ("allOf", "oneOf", "anyOf"):
            for number, part in enumerate(schema.get(name) or ()):
                self.schema(part, (at / name)[number], here, None)
        if "not" in schema:
            self.schema(schema["not"], at / "not", here, None)


def _keywords(schema: Raw, at: Field, here: _Ssv) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    if kind == "null":
        yield (at / "type").forbidden("type cannot be set to null, use nullable as an alternative")
    if kind and kind not in _TYPES:
        yield (at / "type").not_supported(kind, _TYPES)
    if schema.get("default") is not None and here.no_defaults:
        yield (at / "default").forbidden(f"must not be set {here.no_defaults}")
    if schema.get("id"):
        yield (at / "id").forbidden("id is not supported")
    for key in _REFUSED:
        if schema.get(key) not in (None, "", {}):
            yield (at / key).forbidden(f"{key} is not supported")
    if here.in_metadata and schema.get(EMBEDDED):
        yield (at / EMBEDDED).forbidden("must not be used inside of resource meta")
    if schema.get("uniqueItems"):
        why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield (at / "uniqueItems").forbidden(why)
    if schema.get(PRESERVE) is False:
        yield (at / PRESERVE).invalid(False, "must be true or undefined")


def _container(schema: Raw, at: Field, key: str, wanted: str) -> Iterator[FieldError]:
    kind = schema.get("type", "")
    if schema.get(key) is not None and kind != wanted:
        why = f"must be {wanted} if {key} is specified"
        yield (at / "type").invalid(kind, why) if kind else (at / "type").required(why)


def _lists(schema: Raw, at: Field, old: Old) -> Iterator[FieldError]:
    kind, keys, items = schema.get(LIST_TYPE), schema.get(LIST_KEYS) or [], schema.get("items")
    yield from _container(schema, at, MAP_TYPE, "object")
    if schema.get(MAP_TYPE) not in (None, "atomic", "granular"):
        yield (at / MAP_TYPE).not_supported(schema[MAP_TYPE], ("atomic", "granular"))
    yield from _container(schema, at, LIST_TYPE, "array")
    if kind == "set" and isinstance(items, dict) and not old.set_items and schema.get("type") == "array":
        why = f"must be atomic as item of a list with {LIST_TYPE}=set"
        if items.get("type") == "array" and items.get(LIST_TYPE) not in (None, "atomic"):
            yield (at / "items" / LIST_TYPE).invalid(items[LIST_TYPE], why)
        if items.get("type") == "object" and items.get(MAP_TYPE) != "atomic":
            yield (at / "items" / MAP_TYPE).invalid(items.get(LIST_TYPE), why)
    if kind not in (None, "atomic", "set", "map"):
        yield (at / LIST_TYPE).not_supported(kind, ("atomic", "set", "map"))
    if keys and kind != "map":
        why = f"must be map if {LIST_KEYS} is non-empty"
        yield (at / LIST_TYPE).required(why) if kind is None else (at / LIST_TYPE).invalid(kind, why)
    if kind == "map":
        yield from _map_list(schema, at, keys)
    if kind in ("set", "map") and isinstance(items, dict) and not old.map_keys:
        yield from _no_nulls(schema, at, keys)


def _map_list(schema: Raw, at: Field, keys: list[str]) -> Iterator[FieldError]:
    items = schema.get("items")
    if not keys:
        yield (at / LIST_KEYS).required(f"must not be empty if {LIST_TYPE} is map")
    if items is None:
        yield (at / "items").required(f"must have a schema if {LIST_TYPE} is map")
        return
    if not isinstance(items, dict):
        yield (at / "items").invalid("array", f"must only have a single schema if {LIST_TYPE} is map")
        return
    if items.get("type") != "object":
        why = f"must be object if parent array's {LIST_TYPE} is map"
        yield (at / "items" / "type").invalid(items.get("type", ""), why)
        return
    seen: set[str] = set()
    for key in keys:
        part = (items.get("properties") or {}).get(key)
        if part is None:
            yield (at / LIST_KEYS).invalid(keys, "entries must all be names of item properties")
        elif part.get("type") in ("array", "object"):
            why = f"must be a scalar type if parent array's {LIST_TYPE} is map"
            yield ((at / "items" / "properties")[key] / "type").invalid(items["type"], why)
        if key in seen:
            yield (at / LIST_KEYS).invalid(keys, "must not contain duplicate entries")
        seen.add(key)


def _no_nulls(schema: Raw, at: Field, keys: list[str]) -> Iterator[FieldError]:
    items = schema["items"]
    if items.get("nullable"):
        yield (at / "items" / "nullable").forbidden(f"cannot be nullable when {LIST_TYPE} is {schema[LIST_TYPE]}")
    if schema[LIST_TYPE] != "map":
        return
    for key in keys:
        part = (items.get("properties") or {}).get(key)
        if part is None:
            continue
        where = (at / "items" / "properties")[key]
        if key not in (items.get("required") or ()) and part.get("default") is None:
            why = f"this property is in {LIST_KEYS}, so it must have a default or be a required property"
            yield (where / "default").required(why)
        if part.get("nullable"):
            yield (where / "nullable").forbidden(f"this property is in {LIST_KEYS}, so it cannot be nullable")


def _rule_forms(schema: Raw, at: Field) -> Iterator[FieldError]:
    """What can be said of rules without compiling them."""
    for number, rule in enumerate(schema[RULES]):
        where = (at / RULES)[number]
        text, message = (rule.get("rule") or "").strip(), rule.get("message") or ""
        if not text:
            yield (where / "rule").required("rule is not specified")
        elif message and not message.strip():
            yield (where / "message").invalid(message, "must be non-empty if specified")
        elif _LINES.search(message.strip()):
            yield (where / "message").invalid(message, "must not contain line breaks")
        elif _LINES.search(text) and not message.strip():
            yield (where / "message").required("message must be specified if rule contains line breaks")
        if rule.get("messageExpression") and not rule["messageExpression"].strip():
            yield (where / "messageExpression").required("messageExpression must be non-empty if specified")
        if rule.get("reason") is not None and rule["reason"] not in _REASONS:
            yield (where / "reason").not_supported(rule["reason"], _REASONS)
        yield from _rule_path(schema, rule.get("fieldPath") or "", where / "fieldPath")


def _rule_path(schema: Raw, path: str, at: Field) -> Iterator[FieldError]:
    if not path:
        return
    if not path.strip():
        yield at.invalid(path, "must be non-empty if specified")
    if _LINES.search(path):
        yield at.invalid(path, "must not contain line breaks")
    try:
        resolve(path, schema)
    except FieldPathError:
        yield at.invalid(path, "must be a valid path")
