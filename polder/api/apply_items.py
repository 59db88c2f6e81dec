"""Items of lists that are sets or maps: by what element of a path each is known.

Source: structured-merge-diff, typed (helpers).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api.apply_types import Type
from polder.api.fieldsets import key_element, value_element


class _Absent:
    """No value at all, which is not null."""


ABSENT: Final = _Absent()


class ItemError(Exception):
    """An item of a list has no identity."""


def is_granular(kind: Type) -> bool:
    """Whether objects are merged field by field."""
    return kind.is_map and not kind.atomic


def is_associative(kind: Type) -> bool:
    """Whether lists are merged item by item."""
    return kind.is_list and kind.relation != "atomic"


def element_of(kind: Type, item: Any) -> str:
    """The element that names an item of an associative list. Raises ItemError."""
    if kind.relation == "set":
        if isinstance(item, dict | list) or item is None:
            what = "a map type" if isinstance(item, dict) else "an explicit null" if item is None else "a list"
            raise ItemError(f"associative list without keys has an element that's {what}")
        return value_element(item)
    if not isinstance(item, dict):
        what = "a null element" if item is None else "non-map elements"
        raise ItemError(f"associative list with keys may not have {what}")
    defaults = kind.items.defaults if kind.items is not None else {}
    keys = {}
    for name in kind.keys:
        if name in item:
            keys[name] = item[name]
        elif name in defaults:
            keys[name] = defaults[name]
    if not keys:
        listed = "[" + " ".join(f'"{name}"' for name in kind.keys) + "]"
        raise ItemError(
            f"associative list with keys has an element that omits all key fields {listed} (and doesn't have default "
            "values for any key fields)"
        )
    return key_element(keys)


def elements_of(kind: Type, items: list[Any]) -> Iterator[tuple[str, Any]]:
    """Items with their elements; those without identity are left out."""
    for item in items:
        try:
            element = element_of(kind, item)
        except ItemError:
            continue
        yield element, item
