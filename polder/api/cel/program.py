"""Compiling an expression and running it within a budget."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from polder.api.cel import (
    authorizer,
    lists,
    mutations,
    named_formats,
    network,
    optionals,
    quantities,
    regex,
    stdlib,
    texts,
    urls,
)
from polder.api.cel.ast import Call, Expr, Ident, ListNode, Literal, MapNode, walk
from polder.api.cel.checker import Checked, Checker, Scope
from polder.api.cel.errors import CelError, Fault
from polder.api.cel.evaluate import Planner
from polder.api.cel.functions import Overload, merged
from polder.api.cel.operators import Frame, Run
from polder.api.cel.parser import parse
from polder.api.cel.source import Problem, report
from polder.api.cel.times import parse_duration, parse_timestamp
from polder.api.cel.types import DYN, CelType, Family
from polder.api.cel.values import Meter

PER_CALL_LIMIT: Final = 1_000_000
"""Cost of one evaluation, as upstream."""
REQUEST_LIMIT: Final = 10_000_000
"""Cost of all rules of one object, or of one policy binding, as upstream."""
MATCH_LIMIT: Final = 2_500_000
"""Cost of the match conditions of one webhook or policy, as upstream."""
TURN: Final = 2_000
"""Units (about 1 µs each) that an evaluation may take on the event loop."""
FOREVER: Final = 2**62

FUNCTIONS: Final[Mapping[str, tuple[Overload, ...]]] = merged(
    *stdlib.LIBRARIES, texts.LIBRARY, lists.LIBRARY, regex.LIBRARY, urls.LIBRARY, network.LIBRARY, quantities.LIBRARY,
    named_formats.LIBRARY, optionals.LIBRARY, authorizer.LIBRARY,
)  # fmt: skip
MUTATING: Final[Mapping[str, tuple[Overload, ...]]] = merged(FUNCTIONS, mutations.LIBRARY)


@dataclass(slots=True)
class Budget:
    """What several programs may cost together, and how much of a turn of the event loop is left to them."""

    left: int = REQUEST_LIMIT
    turn: int = FOREVER
    per_call: int = PER_CALL_LIMIT

    @classmethod
    def of_one_turn(cls, left: int = REQUEST_LIMIT) -> Budget:
        """For programs that run on the event loop: past a turn, ``run`` raises TooLongError."""
        return cls(left, TURN)


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A compiled expression. ``uses`` are the variables that it names; ``tree`` and ``checked`` serve cost estimates."""

    text: str
    result: CelType
    uses: frozenset[str]
    tree: Expr | None
    checked: Checked | None
    _run: Run

    def lean(self) -> Program:
        """The same program without what only estimates need, for keeping."""
        return replace(self, tree=None, checked=None)

    def run(self, values: Mapping[str, Any], budget: Budget) -> Any:
        """The value. Raises CelError; OutOfBudgetError when it costs too much; TooLongError when it must run elsewhere;
        UnansweredError when it asks the authorizer something new.
        """
        limit = min(budget.per_call, max(budget.left, 0))
        meter = Meter(limit, budget.turn, per_call=budget.per_call <= budget.left)
        try:
            found = self._run(Frame(dict(values), meter))
            meter.check()
            return found
        except Fault as fault:
            raise CelError(str(fault)) from None
        except RecursionError:
            raise CelError("the expression or its values nest too deep") from None
        finally:
            budget.left -= meter.cost
            budget.turn -= meter.cost + meter.extra


def compile_cel(
    expression: str, variables: Mapping[str, CelType], result: CelType | None = None, *, mutating: bool = False
) -> Program:
    """The program of an expression over these variables. ``result`` is the type it must have; ``mutating`` allows it to make
    ``Object`` and ``JSONPatch`` values. Raises CelError with every mistake and its place.
    """
    try:
        return _compiled(expression, Scope(variables, MUTATING if mutating else FUNCTIONS, mutating), result)
    except Problem as problem:
        raise CelError(report(expression, [problem])) from None
    except RecursionError:
        raise CelError(report(expression, [Problem(0, "expression recursion limit exceeded")])) from None


def _compiled(expression: str, scope: Scope, result: CelType | None) -> Program:
    tree = parse(expression)
    checker = Checker(scope)
    kind = checker.run(tree)
    problems = checker.problems or list(_literals(tree, checker.found))
    if problems:
        raise CelError(report(expression, problems))
    if result is not None and not _suits(kind, result):
        raise CelError(f"must evaluate to {result}")
    uses = _used(tree, scope.variables)
    return Program(expression, kind, uses, tree, checker.found, Planner(checker.found).plan(tree, {}))


def _suits(kind: CelType, wanted: CelType) -> bool:
    return wanted.is_dyn or kind == wanted or (kind.is_dyn and wanted.family is not Family.PRIMITIVE)


def _used(tree: Expr, variables: Mapping[str, CelType]) -> frozenset[str]:
    found: set[str] = set()

    def visit(node: Expr) -> None:
        if isinstance(node, Ident) and node.name.removeprefix(".") in variables:
            found.add(node.name.removeprefix("."))

    walk(tree, visit)
    return frozenset(found)


def _literals(tree: Expr, checked: Checked) -> list[Problem]:
    """Literals that cannot be meant: durations, times and patterns that do not read, lists of several types."""
    found: list[Problem] = []
    exempt: set[Expr] = set()

    def visit(node: Expr) -> None:
        if isinstance(node, Call) and node.name == "format":
            walk(node, exempt.add)
        match node:
            case Call(name="duration", args=[Literal(value=str() as text) as arg]) if parse_duration(text) is None:
                found.append(Problem(arg.at, "invalid duration argument"))
            case Call(name="timestamp", args=[Literal(value=str() as text) as arg]) if parse_timestamp(text) is None:
                found.append(Problem(arg.at, "invalid timestamp argument"))
            case Call(name="matches", args=[*_, Literal(value=str() as text) as arg]) if not _is_pattern(text):
                found.append(Problem(arg.at, "invalid matches argument"))
            case ListNode() if node not in exempt:
                kinds = [_inside(checked, item, place in node.optional) for place, item in enumerate(node.items)]
                found.extend(_mixed(node.items, kinds)[:1])
            case MapNode() if node not in exempt:
                found.extend(_mixed([k for k, _, _ in node.entries], [checked.types[k] for k, _, _ in node.entries]))
                kinds = [_inside(checked, value, optional) for _, value, optional in node.entries]
                found.extend(_mixed([value for _, value, _ in node.entries], kinds))

    walk(tree, visit)
    return found


def _inside(checked: Checked, node: Expr, optional: bool) -> CelType:
    kind = checked.types[node]
    return kind.params[0] if optional and kind.is_optional else kind


def _mixed(nodes: list[Expr], kinds: list[CelType]) -> list[Problem]:
    return [
        Problem(node.at, f"expected type '{kinds[0]}' but found '{kind}'")
        for node, kind in zip(nodes, kinds, strict=True)
        if not _equivalent(kinds[0], kind)
    ]


def _equivalent(a: CelType, b: CelType) -> bool:
    if a.name != b.name or a.family is not b.family:
        return False
    return all(map(_equivalent, a.params, b.params))


def _is_pattern(text: str) -> bool:
    try:
        regex.compiled(text)
    except regex.RegexError:
        return False
    return True


@functools.lru_cache(maxsize=1)
def dyn_variables() -> Mapping[str, CelType]:
    """Variables of a policy on objects whose schema is not known."""
    return dict.fromkeys(("object", "oldObject", "params", "namespaceObject", "variables"), DYN)
