"""Estimates of calls: a cost and, where the result has a size, that size. Source as in ``estimate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from polder.api.cel.ast import Call, Expr, Literal
from polder.api.cel.costs import CHECK_COST, FORMAT_PATTERN, LIST_COST, PATTERN, STRUCT_COST, TRAVERSAL
from polder.api.cel.ranges import ANY, NOTHING, ONE, Range, fixed

if TYPE_CHECKING:
    from polder.api.cel.estimate import Estimator

Found = tuple[Range, Range | None]
Rule = Callable[["Estimator", Expr | None, list[Expr], str], Found | None]
_IP_BYTES: Final = Range(4, 16)


def call_range(
    known: Estimator, call: tuple[Call, str, str], target: Expr | None, args: list[Expr], costs: list[Range]
) -> Found:
    """What a call costs together with its arguments, and the size of its result where that is known."""
    node, name, overload = call
    summed = sum(costs, NOTHING)
    rule = _BY_ID.get(overload) or _BY_NAME.get(name)
    found = rule(known, target, args, overload) if rule is not None else None
    if found is not None:
        return found[0] + summed, found[1]
    if overload in ("logical_and", "logical_or"):
        return Range(costs[0].least, (costs[0] + costs[1]).most), None
    if overload == "conditional":
        a, b = known.entry(args[1]), known.entry(args[2])
        if a is not None and b is not None:
            from polder.api.cel.estimate import Entry

            known.set_entry(node, Entry(a.is_list, a.key.union(b.key), a.value.union(b.value)))
        return costs[0] + costs[1].union(costs[2]), known.any_size(args[1]).union(known.any_size(args[2]))
    if overload in ("add_string", "add_bytes", "add_list"):
        return _added(known, node, args, overload, summed)
    return ONE + summed, None


def _added(known: Estimator, node: Call, args: list[Expr], overload: str, summed: Range) -> Found:
    result = known.any_size(args[0]) + known.any_size(args[1])
    a, b = known.entry(args[0]), known.entry(args[1])
    if a is not None and b is not None:
        from polder.api.cel.estimate import Entry

        known.set_entry(node, Entry(a.is_list, a.key.union(b.key), a.value.union(b.value)))
    cost = ONE if overload == "add_list" else result.times(TRAVERSAL)
    return cost + summed, result


def _size(known: Estimator, node: Expr) -> Range:
    return known.any_size(node)


def _first(target: Expr | None, args: list[Expr]) -> Expr | None:
    return target if target is not None else args[0] if args else None


def _through(factor: float, *, sized: bool = False) -> Rule:
    """Once through the text that the function is about."""

    def rule(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
        node = _first(target, args)
        if node is None:
            return None
        size = _size(known, node)
        return size.times(factor * TRAVERSAL), size if sized else None

    return rule


def _argument(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    return _size(known, args[0]).times(TRAVERSAL), None


def _bytes(known: Estimator, _: Expr | None, args: list[Expr], overload: str) -> Found | None:
    size = _size(known, args[0])
    result = (
        Range(size.least, min(size.most * 4, ANY.most))
        if overload == "string_to_bytes"
        else Range(size.least // 4, size.most)
    )
    return size.times(TRAVERSAL), result


def _quoted(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    size = _size(known, args[0])
    return size.times(TRAVERSAL), Range(size.least + 2, min(size.most * 2 + 2, ANY.most))


def _in_list(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    return _size(known, args[1]), None


def _matched(known: Estimator, target: Expr | None, args: list[Expr], overload: str) -> Found | None:
    if target is None:
        return None
    size = _size(known, target)
    cost = (size + ONE).times(TRAVERSAL) * _size(known, args[0]).times(PATTERN)
    return cost, None if overload == "matches_string" else Range(0, size.most)


def _contained(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None:
        return None
    return _size(known, target).times(TRAVERSAL) * _size(known, args[0]).times(TRAVERSAL), None


def _compared(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    most = min(_size(known, args[0]).most, _size(known, args[1]).most)
    return Range(1 if most else 0, most).times(TRAVERSAL), None


_LIBRARY: Final = frozenset(
    {
        "net.IP", "net.CIDR", "kubernetes.Quantity", "kubernetes.Semver", "kubernetes.authorization.Authorizer",
        "kubernetes.authorization.PathCheck", "kubernetes.authorization.GroupCheck",
        "kubernetes.authorization.ResourceCheck", "kubernetes.authorization.Decision",
    }
)  # fmt: skip


def _equal(known: Estimator, target: Expr | None, args: list[Expr], overload: str) -> Found | None:
    kind = known.sized(args[0]).kind
    if kind.name in _LIBRARY and known.sized(args[1]).kind == kind:
        return ONE, None
    return _compared(known, target, args, overload)


def _walked(known: Estimator, target: Expr | None, _: list[Expr], __: str) -> Found | None:
    if target is None:
        return None
    about = known.sized(target)
    if not about.kind.params:
        return _size(known, target).times(TRAVERSAL), None
    item = about.kind.params[0]
    each = ONE
    if item.name in ("string", "bytes"):
        declared = known.declared((*about.path, "@items")) if about.path is not None else None
        each += (declared or ANY).times(TRAVERSAL)
    return _size(known, target) * each, None


def _replaced(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None or len(args) < 2:
        return None
    size, old, new = (_size(known, node) for node in (target, args[0], args[1]))
    if old.least == 0:
        most = min(min(size.most + 1, ANY.most) * new.most + size.most, ANY.most)
    elif new.most <= old.least:
        most = size.most
    else:
        most = min(-(-size.most // old.least) * new.most, ANY.most)
    if old.most == 0:
        least = (size.least + 1) * new.least + size.least
    elif old.most <= new.least:
        least = size.least
    else:
        least = -(-size.least // old.most) * new.least
    return size.times(2 * TRAVERSAL), Range(min(least, ANY.most), most)


def _split(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None:
        return None
    size = _size(known, target)
    count = args[1].value if len(args) > 1 and isinstance(args[1], Literal) else None
    most = count if isinstance(count, int) and count >= 0 else size.most
    return size.times(2 * TRAVERSAL), Range(0, most)


def _joined(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None:
        return None
    about, count = known.sized(target), _size(known, target)
    declared = known.declared((*about.path, "@items")) if about.path is not None else None
    size = count * (declared or ANY)
    if args:
        size += _size(known, args[0]) * Range(max(count.least - 1, 0), max(count.most - 1, 0))
    return size.times(TRAVERSAL), size


def _selector(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    length = _size(known, args[0])
    requirements = length.times(0.5).times(LIST_COST + STRUCT_COST)
    return fixed(LIST_COST) + length.times(TRAVERSAL) + requirements, None


def _contains_ip(known: Estimator, _: Expr | None, args: list[Expr], overload: str) -> Found | None:
    cost = (_IP_BYTES + _IP_BYTES).times(TRAVERSAL)
    if overload == "cidr_contains_ip_string":
        cost += _size(known, args[0]).times(TRAVERSAL)
    return cost, None


def _contains_cidr(known: Estimator, _: Expr | None, args: list[Expr], overload: str) -> Found | None:
    cost = (_IP_BYTES + _IP_BYTES).times(TRAVERSAL) + _IP_BYTES.times(TRAVERSAL) + ONE
    if overload == "cidr_contains_cidr_string":
        cost += _size(known, args[0]).times(TRAVERSAL)
    return cost, None


def _validated(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
    return _size(known, args[0]).times(TRAVERSAL).times(FORMAT_PATTERN * PATTERN), None


def _allocated(factor: float, *, squared: bool = False, argument: bool = False) -> Rule:
    """A call that makes a list as long as the one it is about."""

    def rule(known: Estimator, target: Expr | None, args: list[Expr], overload: str) -> Found | None:
        node = args[0] if argument else target
        if node is None:
            return None
        size = _size(known, node)
        size = size * size if squared else size
        texts = "string" in overload or "bytes" in overload
        cost = size.times(factor + (TRAVERSAL if squared and texts else 0)) + ONE + fixed(LIST_COST)
        return cost, size

    return rule


def _whole(node: Expr, otherwise: int) -> int:
    value = node.value if isinstance(node, Literal) else None
    return max(value, 0) if type(value) is int else otherwise


def _sliced(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None:
        return None
    length = max(_whole(args[1], _size(known, target).most) - _whole(args[0], 0), 0)
    return fixed(length) + ONE + fixed(LIST_COST), fixed(length)


def _ranged(_: Estimator, __: Expr | None, args: list[Expr], ___: str) -> Found | None:
    length = _whole(args[0], ANY.most)
    return fixed(length) + ONE + fixed(LIST_COST), fixed(length)


def _flattened(known: Estimator, target: Expr | None, args: list[Expr], _: str) -> Found | None:
    if target is None:
        return None
    size = _size(known, target)
    return size.times(_whole(args[0], ANY.most) if args else 1) + ONE + fixed(LIST_COST), size


def _sets(factor: int) -> Rule:
    def rule(known: Estimator, _: Expr | None, args: list[Expr], __: str) -> Found | None:
        return (_size(known, args[0]) * _size(known, args[1])).times(factor) + ONE, None

    return rule


def _constant(cost: int) -> Rule:
    def rule(*_: Any) -> Found | None:
        return fixed(cost), None

    return rule


_COMPARABLE: Final = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_BY_ID: Final[dict[str, Rule]] = {
    "string_format": _through(1), "string_to_bytes": _bytes, "bytes_to_string": _bytes, "strings_quote": _quoted,
    "starts_with_string": _argument, "ends_with_string": _argument, "in_list": _in_list, "matches_string": _matched,
    "contains_string": _contained, "equals": _equal, "not_equals": _compared, "cidr_ip": _constant(1),
    **{f"{name}_{kind}": _compared for name in ("less", "less_equals", "greater", "greater_equals")
       for kind in ("string", "bytes")},
    "list_slice": _sliced, "list_flatten": _flattened, "list_flatten_int": _flattened, "lists_range": _ranged,
    "list_reverse": _allocated(1), "list_distinct": _allocated(2, squared=True),
    **{f"list_{name}_sort": _allocated(2, squared=True) for name in _COMPARABLE},
    **{f"list_{name}_sortByAssociatedKeys": _allocated(2, squared=True, argument=True) for name in _COMPARABLE},
    "list_sets_contains_list": _sets(1), "list_sets_intersects_list": _sets(1), "list_sets_equivalent_list": _sets(2),
}  # fmt: skip
_BY_NAME: Final[dict[str, Rule]] = {
    "check": _constant(CHECK_COST), "fieldSelector": _selector, "labelSelector": _selector,
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _walked),
    **dict.fromkeys(("url", "jsonpatch.escapeKey", "lowerAscii", "upperAscii", "substring", "trim"),
                    _through(1, sized=True)),
    **dict.fromkeys(("cidr", "isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver"), _through(1)),
    "ip.isCanonical": _through(2), "replace": _replaced, "split": _split, "join": _joined, "find": _matched,
    "findAll": _matched, "containsIP": _contains_ip, "containsCIDR": _contains_cidr, "validate": _validated,
}  # fmt: skip
