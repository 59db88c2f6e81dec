"""Rules in CEL (``x-kubernetes-validations``) when they are written: whether they compile, and what they may cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from polder.api.cel.declarations import EMBEDDED, declared, escape
from polder.api.cel.errors import CelError
from polder.api.cel.estimate import max_cost
from polder.api.cel.program import Program, compile_cel
from polder.api.cel.ranges import LIMIT
from polder.api.cel.types import BOOL, REQUEST_BYTES, STRING, CelType, optional_of
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

RULE_LIMIT: Final = 10_000_000
"""Estimated cost of one rule, over all the places where it may be checked in one object."""
DEFINITION_LIMIT: Final = 100_000_000
"""Estimated cost of all rules of one version."""
_NAMED: Final = 4
_HINT: Final = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared)"
)


def over_budget(what: str, cost: int, limit: int) -> str:
    """The sentence about an estimate that is too high."""
    times = cost / limit
    factor = "more than 100x" if times > 100 else f"{times:f}x" if times < 1.5 else f"{times:.1f}x"
    return f"{what} exceeds budget by factor of {factor} {_HINT}"


@dataclass(slots=True)
class Total:
    """What all rules of a version may cost."""

    cost: int = 0
    dear: list[tuple[int, Field]] = field(default_factory=list)

    def add(self, cost: int, at: Field) -> None:
        """Counts one rule."""
        self.cost = min(self.cost + cost, LIMIT)
        if cost >= DEFINITION_LIMIT // 100:
            self.dear = sorted([*self.dear, (cost, at)], key=lambda one: -one[0])[:_NAMED]

    def problems(self, at: Field) -> Iterator[FieldError]:
        """What is wrong if they may cost too much together."""
        if self.cost <= DEFINITION_LIMIT:
            return
        for _, where in self.dear:
            why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            yield where.forbidden(why)
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        yield at.forbidden(over_budget(what, self.cost, DEFINITION_LIMIT))


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a schema we are, as rules need it: how often a value may stand there (None: without bound), its type,
    whether it is a whole resource, and the first place above from which on old values cannot be told.
    """

    total: Total
    times: int | None = 1
    kind: CelType | None = None
    is_resource: bool = True
    lost: Field | None = None

    def type_of(self, schema: Raw) -> CelType | None:
        """The type of ``self`` in the schema's rules."""
        return self.kind or declared(schema, "selfType", is_resource=self.is_resource)

    def child(self, schema: Raw, key: str, part: Raw) -> Place:
        """The place of a part: ``items``, ``additionalProperties``, or the name of a property."""
        factor = _elements(schema)
        times = None if self.times is None or factor is None else min(self.times * factor, LIMIT)
        kind = None
        if self.kind is not None:
            if key in ("items", "additionalProperties"):
                kind = self.kind.params[-1] if self.kind.params else None
            else:
                kind = (self.kind.fields or {}).get(escape(key) or "")
        return replace(self, times=times, kind=kind, is_resource=bool(part.get(EMBEDDED)))


def _elements(schema: Raw) -> int | None:
    """How often a part may stand in one value of the schema."""
    if schema.get("type") == "array":
        return _limit(schema, "maxItems")
    if schema.get("type") == "object" and schema.get("additionalProperties") is not None:
        return _limit(schema, "maxProperties")
    return 1


def _limit(schema: Raw, key: str) -> int | None:
    return max(int(schema[key]), 0) if key in schema else None


def variables_of(rule: Raw, kind: CelType) -> dict[str, CelType]:
    """The variables of one rule."""
    old = optional_of(kind) if rule.get("optionalOldSelf") else kind
    return {"self": kind, "oldSelf": old}


def compile_rule(rule: Raw, kind: CelType) -> Program:
    """The program of a rule. Raises CelError in the words that a definition's validation uses."""
    return _compiled(rule, kind, "rule", BOOL, ("compilation", "cel expression must evaluate to a bool"))


def compile_message(rule: Raw, kind: CelType) -> Program:
    """The program of a rule's message. Raises CelError."""
    words = "messageExpression compilation", "messageExpression must evaluate to a string"
    return _compiled(rule, kind, "messageExpression", STRING, words)


def _compiled(rule: Raw, kind: CelType, field: str, result: CelType, words: tuple[str, str]) -> Program:
    try:
        program = compile_cel(rule[field], variables_of(rule, kind))
    except CelError as error:
        raise CelError(f"{words[0]} failed: {error}") from None
    if program.result != result:
        raise CelError(words[1])
    return program


def check_rules(schema: Raw, at: Field, place: Place, *, known: bool) -> Iterator[FieldError]:
    """What is wrong with the rules of one schema. ``known`` spares the single rules' costs: nothing changed."""
    kind = place.type_of(schema)
    if kind is None:
        yield at.forbidden("rules cannot be used here: nothing of this schema can be named in CEL")
        return
    # A value that may stand any number of times stands as often as the longest request has room for.
    times = place.times if place.times is not None else REQUEST_BYTES // (kind.least + 1)
    for number, rule in enumerate(schema["x-kubernetes-validations"]):
        yield from _check_rule(rule, at[number], (kind, times, place, known))


def _check_rule(rule: Raw, at: Field, about: tuple[CelType, int, Place, bool]) -> Iterator[FieldError]:
    kind, times, place, known = about
    try:
        program = compile_rule(rule, kind)
    except CelError as error:
        yield (at / "rule").invalid(rule, str(error))
        return
    cost = min(max_cost(program, variables_of(rule, kind)) * times, LIMIT)
    if cost > RULE_LIMIT and not known:
        yield (at / "rule").forbidden(over_budget("estimated rule cost", cost, RULE_LIMIT))
    place.total.add(cost, at / "rule")
    yield from _check_message(rule, at, about)
    if "oldSelf" in program.uses:
        if place.lost is not None:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.lost.path}"
            yield (at / "rule").invalid(rule["rule"], why)
    elif rule.get("optionalOldSelf") is not None:
        why = "may not be set if oldSelf is not used in rule"
        yield (at / "optionalOldSelf").invalid(rule["optionalOldSelf"], why)


def _check_message(rule: Raw, at: Field, about: tuple[CelType, int, Place, bool]) -> Iterator[FieldError]:
    kind, _, place, known = about
    if not rule.get("messageExpression"):
        return
    try:
        program = compile_message(rule, kind)
    except CelError as error:
        yield (at / "messageExpression").invalid(rule, str(error))
        return
    cost = max_cost(program, variables_of(rule, kind))
    if cost > RULE_LIMIT and not known:
        yield (at / "messageExpression").forbidden(over_budget("estimated messageExpression cost", cost, RULE_LIMIT))
    place.total.add(cost, at / "messageExpression")


def any_rules(schema: Any) -> bool:
    """Whether a schema has rules anywhere, also inside allOf."""
    todo = [schema]
    while todo:
        found = todo.pop()
        if not isinstance(found, dict):
            continue
        if found.get("x-kubernetes-validations"):
            return True
        todo += [found.get("items"), found.get("additionalProperties"), *(found.get("properties") or {}).values()]
    return False
