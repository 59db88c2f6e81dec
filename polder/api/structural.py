"""Structural schemas of custom resources: pruning and defaulting of raw objects (apiextensions/v1).

A schema is the JSON of ``openAPIV3Schema`` after ``crd_rules`` found nothing wrong with it. What one object may cost is
bounded: large defaults over long lists multiply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from polder.api.cel.errors import TooLongError
from polder.api.errors import ApiError
from polder.api.meta import Raw

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"
MAP_TYPE: Final = "x-kubernetes-map-type"
RULES: Final = "x-kubernetes-validations"
RESOURCE_KEYS: Final = frozenset({"apiVersion", "kind", "metadata"})
META_KEYS: Final = frozenset(
    {
        "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
        "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers",
        "managedFields",
    }
)  # fmt: skip
TURN_VALUES: Final = 2500
"""Values that are pruned and get their defaults within a turn of an event loop."""
DEFAULTS_LIMIT: Final = 3 * 1024 * 1024
"""Bytes of defaults filled into one object: a large default over a long list multiplies."""


@dataclass(slots=True)
class Work:
    """What one object may cost still. ``unit`` says what is counted."""

    left: int
    unit: str
    turn: bool = False
    """Whether it is an event loop's turn that ends, not the patience with the object."""

    def spend(self, amount: int, at: str) -> None:
        """Raises ApiError 422 naming the place where the budget ended, TooLongError where a turn did."""
        self.left -= amount
        if self.left < 0:
            if self.turn:
                raise TooLongError
            why = f"{at or 'the object'}: the object and its definition's schema together take too many {self.unit}"
            raise ApiError(422, "Invalid", why, {"causes": [{"message": why, "field": at}]})


def endless() -> Work:
    """Work that is not bounded: what is worked on is."""
    return Work(2**62, "values")


def one_turn() -> Work:
    """What can be pruned within a turn of an event loop."""
    return Work(TURN_VALUES, "values", turn=True)


# --- pruning ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Cut:
    """What was cut off, and what may be looked at still."""

    work: Work
    unknown: list[str] = field(default_factory=list)


def prune(schema: Raw, obj: Raw, work: Work | None = None) -> tuple[Raw, list[str]]:
    """The object without fields that the schema does not know, and their paths, sorted. A resource's ``apiVersion`` and
    ``kind`` stay as they are; its metadata keeps what metadata has. Raises TooLongError where the work ends.
    """
    cut = _Cut(work or endless())
    found = _prune(schema, obj, "", cut, is_resource=True)
    assert isinstance(found, dict)
    return found, sorted(cut.unknown)


def _prune(schema: Any, value: Any, path: str, cut: _Cut, *, is_resource: bool = False) -> Any:
    if isinstance(value, list):
        cut.work.spend(len(value), path)
        items = schema.get("items") if isinstance(schema, dict) else None
        return [_inner(items, item, f"{path}[{at}]", cut) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    schema = schema if isinstance(schema, dict) else {}
    cut.work.spend(len(value), path)
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    keeps = bool(schema.get(PRESERVE))
    found: Raw = {}
    for key, item in value.items():
        at = f"{path}.{key}" if path else key
        if is_resource and key in RESOURCE_KEYS:
            found[key] = _metadata(item, at, cut) if key == "metadata" else item
        elif key in properties:
            found[key] = _inner(properties[key], item, at, cut)
        elif isinstance(more, dict):
            found[key] = _inner(more, item, at, cut)
        elif more is True or keeps:
            found[key] = item
        else:
            cut.unknown.append(at)
    return found


def _inner(schema: Any, value: Any, path: str, cut: _Cut) -> Any:
    if isinstance(schema, dict) and schema.get(PRESERVE) and isinstance(value, list):
        return _kept_items(schema, value, path, cut)
    return _prune(schema, value, path, cut, is_resource=bool(isinstance(schema, dict) and schema.get(EMBEDDED)))


def _kept_items(schema: Raw, value: list[Any], path: str, cut: _Cut) -> list[Any]:
    """The items of a list that is kept: what their schema describes is pruned, the rest stays."""
    items = schema.get("items")
    if not isinstance(items, dict):
        return value
    kept = {**items, PRESERVE: True}
    return [_inner(kept, item, f"{path}[{at}]", cut) for at, item in enumerate(value)]


def _metadata(meta: Any, path: str, cut: _Cut) -> Any:
    if not isinstance(meta, dict):
        return meta
    cut.unknown += [f"{path}.{key}" for key in meta if key not in META_KEYS]
    return {key: value for key, value in meta.items() if key in META_KEYS}


# --- nulls and defaults -------------------------------------------------------------------------------------------------


def _is_useless_null(value: Any, schema: Any) -> bool:
    """Whether a null means the same as nothing."""
    return value is None and isinstance(schema, dict) and not schema.get("nullable")


@dataclass(slots=True)
class _Fill:
    """How many bytes of defaults may be filled in, and how many values may be looked at still."""

    bytes: Work
    values: Work


def apply_defaults(schema: Raw, value: Any, work: Work | None = None) -> Any:
    """The value with the schema's defaults filled in. A null where null is not allowed counts as absent. Raises ApiError
    where defaults multiply, TooLongError where the work ends.
    """
    return _filled(schema, value, _Fill(Work(DEFAULTS_LIMIT, "bytes of defaults"), work or endless()))


def _filled(schema: Raw, value: Any, fill: _Fill) -> Any:
    if isinstance(value, list):
        fill.values.spend(len(value), "")
        items = schema.get("items")
        return [_item(items, item, fill) for item in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    fill.values.spend(len(value), "")
    properties: Raw = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    found: Raw = {}
    for key, item in value.items():
        part = properties.get(key, more)
        if not (_is_useless_null(item, part) and isinstance(part, dict) and "default" not in part):
            found[key] = item
    for key, part in properties.items():
        if (
            "default" in part
            and part["default"] is not None
            and (key not in found or _is_useless_null(found[key], part))
        ):
            found[key] = _copied(part["default"], key, fill)
    for key, item in found.items():
        part = properties.get(key, more)
        if isinstance(part, dict):
            found[key] = _item(part, item, fill)
    return found


def _item(schema: Raw, value: Any, fill: _Fill) -> Any:
    if _is_useless_null(value, schema) and schema.get("default") is not None:
        value = _copied(schema["default"], "items", fill)
    return _filled(schema, value, fill)


def _copied(value: Any, key: str, fill: _Fill) -> Any:
    text = orjson.dumps(value)
    fill.bytes.spend(len(text), key)
    return orjson.loads(text)
