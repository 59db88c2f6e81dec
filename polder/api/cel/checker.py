"""The type of every node, which overloads each call may mean, and what is wrong. Messages are in upstream's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from polder.api.cel import unify
from polder.api.cel.ast import Call, Expr, Fold, Ident, ListNode, Literal, MapNode, Select, StructNode
from polder.api.cel.functions import Overload
from polder.api.cel.source import Problem
from polder.api.cel.types import (
    BOOL,
    DYN,
    ERROR,
    INT,
    NAMED,
    STRING,
    CelType,
    Family,
    list_of,
    map_of,
    optional_of,
    struct,
    type_of,
)
from polder.api.cel.values import type_name

JSON_PATCH = struct("JSONPatch", {"op": STRING, "path": STRING, "from": STRING, "value": DYN})


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name: variables, functions, and whether it may make Kubernetes objects."""

    variables: Mapping[str, CelType]
    functions: Mapping[str, tuple[Overload, ...]]
    makes_objects: bool = False

    def made(self, name: str) -> CelType | None:
        """The object type of that name that an expression may construct."""
        if not self.makes_objects:
            return None
        if name == "JSONPatch":
            return JSON_PATCH
        return struct(name) if name == "Object" or name.startswith("Object.") else None

    def type_named(self, name: str) -> CelType | None:
        """The type that a name stands for."""
        return NAMED.get(name) or self.made(name)


@dataclass(slots=True)
class Checked:
    """What the checker found out."""

    types: dict[Expr, CelType] = field(default_factory=dict)
    overloads: dict[Expr, tuple[Overload, ...]] = field(default_factory=dict)
    constants: dict[Expr, CelType] = field(default_factory=dict)
    """Names that stand for types."""
    functions: dict[Expr, str] = field(default_factory=dict)
    """Calls whose target is a part of the function's name: the whole name."""
    dotted: dict[Expr, str] = field(default_factory=dict)
    """Selections that are the name of a variable with dots in it."""


class Checker:
    """One expression's check. ``problems`` is empty afterwards if it is well typed."""

    def __init__(self, scope: Scope) -> None:
        self.problems: list[Problem] = []
        self.found = Checked()
        self._scope = scope
        self._known = unify.Mapping()
        self._locals: list[dict[str, CelType]] = []

    def run(self, node: Expr) -> CelType:
        """The type of the whole expression."""
        self._check(node)
        types = self.found.types
        for each, kind in types.items():
            types[each] = self._known.resolve(kind, final=True)
        return types[node]

    def _fail(self, at: int, message: str) -> None:
        self.problems.append(Problem(at, message))

    def _undeclared(self, at: int, name: str) -> CelType:
        self._fail(at, f"undeclared reference to '{name}' (in container '')")
        return ERROR

    def _check(self, node: Expr) -> CelType:
        match node:
            case Literal():
                kind = NAMED[type_name(node.value)]
            case Ident():
                kind = self._ident(node, node.name)
            case Select():
                kind = self._select(node)
            case Call():
                kind = self._call(node)
            case ListNode():
                kind = self._list(node)
            case MapNode():
                kind = self._map(node)
            case StructNode():
                kind = self._struct(node)
            case Fold():
                kind = self._fold(node)
            case _:
                raise AssertionError(node)
        self.found.types[node] = kind
        return kind

    def _variable(self, name: str) -> CelType | None:
        if not name.startswith("."):
            for scope in reversed(self._locals):
                if name in scope:
                    return scope[name]
        return self._scope.variables.get(name.removeprefix("."))

    def _ident(self, node: Expr, name: str) -> CelType:
        kind = self._variable(name)
        if kind is not None:
            return kind
        named = self._scope.type_named(name.removeprefix("."))
        if named is None:
            return self._undeclared(node.at, name)
        self.found.constants[node] = named
        return type_of(named)

    # --- fields -------------------------------------------------------------------------------------------------------

    def _select(self, node: Select) -> CelType:
        name = _dotted(node)
        if name in self._scope.variables and not any(name.partition(".")[0] in scope for scope in self._locals):
            self.found.dotted[node] = name
            return self._scope.variables[name]
        if name and "." in name and self._variable(name.partition(".")[0]) is None:
            named = self._scope.type_named(name)
            if named is not None:
                self.found.constants[node] = named
                return type_of(named)
        operand = self._known.resolve(self._check(node.operand))
        kind = self._field(node, operand, node.field)
        if node.test:
            return BOOL
        return optional_of(kind) if operand.is_optional or node.optional else kind

    def _field(self, node: Expr, operand: CelType, name: str) -> CelType:
        target = operand.params[0] if operand.is_optional else operand
        if target.family is Family.MAP:
            return self._known.resolve(target.params[1])
        if target.family is Family.STRUCT:
            if target.fields is None:
                return DYN
            kind = target.fields.get(name)
            if kind is None:
                self._fail(node.at, f"undefined field '{name}'")
                return ERROR
            return kind
        if target.family is Family.PARAM:
            self._known.assignable([DYN], [target])
        elif target.family not in (Family.DYN, Family.ERROR):
            self._fail(node.at, f"type '{target}' does not support field selection")
        return DYN

    # --- calls --------------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> CelType:
        args = [self._check(arg) for arg in node.args]
        if node.target is None:
            name = node.name.removeprefix(".")
            overloads = self._scope.functions.get(name)
            return self._undeclared(node.at, node.name) if overloads is None else self._resolve(node, overloads, args)
        prefix = _dotted(node.target)
        if prefix:
            whole = f"{prefix.removeprefix('.')}.{node.name}"
            overloads = self._scope.functions.get(whole)
            if overloads is not None:
                self.found.functions[node] = whole
                return self._resolve(node, overloads, args)
        target = self._check(node.target)
        overloads = self._scope.functions.get(node.name)
        if overloads is None:
            return self._undeclared(node.at, node.name)
        return self._resolve(node, overloads, [target, *args])

    def _resolve(self, node: Call, overloads: tuple[Overload, ...], args: list[CelType]) -> CelType:
        name = self.found.functions.get(node, node.name)
        is_member = node.target is not None and node not in self.found.functions
        if name in ("_&&_", "_||_"):
            return self._logical(node, overloads, args)
        chosen: list[Overload] = []
        result: CelType | None = None
        for overload in overloads:
            if overload.member is not is_member:
                continue
            made, *wanted = unify.instantiated((overload.result, *overload.args), overload.generic, self._known)
            if not self._known.assignable(args, wanted):
                continue
            chosen.append(overload)
            kind = self._known.resolve(made)
            if result is None:
                result = kind
            elif not result.is_dyn and kind != result:
                result = DYN
        if result is None:
            shown = [str(self._known.resolve(arg, final=True)) for arg in args]
            signature = f"{shown[0]}.({', '.join(shown[1:])})" if is_member else f"({', '.join(shown)})"
            self._fail(node.at, f"found no matching overload for '{name}' applied to '{signature}'")
            return ERROR
        self.found.overloads[node] = tuple(chosen)
        return result

    def _logical(self, node: Call, overloads: tuple[Overload, ...], args: list[CelType]) -> CelType:
        self.found.overloads[node] = overloads
        fine = True
        for arg, kind in zip(node.args, args, strict=True):
            if not self._known.assignable([kind], [BOOL]):
                self._mismatch(arg, BOOL, kind)
                fine = False
        return BOOL if fine else ERROR

    def _mismatch(self, node: Expr, wanted: CelType, kind: CelType) -> None:
        self._fail(node.at, f"expected type '{wanted}' but found '{self._known.resolve(kind)}'")

    # --- literals -----------------------------------------------------------------------------------------------------

    def _joined(self, node: Expr, before: CelType | None, kind: CelType) -> CelType:
        if before is None:
            return kind
        if self._known.assignable([before], [kind]):
            return unify.most_general(before, kind)
        self._mismatch(node, self._known.resolve(before), kind)
        return ERROR

    def _unwrapped(self, node: Expr, kind: CelType) -> CelType:
        """The type inside an optional, for an entry with a question mark."""
        if kind.is_optional:
            return kind.params[0]
        if kind.family not in (Family.DYN, Family.ERROR):
            self._mismatch(node, optional_of(kind), kind)
        return kind

    def _list(self, node: ListNode) -> CelType:
        item: CelType | None = None
        for place, each in enumerate(node.items):
            kind = self._check(each)
            item = self._joined(each, item, self._unwrapped(each, kind) if place in node.optional else kind)
        return list_of(item if item is not None else self._known.new())

    def _map(self, node: MapNode) -> CelType:
        key_kind: CelType | None = None
        value_kind: CelType | None = None
        for key, value, optional in node.entries:
            key_kind = self._joined(key, key_kind, self._check(key))
            kind = self._check(value)
            value_kind = self._joined(value, value_kind, self._unwrapped(value, kind) if optional else kind)
        return map_of(key_kind or self._known.new(), value_kind or self._known.new())

    def _struct(self, node: StructNode) -> CelType:
        made = self._scope.made(node.name.removeprefix("."))
        if made is None:
            known = self._scope.type_named(node.name)
            if known is not None:
                self._fail(node.at, f"'{known.name}' is not a message type")
            return self._undeclared(node.at, node.name) if known is None else ERROR
        for (name, value, optional), place in zip(node.entries, node.places, strict=True):
            kind = self._check(value)
            kind = self._unwrapped(value, kind) if optional else kind
            wanted = DYN if made.fields is None else made.fields.get(name)
            if wanted is None:
                self._fail(place, f"undefined field '{name}'")
            elif not self._known.assignable([wanted], [kind]):
                why = f"expected type of field '{name}' is '{wanted}' but provided type is '{kind}'"
                self._fail(place, why)
        return made

    # --- comprehensions -----------------------------------------------------------------------------------------------

    def _fold(self, node: Fold) -> CelType:
        over = self._known.resolve(self._check(node.over))
        start = self._check(node.start)
        first, second = self._iterated(node, over)
        self._locals.append({node.accumulator: start})
        self._locals.append({node.first: first, node.second: second} if node.second else {node.first: first})
        self._asserted(node.condition, BOOL)
        self._asserted(node.step, start)
        self._locals.pop()
        result = self._check(node.result)
        self._locals.pop()
        return self._known.resolve(result)

    def _asserted(self, node: Expr, wanted: CelType) -> None:
        kind = self._check(node)
        if not self._known.assignable([wanted], [kind]):
            self._mismatch(node, self._known.resolve(wanted), kind)

    def _iterated(self, node: Fold, over: CelType) -> tuple[CelType, CelType]:
        """The types of the variables."""
        match over.family:
            case Family.LIST:
                return (INT, over.params[0]) if node.second else (over.params[0], ERROR)
            case Family.MAP:
                return over.params[0], over.params[1]
            case Family.DYN | Family.ERROR:
                return DYN, DYN
            case Family.PARAM:
                self._known.assignable([DYN], [over])
                return DYN, DYN
        why = f"expression of type '{over}' cannot be range of a comprehension (must be list, map, or dynamic)"
        self._fail(node.over.at, why)
        return ERROR, ERROR


def _dotted(node: Expr) -> str:
    """``a.b.c`` of plain selections; empty for anything else."""
    names: list[str] = []
    while isinstance(node, Select) and not node.test and not node.optional:
        names.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(names)])
