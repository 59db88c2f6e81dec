"""Macros: has, all, exists, exists_one, map, filter, their forms with two variables, optMap, optFlatMap, sortBy.

Source: CEL's language definition, "Macros", and the extensions that Kubernetes 1.36 enables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from polder.api.cel.ast import ACCUMULATOR, Call, Expr, Fold, Ident, ListNode, Literal, MapNode, Select, copy
from polder.api.cel.source import Problem

_SORT_INPUT: Final = "@__sortBy_input__"
_TARGET: Final = "#optMapTarget"
UNUSED: Final = "#unused"


def expand(call: Call) -> Expr:
    """The call, or what the macro of this name and number of arguments makes of it. Raises Problem."""
    if call.target is None:
        return _has(call) if call.name == "has" and len(call.args) == 1 else call
    macro = _MACROS.get((call.name, len(call.args)))
    return macro(call, call.target) if macro is not None else call


def _has(call: Call) -> Expr:
    arg = call.args[0]
    if not isinstance(arg, Select) or arg.optional or arg.test:
        raise Problem(arg.at, "invalid argument to has() macro")
    return Select(call.at, arg.operand, arg.field, test=True)


def _accu(at: int) -> Ident:
    return Ident(at, ACCUMULATOR)


def _op(at: int, name: str, *args: Expr) -> Call:
    return Call(at, name, None, list(args))


def _name(arg: Expr, problem: str = "argument must be a simple name") -> str:
    if not isinstance(arg, Ident) or arg.name.startswith("."):
        raise Problem(arg.at, problem)
    if arg.name in (ACCUMULATOR, "__result__"):
        raise Problem(arg.at, "iteration variable overwrites accumulator variable")
    return arg.name


def _variables(args: list[Expr], two: bool) -> tuple[str, str]:
    first = _name(args[0])
    second = _name(args[1]) if two else ""
    if first == second:
        raise Problem(args[1].at, f"duplicate variable name: {first}")
    return first, second


def _fold(call: Call, over: Expr, names: tuple[str, str], parts: tuple[Expr, Expr, Expr, Expr]) -> Fold:
    return Fold(call.at, over, *names, ACCUMULATOR, *parts)


def _quantifier(call: Call, over: Expr) -> Expr:
    names = _variables(call.args, len(call.args) == 3)
    at, predicate = call.at, call.args[-1]
    if call.name == "all":
        goes_on: Expr = _op(at, "@not_strictly_false", _accu(at))
        parts = (Literal(at, True), goes_on, _op(at, "_&&_", _accu(at), predicate), _accu(at))
    elif call.name == "exists":
        goes_on = _op(at, "@not_strictly_false", _op(at, "!_", _accu(at)))
        parts = (Literal(at, False), goes_on, _op(at, "_||_", _accu(at), predicate), _accu(at))
    else:
        plus = _op(at, "_+_", _accu(at), Literal(at, 1))
        step = _op(at, "_?_:_", predicate, plus, _accu(at))
        parts = (Literal(at, 0), Literal(at, True), step, _op(at, "_==_", _accu(at), Literal(at, 1)))  # type: ignore[assignment]
    return _fold(call, over, names, parts)


def _gathered(call: Call, over: Expr, names: tuple[str, str], chosen: Expr | None, item: Expr) -> Expr:
    at = call.at
    step: Expr = _op(at, "_+_", _accu(at), ListNode(at, [item]))
    if chosen is not None:
        step = _op(at, "_?_:_", chosen, step, _accu(at))
    return _fold(call, over, names, (ListNode(at, []), Literal(at, True), step, _accu(at)))


def _map(call: Call, over: Expr) -> Expr:
    name = _name(call.args[0], "argument is not an identifier")
    chosen = call.args[1] if len(call.args) == 3 else None
    return _gathered(call, over, (name, ""), chosen, call.args[-1])


def _filter(call: Call, over: Expr) -> Expr:
    name = _name(call.args[0], "argument is not an identifier")
    return _gathered(call, over, (name, ""), call.args[1], Ident(call.args[0].at, name))


def _transform_list(call: Call, over: Expr) -> Expr:
    names = _variables(call.args, True)
    chosen = call.args[2] if len(call.args) == 4 else None
    return _gathered(call, over, names, chosen, call.args[-1])


def _transform_map(call: Call, over: Expr) -> Expr:
    names = _variables(call.args, True)
    at = call.at
    key = [Ident(at, names[0])] if call.name == "transformMap" else []
    step: Expr = _op(at, "cel.@mapInsert", _accu(at), *key, call.args[-1])
    if len(call.args) == 4:
        step = _op(at, "_?_:_", call.args[2], step, _accu(at))
    return _fold(call, over, names, (MapNode(at, []), Literal(at, True), step, _accu(at)))


def _bound(at: int, name: str, value: Expr, result: Expr) -> Fold:
    return Fold(at, ListNode(at, []), UNUSED, "", name, value, Literal(at, False), Ident(at, name), result)


def _opt_map(call: Call, target: Expr) -> Expr:
    if not isinstance(call.args[0], Ident):
        raise Problem(call.args[0].at, f"{call.name}() variable name must be a simple identifier")
    at, name = call.at, _name(call.args[0])
    inner: Expr = _bound(at, name, Call(at, "value", Ident(at, _TARGET), []), call.args[1])
    if call.name == "optMap":
        inner = Call(at, "optional.of", None, [inner])
    there = Call(at, "hasValue", Ident(at, _TARGET), [])
    chosen = _op(at, "_?_:_", there, inner, Call(at, "optional.none", None, []))
    return _bound(at, _TARGET, target, chosen)


def _sort_by(call: Call, target: Expr) -> Expr:
    if isinstance(target, Literal | MapNode):
        why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression"
        raise Problem(target.at, why)
    at = call.at
    given = Ident(at, _SORT_INPUT)
    keys = _map(call, copy(given))
    return _bound(at, _SORT_INPUT, target, Call(at, "@sortByAssociatedKeys", copy(given), [keys]))


_MACROS: Final[dict[tuple[str, int], Callable[[Call, Expr], Expr]]] = {
    **{(name, count): _quantifier for name in ("all", "exists", "exists_one", "existsOne") for count in (2, 3)},
    ("map", 2): _map,
    ("map", 3): _map,
    ("filter", 2): _filter,
    ("transformList", 3): _transform_list,
    ("transformList", 4): _transform_list,
    ("transformMap", 3): _transform_map,
    ("transformMap", 4): _transform_map,
    ("transformMapEntry", 3): _transform_map,
    ("transformMapEntry", 4): _transform_map,
    ("optMap", 2): _opt_map,
    ("optFlatMap", 2): _opt_map,
    ("sortBy", 2): _sort_by,
}
