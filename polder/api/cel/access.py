"""Fields and items of values: ``a.b``, ``a[b]``, ``a.?b``, ``a[?b]``, ``has(a.b)``."""

from __future__ import annotations

from typing import Any

from polder.api.cel import values
from polder.api.cel.errors import Fault, no_such_key, no_such_overload
from polder.api.cel.values import NONE, Entries, Fields, Optional, UInt, type_name


def _find(value: Any, field: str) -> Optional:
    """Raises Fault where a value has no fields."""
    if type(value) is dict:
        return Optional(True, value[field]) if field in value else NONE
    if isinstance(value, Entries | Fields):
        return value.find(field)
    if isinstance(value, Optional):
        return _find(value.value, field) if value.there else NONE
    raise no_such_overload()


def select(value: Any, field: str) -> Any:
    """``value.field``. Raises Fault."""
    if type(value) is dict and field in value:
        return value[field]
    found = _find(value, field)
    if isinstance(value, Optional):
        return found
    if not found.there:
        raise no_such_key(field)
    return found.value


def optional_select(value: Any, field: str) -> Optional:
    """``value.?field``. Raises Fault."""
    return _find(value, field)


def present(value: Any, field: str) -> bool:
    """``has(value.field)``. Raises Fault."""
    return _find(value, field).there


def _position(key: Any) -> int:
    """Raises Fault for what is no position in a list."""
    if type(key) in (int, UInt):
        return int(key)
    if type(key) is float and key.is_integer():
        return int(key)
    raise Fault(f"unsupported index type '{type_name(key)}' in list")


def _at(value: Any, key: Any) -> Optional:
    items = values.as_list(value)
    if items is not None:
        place = _position(key)
        return Optional(True, items[place]) if 0 <= place < len(items) else NONE
    if values.is_map(value):
        return values.map_find(value, key)
    if isinstance(value, Fields) and type(key) is str:
        return value.find(key)
    if isinstance(value, Optional):
        return _at(value.value, key) if value.there else NONE
    raise no_such_overload("_[_]", type_name(value), type_name(key))


def index(value: Any, key: Any) -> Any:
    """``value[key]``. Raises Fault."""
    found = _at(value, key)
    if isinstance(value, Optional):
        return found
    if found.there:
        return found.value
    if values.as_list(value) is not None:
        raise Fault(f"index out of bounds: {key}")
    raise no_such_key(key)


def optional_index(value: Any, key: Any) -> Optional:
    """``value[?key]``. Raises Fault."""
    return _at(value, key)
