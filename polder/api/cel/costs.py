"""What calls cost while a program runs, in upstream's units.

Source: upstream's runtime tracker and Kubernetes' estimator (facts only). Functions whose cost depends on the result count it
themselves through the meter; here they cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from polder.api.cel.values import cost_size as size

if TYPE_CHECKING:
    from polder.api.cel.named_formats import Format

LIST_COST: Final = 10
MAP_COST: Final = 30
STRUCT_COST: Final = 40
CHECK_COST: Final = 350_000
"""One question to the authorizer."""
FORMAT_PATTERN: Final = 128
TRAVERSAL: Final = 0.1
"""Per character."""
PATTERN: Final = 0.25
"""Per character of a regular expression."""


def traversal(length: float, factor: float = 1.0) -> int:
    """Going through a text once."""
    return math.ceil(length * factor * TRAVERSAL)


def _text(args: list[Any]) -> int:
    return traversal(size(args[0]))


def _twice(args: list[Any]) -> int:
    return traversal(size(args[0]), 2)


def _matched(args: list[Any]) -> int:
    return traversal(1 + size(args[0])) * math.ceil(size(args[1]) * PATTERN)


def _contained(args: list[Any]) -> int:
    return _text(args) * traversal(size(args[1]))


def _shorter(args: list[Any]) -> int:
    return traversal(min(size(args[0]), size(args[1])))


def _both(args: list[Any]) -> int:
    return traversal(size(args[0]) + size(args[1]))


def _walked(args: list[Any]) -> int:
    value = args[0]
    if isinstance(value, str | bytes):
        return int(len(value if isinstance(value, bytes) else value.encode()) * TRAVERSAL)
    return _tree_cost(value)


def _tree_cost(value: Any) -> int:
    from polder.api.cel import values

    if isinstance(value, str | bytes):
        return int(len(value) * TRAVERSAL)
    items = values.as_list(value)
    if items is not None:
        return sum(map(_tree_cost, items))
    if values.is_map(value):
        return sum(_tree_cost(key) + _tree_cost(values.map_find(value, key).value) for key in values.map_keys(value))
    return 1


def _selector(args: list[Any]) -> int:
    length = size(args[1])
    return LIST_COST + traversal(length) + math.ceil(math.ceil(length * 0.5) * (LIST_COST + STRUCT_COST))


def _sets(factor: int) -> Callable[[list[Any]], int]:
    return lambda args: 1 + size(args[0]) * size(args[1]) * factor


def _in_list(args: list[Any]) -> int:
    return size(args[1])


def _contains_ip(args: list[Any]) -> int:
    return traversal(2 * size(args[0])) + (traversal(len(args[1])) if isinstance(args[1], str) else 0)


def _contains_cidr(args: list[Any]) -> int:
    own = traversal(2 * size(args[0])) + traversal(size(args[0])) + 1
    return own + (traversal(len(args[1])) if isinstance(args[1], str) else 0)


def _validated(args: list[Any]) -> int:
    form: Format = args[0]
    return traversal(1 + size(args[1])) * math.ceil(form.pattern_size * PATTERN)


def self_compare_cost(items: list[Any]) -> int:
    """Comparing each item of a list with each other."""
    factor = 2.0 + (TRAVERSAL if items and isinstance(items[0], str | bytes) else 0)
    return int(len(items) * len(items) * factor) + 1 + LIST_COST


def _free(_: list[Any]) -> int:
    return 0


_BY_ID: Final[dict[str, Callable[[list[Any]], int]]] = {
    "starts_with_string": lambda args: traversal(size(args[1])),
    "ends_with_string": lambda args: traversal(size(args[1])),
    "string_to_bytes": _text, "bytes_to_string": _text, "strings_quote": _text, "string_format": _text,
    "in_list": _in_list, "equals": _shorter, "not_equals": _shorter,
    "add_string": _both, "add_bytes": _both, "matches": _matched, "matches_string": _matched,
    "contains_string": _contained,
    **{f"{name}_{kind}": _shorter for name in ("less", "less_equals", "greater", "greater_equals")
       for kind in ("string", "bytes")},
    "list_sets_contains_list": _sets(1), "list_sets_intersects_list": _sets(1), "list_sets_equivalent_list": _sets(2),
    "list_slice": _free, "list_flatten": _free, "list_flatten_int": _free, "lists_range": _free, "list_reverse": _free,
    "list_distinct": _free, "list_join": _free, "list_join_string": _free, "cidr_ip": lambda _: 1,
}  # fmt: skip
_BY_NAME: Final[dict[str, Callable[[list[Any]], int]]] = {
    "check": lambda _: CHECK_COST, "fieldSelector": _selector, "labelSelector": _selector,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _walked),
    **dict.fromkeys(("url", "lowerAscii", "upperAscii", "substring", "trim", "jsonpatch.escapeKey"), _text),
    **dict.fromkeys(("cidr", "isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver"), _text),
    "ip.isCanonical": _twice, "replace": _twice, "split": _twice, "find": _matched, "findAll": _matched,
    "containsIP": _contains_ip, "containsCIDR": _contains_cidr, "validate": _validated,
    "sort": _free, "@sortByAssociatedKeys": _free,
}  # fmt: skip


def cost_of(name: str, overload: str) -> Callable[[list[Any]], int] | None:
    """What computes the cost of a call from its arguments, before it is made; None where it is 1."""
    return _BY_ID.get(overload) or _BY_NAME.get(name)
