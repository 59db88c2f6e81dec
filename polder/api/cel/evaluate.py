"""The syntax tree as closures that compute values and count costs.

Costs are those of upstream's tracker: 1 for a variable and each field, function calls by ``costs.call_cost``, 10, 30 and 40
for making a list, map and object; ``has`` is free. An error is an exception (``Fault``), which ``&&`` and ``||`` absorb as the
language asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polder.api.cel import values
from polder.api.cel.access import optional_select, present, select
from polder.api.cel.ast import (
    ACCUMULATOR,
    Call,
    Expr,
    Fold,
    Ident,
    ListNode,
    Literal,
    MapNode,
    Select,
    StructNode,
)
from polder.api.cel.checker import Checked
from polder.api.cel.costs import LIST_COST, MAP_COST, STRUCT_COST
from polder.api.cel.errors import Fault, no_such_overload
from polder.api.cel.operators import SPECIAL, Frame, Pending, Run, alternative, dispatch, equality, raised, truth
from polder.api.cel.types import CelType
from polder.api.cel.values import DynamicObject, Optional, TypeValue, type_name

Names = Mapping[str, str]
"""Names in scope that are local, and the keys under which their values are kept."""


class Planner:
    """Makes closures of one checked expression."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked
        self._count = 0

    def plan(self, node: Expr, names: Names) -> Run:
        """What computes the node."""
        constant = self._checked.constants.get(node)
        if constant is not None:
            return _constant(TypeValue(type_name_of(constant)))
        match node:
            case Literal():
                return _constant(node.value)
            case Ident():
                return _variable(names.get(node.name, node.name.removeprefix(".")))
            case Select():
                dotted = self._checked.dotted.get(node)
                return self._select(node, names) if dotted is None else _variable(dotted)
            case Call():
                return self._call(node, names)
            case ListNode():
                return self._list(node, names)
            case MapNode():
                return self._map(node, names)
            case StructNode():
                return self._struct(node, names)
            case Fold():
                return self._bind(node, names) if node.is_bind else self._fold(node, names)
        raise AssertionError(node)

    def _select(self, node: Select, names: Names) -> Run:
        operand, field = self.plan(node.operand, names), node.field
        if node.test:
            return lambda frame: present(operand(frame), field)
        choose = optional_select if node.optional else select

        def run(frame: Frame) -> Any:
            found = choose(operand(frame), field)
            frame.meter.cost += 1
            return found

        return run

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, node: Call, names: Names) -> Run:
        args = [self.plan(arg, names) for arg in node.args]
        special = SPECIAL.get(node.name) if node.target is None else None
        if special is not None:
            return special(*args)
        name = self._checked.functions.get(node, node.name.removeprefix("."))
        if node.target is not None and node not in self._checked.functions:
            args.insert(0, self.plan(node.target, names))
        if name in ("orValue", "or"):
            return alternative(args[0], args[1], unwraps=name == "orValue")
        if name in ("_==_", "_!=_"):
            return equality(args, wanted=name == "_==_")
        return dispatch(name, self._checked.overloads[node], args)

    # --- literals -----------------------------------------------------------------------------------------------------

    def _list(self, node: ListNode, names: Names) -> Run:
        items = [(self.plan(item, names), place in node.optional) for place, item in enumerate(node.items)]

        def run(frame: Frame) -> Any:
            found: list[Any] = []
            for item, optional in items:
                value = item(frame)
                if not optional:
                    found.append(value)
                elif not isinstance(value, Optional):
                    raise Fault("cannot initialize optional list element from non-optional value")
                elif value.there:
                    found.append(value.value)
            frame.meter.cost += LIST_COST
            return found

        return run

    def _map(self, node: MapNode, names: Names) -> Run:
        entries = [(self.plan(k, names), self.plan(v, names), optional) for k, v, optional in node.entries]

        def run(frame: Frame) -> Any:
            found: dict[Any, Any] = {}
            for key_run, value_run, optional in entries:
                key, value = key_run(frame), _given(value_run(frame), optional)
                if type(key) not in _KEYS:
                    raise Fault(f"unsupported key type: {type_name(key)}")
                if key in found:
                    raise Fault(f"Failed with repeated key {key}")
                if value.there:
                    found[key] = value.value
            frame.meter.cost += MAP_COST
            return found

        return run

    def _struct(self, node: StructNode, names: Names) -> Run:
        entries = [(name, self.plan(value, names), optional) for name, value, optional in node.entries]
        type_named = node.name.removeprefix(".")

        def run(frame: Frame) -> Any:
            found: dict[str, Any] = {}
            for name, value_run, optional in entries:
                value = _given(value_run(frame), optional)
                if value.there:
                    found[name] = value.value
            frame.meter.cost += STRUCT_COST
            return DynamicObject(type_named, found)

        return run

    # --- comprehensions -----------------------------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        self._count += 1
        return f"{name}#{self._count}"

    def _bind(self, node: Fold, names: Names) -> Run:
        key = self._key(node.accumulator)
        start, result = self.plan(node.start, names), self.plan(node.result, {**names, node.accumulator: key})

        def run(frame: Frame) -> Any:
            frame.vars[key] = start(frame)
            frame.meter.cost += LIST_COST
            frame.meter.check()
            return result(frame)

        return run

    def _fold(self, node: Fold, names: Names) -> Run:
        accumulator, first = self._key(ACCUMULATOR), self._key(node.first)
        second = self._key(node.second) if node.second else ""
        outer = {**names, node.accumulator: accumulator}
        inner = {**outer, node.first: first, **({node.second: second} if second else {})}
        over, start = self.plan(node.over, names), self.plan(node.start, names)
        condition, step = self.plan(node.condition, inner), self._step(node, inner, accumulator)
        result = self.plan(node.result, outer)
        always = isinstance(node.condition, Literal)

        def run(frame: Frame) -> Any:
            given = over(frame)
            pairs = values.iterate(given)
            if pairs is None:
                raise no_such_overload()
            single = values.as_list(given) is not None
            variables, meter = frame.vars, frame.meter
            variables[accumulator] = start(frame)
            for key, value in pairs:
                if second:
                    variables[first], variables[second] = key, value
                else:
                    variables[first] = value if single else key
                if meter.cost > meter.low:
                    meter.check()
                if not always and not condition(frame):
                    break
                variables[accumulator] = step(frame)
            found = result(frame)
            return raised(found)

        return run

    def _step(self, node: Fold, names: Names, accumulator: str) -> Run:
        """The loop's step: items are put at the end of the list that is being made instead of copying it each time, and an
        error of ``all`` and ``exists`` waits for what the rest says.
        """
        step = node.step
        if isinstance(node.start, ListNode | MapNode):
            if isinstance(step, Call) and step.name == "_?_:_":
                chosen, grow = self.plan(step.args[0], names), self._append(step.args[1], names, accumulator)
                return lambda frame: grow(frame) if truth(chosen(frame)) else _kept(frame, accumulator)
            return self._append(step, names, accumulator)
        plain = self.plan(step, names)
        if isinstance(node.start, Literal) and type(node.start.value) is bool:

            def run(frame: Frame) -> Any:
                try:
                    return plain(frame)
                except Fault as fault:
                    return Pending(fault)

            return run
        return plain

    def _append(self, step: Expr, names: Names, accumulator: str) -> Run:
        assert isinstance(step, Call)
        if step.name == "cel.@mapInsert":
            return _inserting([self.plan(arg, names) for arg in step.args[1:]], accumulator)
        assert isinstance(step.args[1], ListNode)
        item = self.plan(step.args[1].items[0], names)

        def run(frame: Frame) -> Any:
            value = item(frame)
            found = frame.vars[accumulator]
            found.append(value)
            frame.meter.cost += 2 + LIST_COST
            return found

        return run


def _inserting(parts: list[Run], accumulator: str) -> Run:
    """Puts a key and value, or all entries of a map, into the map that is being made."""

    def run(frame: Frame) -> Any:
        given = [part(frame) for part in parts]
        found = frame.vars[accumulator]
        frame.meter.cost += 2
        entries = [(given[0], given[1])] if len(given) == 2 else _entries(given[0])
        frame.meter.work(len(entries) // 8)
        for key, value in entries:
            if key in found:
                raise Fault(f"insert failed: key {key} already exists")
            found[key] = value
        return found

    return run


def _entries(value: Any) -> list[tuple[Any, Any]]:
    if not values.is_map(value):
        raise no_such_overload("cel.@mapInsert", "map", type_name(value))
    return [(key, values.map_find(value, key).value) for key in values.map_keys(value)]


def _kept(frame: Frame, accumulator: str) -> Any:
    frame.meter.cost += 1
    return frame.vars[accumulator]


_KEYS = (str, int, bool, values.UInt)


def _given(value: Any, optional: bool) -> Optional:
    if not optional:
        return Optional(True, value)
    if not isinstance(value, Optional):
        raise Fault("cannot initialize optional entry from non-optional value")
    return value


def type_name_of(kind: CelType) -> str:
    """The name under which a type compares with what ``type()`` says."""
    return kind.name


def _constant(value: Any) -> Run:
    return lambda _: value


def _variable(key: str) -> Run:
    def run(frame: Frame) -> Any:
        frame.meter.cost += 1
        try:
            return frame.vars[key]
        except KeyError:
            raise Fault(f"no such attribute(s): {key}") from None

    return run
