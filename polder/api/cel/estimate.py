"""The most that an expression may cost, known before it runs.

Source: upstream's checker/cost and Kubernetes' estimator (facts only). Sizes come from the declared types of variables; where
nothing is known a size is without bound, and so is what is computed from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from polder.api.cel.ast import Call, Expr, Fold, Ident, ListNode, Literal, MapNode, Select, StructNode
from polder.api.cel.costs import LIST_COST, MAP_COST, STRUCT_COST
from polder.api.cel.functions import Overload
from polder.api.cel.program import Program
from polder.api.cel.ranges import ANY, NOTHING, ONE, ZERO, Range, fixed
from polder.api.cel.types import CelType, Family
from polder.api.cel.values import size

Path = tuple[str, ...]
_SCALARS: Final = frozenset({"bool", "double", "duration", "int", "timestamp", "uint"})
_WITH_SIZE: Final = frozenset({"string", "bytes", "duration", "timestamp"})


@dataclass(frozen=True, slots=True)
class Entry:
    """The sizes of the keys and values of a container."""

    is_list: bool
    key: Range
    value: Range


@dataclass(frozen=True, slots=True)
class Local:
    """What is known of a variable of a comprehension."""

    path: Path | None
    size: Range | None = None
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Sized:
    """An argument of a call: what is known of its size and type."""

    node: Expr
    kind: CelType
    path: Path | None
    size: Range | None


class Estimator:
    """Estimates one program over variables of these types."""

    def __init__(self, program: Program, variables: Mapping[str, CelType]) -> None:
        assert program.checked is not None and program.tree is not None
        self._checked = program.checked
        self._tree = program.tree
        self._variables = variables
        self._paths: dict[Expr, Path | None] = {}
        self._sizes: dict[Expr, Range] = {}
        self._entries: dict[Expr, Entry] = {}
        self._locals: dict[str, list[Local]] = {}

    def run(self) -> Range:
        """The cost of the whole expression."""
        return self._cost(self._tree)

    # --- sizes --------------------------------------------------------------------------------------------------------

    def declared(self, path: Path | None) -> Range | None:
        """The size of what a path from a variable leads to; None if there is no such declaration."""
        if not path or path[0] not in self._variables:
            return None
        kind = self._variables[path[0]]
        for name in path[1:]:
            if name in ("@items", "@values") and kind.family in (Family.LIST, Family.MAP):
                kind = kind.params[-1]
            elif name == "@keys" and kind.family is Family.MAP:
                kind = kind.params[0]
            elif kind.family is Family.STRUCT and kind.fields is not None and name in kind.fields:
                kind = kind.fields[name]
            else:
                return None
        if kind.family in (Family.LIST, Family.MAP, Family.DYN) or kind.name in _WITH_SIZE:
            return None if kind.size is None else Range(0, kind.size)
        return ZERO

    def path(self, node: Expr) -> Path | None:
        """The path of an expression that only goes down from a variable."""
        if isinstance(node, Ident) and self._locals.get(node.name):
            return self._locals[node.name][-1].path
        return self._paths.get(node)

    def size(self, node: Expr) -> Range | None:
        """What is known of a value's size."""
        if node in self._sizes:
            return self._sizes[node]
        if isinstance(node, Literal):
            found = size(node.value)
            return fixed(1 if found is None else found)
        if isinstance(node, ListNode):
            return fixed(len(node.items))
        if isinstance(node, MapNode):
            return fixed(len(node.entries))
        declared = self.declared(self.path(node))
        if declared is not None:
            self._sizes[node] = declared
            return declared
        if _is_scalar(self._checked.types[node]):
            return ONE
        if isinstance(node, Ident) and self._locals.get(node.name):
            return self._locals[node.name][-1].size
        return None

    def sized(self, node: Expr) -> Sized:
        """What is known of an argument."""
        return Sized(node, self._checked.types[node], self.path(node), self.size(node))

    def any_size(self, node: Expr) -> Range:
        """The size, or without bound."""
        return self.size(node) or ANY

    def entry(self, node: Expr) -> Entry | None:
        """What is known of what a container holds."""
        if node in self._entries:
            return self._entries[node]
        if isinstance(node, Ident) and self._locals.get(node.name):
            return self._locals[node.name][-1].entry
        return None

    def overloads(self, node: Call) -> tuple[Overload, ...]:
        """What a call may mean."""
        return self._checked.overloads[node]

    def set_entry(self, node: Expr, entry: Entry | None) -> None:
        """Notes what a container holds."""
        if entry is not None:
            self._entries[node] = entry

    # --- costs --------------------------------------------------------------------------------------------------------

    def _cost(self, node: Expr) -> Range:
        match node:
            case Literal():
                return NOTHING
            case Ident():
                known = self._locals.get(node.name)
                self._paths[node] = known[-1].path if known else (node.name.removeprefix("."),)
                return ONE
            case Select():
                return self._select(node)
            case Call():
                return self._call(node)
            case ListNode():
                return self._list(node)
            case MapNode():
                return self._map(node)
            case StructNode():
                parts = [self._cost(value) for _, value, _ in node.entries]
                return sum(parts, fixed(STRUCT_COST))
            case Fold():
                return self._bind(node) if node.is_bind else self._fold(node)
        raise AssertionError(node)

    def _select(self, node: Select) -> Range:
        if node in self._checked.constants:
            return ONE
        found = self._cost(node.operand)
        if node.test:
            return found
        target = self._checked.types[node.operand]
        if target.family in (Family.MAP, Family.STRUCT, Family.PARAM):
            found += ONE
        above = self.path(node.operand)
        self._paths[node] = (*above, node.field) if above is not None else None
        return found

    def _call(self, node: Call) -> Range:
        from polder.api.cel.estimate_calls import call_range

        args = list(node.args)
        costs = [self._cost(arg) for arg in args]
        name = self._checked.functions.get(node, node.name.removeprefix("."))
        if name == "dyn":
            known = self.size(args[0])
            if known is not None:
                self._sizes[node] = known
            self.set_entry(node, self.entry(args[0]))
            return costs[0] + ONE
        total, target = NOTHING, None
        if node.target is not None and node not in self._checked.functions:
            total = self._cost(node.target)
            target = node.target
        found = Range(ANY.most, 0)
        result: Range | None = None
        for overload in self._checked.overloads[node]:
            cost, made = call_range(self, (node, name, overload.id), target, args, costs)
            found = found.union(cost)
            if made is not None:
                result = made if result is None else result.union(made)
            if overload.id in ("index_list", "index_map"):
                inner = self.entry(args[0])
                result = inner.value if inner is not None else None
                above = self.path(args[0])
                step = "@items" if overload.id == "index_list" else "@values"
                self._paths[node] = (*above, step) if above is not None else None
            if result is None:
                result = self.size(node)
        if result is not None:
            self._sizes[node] = result
        return total + found

    def _list(self, node: ListNode) -> Range:
        total, item = NOTHING, Range(ANY.most, 0) if node.items else ZERO
        for each in node.items:
            total += self._cost(each)
            item = item.union(self.any_size(each))
        self._entries[node] = Entry(True, ONE, item)
        return total + fixed(LIST_COST)

    def _map(self, node: MapNode) -> Range:
        total = NOTHING
        key = value = Range(ANY.most, 0) if node.entries else ZERO
        for each_key, each_value, _ in node.entries:
            total += self._cost(each_key) + self._cost(each_value)
            key, value = key.union(self.any_size(each_key)), value.union(self.any_size(each_value))
        self._entries[node] = Entry(False, key, value)
        return total + fixed(MAP_COST)

    # --- comprehensions -----------------------------------------------------------------------------------------------

    def _push(self, name: str, local: Local) -> None:
        self._locals.setdefault(name, []).append(local)

    def _iterated(self, node: Fold) -> dict[str, Local]:
        """What is known of the variables."""
        entry, above = self.entry(node.over), self.path(node.over)
        is_list = entry.is_list if entry else self._checked.types[node.over].family is Family.LIST

        def local(step: str, known: Range | None) -> Local:
            return Local((*above, step) if above is not None else None, known)

        key = local("@indices" if is_list else "@keys", entry.key if entry else None)
        value = local("@items" if is_list else "@values", entry.value if entry else None)
        if node.second:
            return {node.first: key, node.second: value}
        return {node.first: value if is_list else key}

    def _fold(self, node: Fold) -> Range:
        total = self._cost(node.over) + self._cost(node.start)
        self._push(node.accumulator, Local(None, self.size(node.start), self.entry(node.start)))
        variables = self._iterated(node)
        for name, local in variables.items():
            self._push(name, local)
        loop = self._cost(node.condition) + self._cost(node.step)
        for name in variables:
            self._locals[name].pop()
        total += self._cost(node.result)
        self._locals[node.accumulator].pop()
        count = self.any_size(node.over)
        if isinstance(node.start, Literal):
            self._sizes[node] = self.any_size(node.start)
        elif isinstance(node.start, ListNode | MapNode):
            self._sizes[node] = count
            self.set_entry(node, self.entry(node.step))
        return total + count * loop

    def _bind(self, node: Fold) -> Range:
        total = self._cost(node.over) + self._cost(node.start)
        self._push(node.accumulator, Local(self.path(node.start), self.size(node.start), self.entry(node.start)))
        total += self._cost(node.result)
        self._locals[node.accumulator].pop()
        known = self.size(node.result)
        if known is not None:
            self._sizes[node] = known
        self.set_entry(node, self.entry(node.result))
        return total


def _is_scalar(kind: CelType) -> bool:
    return kind.name in _SCALARS or (kind.is_optional and _is_scalar(kind.params[0]))


def max_cost(program: Program, variables: Mapping[str, CelType]) -> int:
    """The most that a program may cost, at most 2**64-1."""
    return Estimator(program, variables).run().most
