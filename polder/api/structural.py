"""Structural schemas of custom resources: pruning and defaulting of raw objects (apiextensions/v1).

A schema is the JSON of ``openAPIV3Schema`` after ``crd_rules`` found nothing wrong with it. What one object may cost is
bounded: large defaults over long lists multiply.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


def children(schema: Raw) -> Iterator[tuple[str, Raw]]:
    """The schemas directly below that say how values are built: properties, additionalProperties, items."""
    for name, part in (schema.get("properties") or {}).items():
        if isinstance(part, dict):
            yield name, part
    for key in ("additionalProperties", "items"):
        part = schema.get(key)
        if isinstance(part, dict):
            yield f"[{key}]", part


def has_defaults(schema: Raw) -> bool:
    """Whether anything in the schema has a default."""
    todo = [schema]
    while todo:
        found = todo.pop()
        if "default" in found:
            return True
        todo.extend(part for _, part in children(found))
    return False


# --- pruning ------------------------------------------------------------------------------------------------------------


def prune(schema: Raw, obj: Raw) -> tuple[Raw, list[str]]:
    """The object without fields that the schema does not know, and their paths, sorted. A resource's ``apiVersion`` and
    ``kind`` stay as they are; its metadata keeps what metadata has.
    """
    unknown: list[str] = []
    found = _prune(schema, obj, "", unknown, is_resource=True)
    assert isinstance(found, dict)
    return found, sorted(unknown)


def _prune(schema: Any, value: Any, path: str, unknown: list[str], *, is_resource: bool = False) -> Any:
    if isinstance(value, list):
        items = schema.get("items") if isinstance(schema, dict) else None
        return [_inner(items, item, f"{path}[{at}]", unknown) for at, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    schema = schema if isinstance(schema, dict) else {}
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    keeps = bool(schema.get(PRESERVE))
    found: Raw = {}
    for key, item in value.items():
        at = f"{path}.{key}" if path else key
        if is_resource and key in RESOURCE_KEYS:
            found[key] = _metadata(item, at, unknown) if key == "metadata" else item
        elif key in properties:
            found[key] = _inner(properties[key], item, at, unknown)
        elif isinstance(more, dict):
            found[key] = _inner(more, item, at, unknown)
        elif more is True or keeps:
            found[key] = item
        else:
            unknown.append(at)
    return found


def _inner(schema: Any, value: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(schema, dict) and schema.get(PRESERVE) and isinstance(value, list):
        return _kept_items(schema, value, path, unknown)
    return _prune(schema, value, path, unknown, is_resource=bool(isinstance(schema, dict) and schema.get(EMBEDDED)))


def _kept_items(schema: Raw, value: list[Any], path: str, unknown: list[str]) -> list[Any]:
    """The items of a list that is kept: what their schema describes is pruned, the rest stays."""
    items = schema.get("items")
    if not isinstance(items, dict):
        return value
    kept = {**items, PRESERVE: True}
    return [_inner(kept, item, f"{path}[{at}]", unknown) for at, item in enumerate(value)]


def _metadata(meta: Any, path: str, unknown: list[str]) -> Any:
    if not isinstance(meta, dict):
        return meta
    unknown += [f"{path}.{key}" for key in meta if key not in META_KEYS]
    return {key: value for key, value in meta.items() if key in META_KEYS}


# --- nulls and defaults -------------------------------------------------------------------------------------------------


def _is_useless_null(value: Any, schema: Any) -> bool:
    """Whether a null means the same as nothing."""
    return value is None and isinstance(schema, dict) and not schema.get("nullable")


def apply_defaults(schema: Raw, value: Any, work: Work | None = None) -> Any:
    """The value with the schema's defaults filled in. A null where null is not allowed counts as absent. Raises ApiError."""
    work = work or Work(DEFAULTS_LIMIT, "bytes of defaults")
    if isinstance(value, list):
        items = schema.get("items")
        return [_item(items, item, work) for item in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
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
            found[key] = _copied(part["default"], key, work)
    for key, item in found.items():
        part = properties.get(key, more)
        if isinstance(part, dict):
            found[key] = _item(part, item, work)
    return found


def _item(schema: Raw, value: Any, work: Work) -> Any:
    if _is_useless_null(value, schema) and schema.get("default") is not None:
        value = _copied(schema["default"], "items", work)
    return apply_defaults(schema, value, work)


def _copied(value: Any, key: str, work: Work) -> Any:
    text = orjson.dumps(value)
    work.spend(len(text), key)
    return orjson.loads(text)
