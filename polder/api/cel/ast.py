"""The syntax tree of CEL, as the parser makes it (macros are expanded)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

ACCUMULATOR = "@result"
"""The variable in which macros gather their result."""


@dataclass(slots=True, eq=False)
class Expr:
    """One node; ``at`` is the offset in the expression that messages point to."""

    at: int


@dataclass(slots=True, eq=False)
class Literal(Expr):
    """A constant."""

    value: object


@dataclass(slots=True, eq=False)
class Ident(Expr):
    """A variable, or the name of a type. A leading dot is kept."""

    name: str


@dataclass(slots=True, eq=False)
class Select(Expr):
    """``operand.field``; ``test`` for ``has(operand.field)``; ``optional`` for ``operand.?field``."""

    operand: Expr
    field: str
    test: bool = False
    optional: bool = False


@dataclass(slots=True, eq=False)
class Call(Expr):
    """A function or operator (``_+_``), with a target for ``target.name(args)``."""

    name: str
    target: Expr | None
    args: list[Expr]


@dataclass(slots=True, eq=False)
class ListNode(Expr):
    """``[a, ?b]``; ``optional`` are the positions with a question mark."""

    items: list[Expr]
    optional: frozenset[int] = frozenset()


@dataclass(slots=True, eq=False)
class MapNode(Expr):
    """``{key: value, ?key: value}``."""

    entries: list[tuple[Expr, Expr, bool]]


@dataclass(slots=True, eq=False)
class StructNode(Expr):
    """``Name{field: value, ?field: value}``."""

    name: str
    entries: list[tuple[str, Expr, bool]]
    places: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Fold(Expr):
    """A comprehension: what macros become. ``second`` is the second variable, empty if there is one only."""

    over: Expr
    first: str
    second: str
    accumulator: str
    start: Expr
    condition: Expr
    step: Expr
    result: Expr

    @property
    def is_bind(self) -> bool:
        """Whether it only names a value."""
        return isinstance(self.over, ListNode) and not self.over.items and self.accumulator != ACCUMULATOR


def children(node: Expr) -> list[Expr]:
    """The nodes directly below, in the order of evaluation."""
    match node:
        case Select():
            return [node.operand]
        case Call():
            return [*([node.target] if node.target is not None else []), *node.args]
        case ListNode():
            return list(node.items)
        case MapNode():
            return [part for key, value, _ in node.entries for part in (key, value)]
        case StructNode():
            return [value for _, value, _ in node.entries]
        case Fold():
            return [node.over, node.start, node.condition, node.step, node.result]
        case _:
            return []


def copy(node: Expr) -> Expr:
    """A tree of the same form, of new nodes."""
    match node:
        case Literal():
            return Literal(node.at, node.value)
        case Ident():
            return Ident(node.at, node.name)
        case Select():
            return Select(node.at, copy(node.operand), node.field, node.test, node.optional)
        case Call():
            target = copy(node.target) if node.target is not None else None
            return Call(node.at, node.name, target, [copy(arg) for arg in node.args])
        case ListNode():
            return ListNode(node.at, [copy(item) for item in node.items], node.optional)
        case MapNode():
            return MapNode(node.at, [(copy(k), copy(v), opt) for k, v, opt in node.entries])
        case StructNode():
            return StructNode(node.at, node.name, [(k, copy(v), opt) for k, v, opt in node.entries], node.places)
        case Fold():
            parts = [copy(part) for part in children(node)]
            return Fold(node.at, parts[0], node.first, node.second, node.accumulator, *parts[1:])
        case _:
            raise AssertionError(node)


def walk(node: Expr, visit: Callable[[Expr], None]) -> None:
    """Calls ``visit`` with every node."""
    todo = [node]
    while todo:
        found = todo.pop()
        visit(found)
        todo.extend(children(found))
