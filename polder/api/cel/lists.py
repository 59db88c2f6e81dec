"""Lists and sets: Kubernetes' functions (isSorted, sum, min, max, indexOf), CEL's extensions of lists (version 3) and sets."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.costs import self_compare_cost
from polder.api.cel.errors import Fault, no_such_overload
from polder.api.cel.functions import Library, Overload, function, member, metered
from polder.api.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    list_of,
    param,
)
from polder.api.cel.values import Duration, Meter, UInt, type_name

T = param("T")
LIST = list_of(T)
_COMPARABLE: Final = (
    ("int", INT), ("uint", UINT), ("double", DOUBLE), ("bool", BOOL), ("duration", DURATION),
    ("timestamp", TIMESTAMP), ("string", STRING), ("bytes", BYTES),
)  # fmt: skip
_CALL: Final = 1 + 10
"""Cost of a call that makes a list."""


def _items(value: Any) -> list[Any]:
    found = values.as_list(value)
    if found is None:
        raise no_such_overload()
    return found


def _is_sorted(value: Any) -> bool:
    items = _items(value)
    return all(values.compare(a, b, "isSorted") <= 0 for a, b in itertools.pairwise(items))


def _extreme(name: str, sign: int) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        items = _items(value)
        if not items:
            raise Fault(f"{name} called on empty list")
        found = items[0]
        for item in items[1:]:
            if values.compare(item, found, name) == sign:
                found = item
        return found

    return run


def _sum(kind: CelType) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        items = _items(value)
        for item in items:
            if type_name(item) != kind.name:
                raise no_such_overload("sum", type_name(item))
        if kind is DURATION:
            return _checked_duration(sum(item.nanos for item in items))
        total = sum(items, 0.0 if kind is DOUBLE else 0)
        if kind is UINT:
            if total >= 2**64:
                raise Fault("unsigned integer overflow")
            return UInt(total)
        if kind is INT and not -(2**63) <= total < 2**63:
            raise Fault("integer overflow")
        return total

    return run


def _checked_duration(nanos: int) -> Duration:
    if not -(2**63) <= nanos < 2**63:
        raise Fault("duration overflow")
    return Duration(nanos)


def _place(backwards: bool) -> Callable[[Meter, Any, Any], int]:
    def run(meter: Meter, value: Any, wanted: Any) -> int:
        items = _items(value)
        places = range(len(items) - 1, -1, -1) if backwards else range(len(items))
        return next((place for place in places if values.equal(items[place], wanted, meter)), -1)

    return run


def _slice(meter: Meter, value: Any, start: int, end: int) -> list[Any]:
    items = _items(value)
    if start < 0 or end < 0:
        raise Fault(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise Fault(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if len(items) < end:
        raise Fault(f"cannot slice({start}, {end}), list is length {len(items)}")
    _charge(meter, end - start)
    return items[start:end]


def _charge(meter: Meter, amount: int) -> None:
    meter.cost += amount + _CALL
    meter.check()


def _flatten(meter: Meter, value: Any, depth: int = 1) -> list[Any]:
    if depth < 0:
        raise Fault("level must be non-negative")
    _charge(meter, len(_items(value)) * min(depth, 10**6))
    found: list[Any] = []
    _flatten_into(meter, _items(value), depth, found)
    return found


def _flatten_into(meter: Meter, items: list[Any], depth: int, found: list[Any]) -> None:
    meter.work(len(items) // 4)
    for item in items:
        inner = values.as_list(item)
        if inner is None or depth == 0:
            found.append(item)
        else:
            _flatten_into(meter, inner, depth - 1, found)


def _sort_by(meter: Meter, value: Any, keys: Any) -> list[Any]:
    items, by = _items(value), _items(keys)
    meter.cost += self_compare_cost(by)
    meter.check()
    if len(items) != len(by):
        raise Fault(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, "
            f"but got {len(items)} and {len(by)} elements respectively"
        )
    if any(type(key) is not type(by[0]) for key in by):
        raise Fault("list elements must have the same type")

    def order(a: int, b: int) -> int:
        return values.compare(by[a], by[b], "sort")

    return [items[place] for place in sorted(range(len(items)), key=functools.cmp_to_key(order))]


def _range(meter: Meter, count: int) -> list[int]:
    _charge(meter, max(count, 0))
    return list(range(count))


def _reverse(meter: Meter, value: Any) -> list[Any]:
    items = _items(value)
    _charge(meter, len(items))
    return items[::-1]


def _distinct(meter: Meter, value: Any) -> list[Any]:
    items = _items(value)
    meter.cost += self_compare_cost(items)
    meter.check()
    found: list[Any] = []
    for item in items:
        if not values.contains(found, item, meter):
            found.append(item)
    return found


def _contains_all(meter: Meter, value: Any, wanted: Any) -> bool:
    items = _items(value)
    return all(values.contains(items, item, meter) for item in _items(wanted))


def _equivalent(meter: Meter, a: Any, b: Any) -> bool:
    return _contains_all(meter, a, b) and _contains_all(meter, b, a)


def _intersects(meter: Meter, a: Any, b: Any) -> bool:
    items = _items(a)
    return any(values.contains(items, item, meter) for item in _items(b))


def _templated(
    name: str, form: str, run: Callable[[CelType], Callable[..., Any]], *, same: bool
) -> tuple[Overload, ...]:
    kinds = (
        _COMPARABLE if name != "sum" else tuple(k for k in _COMPARABLE if k[0] in ("int", "uint", "double", "duration"))
    )
    return tuple(member(form.format(text), (list_of(kind),), kind if same else BOOL, run(kind)) for text, kind in kinds)


def _sorts() -> Library:
    return {
        "sort": tuple(
            metered(member(f"list_{name}_sort", (list_of(kind),), list_of(kind), lambda m, v: _sort_by(m, v, v)))
            for name, kind in _COMPARABLE
        ),
        "@sortByAssociatedKeys": tuple(
            metered(member(f"list_{name}_sortByAssociatedKeys", (LIST, list_of(kind)), LIST, _sort_by))
            for name, kind in _COMPARABLE
        ),
    }


LIBRARY: Final[Library] = {
    "isSorted": _templated("isSorted", "list_{}_is_sorted_bool", lambda _: _is_sorted, same=False),
    "sum": _templated("sum", "list_{0}_sum_{0}", _sum, same=True),
    "max": _templated("max", "list_{0}_max_{0}", lambda _: _extreme("max", 1), same=True),
    "min": _templated("min", "list_{0}_min_{0}", lambda _: _extreme("min", -1), same=True),
    "indexOf": (metered(member("list_a_index_of_int", (LIST, T), INT, _place(False))),),
    "lastIndexOf": (metered(member("list_a_last_index_of_int", (LIST, T), INT, _place(True))),),
    "slice": (metered(member("list_slice", (LIST, INT, INT), LIST, _slice)),),
    "flatten": (
        metered(member("list_flatten", (list_of(LIST),), LIST, _flatten)),
        metered(member("list_flatten_int", (list_of(DYN), INT), list_of(DYN), _flatten)),
    ),
    **_sorts(),
    "lists.range": (metered(function("lists_range", (INT,), list_of(INT), _range)),),
    "reverse": (metered(member("list_reverse", (LIST,), LIST, _reverse)),),
    "distinct": (metered(member("list_distinct", (LIST,), LIST, _distinct)),),
    "sets.contains": (metered(function("list_sets_contains_list", (LIST, LIST), BOOL, _contains_all)),),
    "sets.equivalent": (metered(function("list_sets_equivalent_list", (LIST, LIST), BOOL, _equivalent)),),
    "sets.intersects": (metered(function("list_sets_intersects_list", (LIST, LIST), BOOL, _intersects)),),
}
