"""An object beside what stood before it: which part of the old one each part of the new one corresponds to.

What did not change is not held against a schema that became stricter (ratcheting). Source: KEP-4008.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from polder.api.meta import Raw
from polder.api.structural import LIST_KEYS, LIST_TYPE

_UNKNOWN: Final = object()


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, and 1 is not 1.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def list_key(keys: list[str], item: Any) -> bytes | None:
    """What identifies an item of a list of type map; None where a key is missing or no scalar."""
    if not isinstance(item, dict):
        return None
    found = [item.get(key, _UNKNOWN) for key in keys]
    if any(value is _UNKNOWN or value is None or isinstance(value, dict | list) for value in found):
        return None
    return orjson.dumps(found)


def by_key(schema: Raw, items: Any) -> dict[bytes, Any]:
    """The items of a list of type map by their keys; nothing for any other list."""
    keys = schema.get(LIST_KEYS) or []
    if schema.get(LIST_TYPE) != "map" or not keys or not isinstance(items, list):
        return {}
    found: dict[bytes, Any] = {}
    for item in items:
        key = list_key(keys, item)
        if key is not None:
            found.setdefault(key, item)
    return found


class Pair:
    """A new value and the old one that it corresponds to."""

    __slots__ = ("_above", "_children", "_old_items", "_same", "new", "old", "schema")

    def __init__(self, new: Any, old: Any, schema: Raw, above: Pair | None = None) -> None:
        self.new, self.old, self.schema, self._above = new, old, schema, above
        self._same: bool | None = None
        self._children: dict[str | int, Pair | None] = {}
        self._old_items: dict[bytes, Any] | None = None

    @property
    def is_same(self) -> bool:
        """Whether nothing changed."""
        if self._same is None:
            self._same = same(self.new, self.old)
            at = self if not self._same else None
            while at is not None and at._above is not None and at._above._same is None:
                at = at._above  # what has a part that changed changed, without another look
                at._same = False
        return self._same

    def key(self, name: str) -> Pair | None:
        """The pair of a field."""
        if name not in self._children:
            self._children[name] = self._field(name)
        return self._children[name]

    def _field(self, name: str) -> Pair | None:
        if not isinstance(self.new, dict) or not isinstance(self.old, dict):
            return None
        if name not in self.new or name not in self.old:
            return None
        part = (self.schema.get("properties") or {}).get(name, self.schema.get("additionalProperties"))
        return Pair(self.new[name], self.old[name], part, self) if isinstance(part, dict) else None

    def index(self, place: int) -> Pair | None:
        """The pair of an item; only lists of type map tell which old item it was."""
        if place not in self._children:
            self._children[place] = self._item(place)
        return self._children[place]

    def _item(self, place: int) -> Pair | None:
        items = self.schema.get("items")
        if not isinstance(self.new, list) or not isinstance(items, dict):
            return None
        if self._old_items is None:
            self._old_items = by_key(self.schema, self.old)
        key = list_key(self.schema.get(LIST_KEYS) or [], self.new[place]) if self._old_items else None
        old = self._old_items.get(key) if key is not None else None
        return Pair(self.new[place], old, items, self) if old is not None else None
