"""Rules in CEL (``x-kubernetes-validations``) when an object is written: checked on every value that they stand at.

Source: upstream's schema/cel validation (facts only): costs, ratcheting, messages, which errors end the checking.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from polder.api.cel.declarations import EMBEDDED, LIST_TYPE, Wrap, declared, wrapper
from polder.api.cel.errors import CelError, OutOfBudgetError
from polder.api.cel.program import REQUEST_LIMIT, Budget, Program
from polder.api.cel.types import CelType
from polder.api.cel.values import NONE, Optional
from polder.api.correlation import Pair, by_key, list_key
from polder.api.errors import Field, FieldError, FieldErrorType
from polder.api.field_path import FieldPathError, resolve
from polder.api.meta import Raw
from polder.api.rule_check import any_rules, compile_message, compile_rule
from polder.api.structural import LIST_KEYS

MESSAGE_LIMIT: Final = 5 * 1024
"""Bytes of a message that an expression made."""
_NO_MORE: Final = "no further validation rules will be run"


@dataclass(slots=True)
class Rule:
    """One rule; its programs are compiled when they are first needed."""

    raw: Raw
    kind: CelType
    schema: Raw
    _program: Program | CelError | None = None
    _message: Program | CelError | None = None

    @property
    def text(self) -> str:
        """What messages call the rule."""
        return str(self.raw.get("message") or self.raw["rule"]).strip()

    @property
    def program(self) -> Program:
        """Raises CelError."""
        if self._program is None:
            self._program = _compiled(compile_rule, self.raw, self.kind)
        return _or_raise(self._program)

    @property
    def message(self) -> Program | None:
        """What makes the message; None where there is no such expression, or one that does not compile."""
        if not self.raw.get("messageExpression"):
            return None
        if self._message is None:
            self._message = _compiled(compile_message, self.raw, self.kind)
        return self._message if isinstance(self._message, Program) else None

    def compile(self) -> int:
        """Makes the programs if they are not made yet; the length of their expressions."""
        if self._program is None:
            self._program = _compiled(compile_rule, self.raw, self.kind)
        return len(self.raw["rule"]) + (0 if self.message is None else len(self.raw["messageExpression"]))

    def place(self, at: Field) -> Field:
        """Where the rule's errors are put."""
        path = self.raw.get("fieldPath")
        if not path:
            return at
        try:
            below = resolve(path, self.schema)[0].path
        except FieldPathError:
            return at
        return Field(f"{at.path}.{below}" if at.path else below)


def _compiled(how: Any, raw: Raw, kind: CelType) -> Program | CelError:
    try:
        found: Program = how(raw, kind)
    except CelError as error:
        return error
    return found.lean()


def _or_raise(found: Program | CelError) -> Program:
    if isinstance(found, CelError):
        raise found
    return found


@dataclass(slots=True)
class Ruled:
    """The rules of one schema and of what is below it."""

    schema: Raw
    wrap: Wrap
    rules: list[Rule] = field(default_factory=list)
    properties: dict[str, Ruled] = field(default_factory=dict)
    more: Ruled | None = None
    items: Ruled | None = None

    def compile(self) -> Iterator[int]:
        """Compiles the rules here and below; yields the length of each."""
        for rule in self.rules:
            yield rule.compile()
        for below in (*self.properties.values(), self.more, self.items):
            if below is not None:
                yield from below.compile()


def plan(schema: Raw, *, is_resource: bool = True) -> Ruled | None:
    """The rules of a schema; None where there are none."""
    if not any_rules(schema):
        return None
    node = Ruled(schema, wrapper(schema, is_resource=is_resource))
    given = schema.get("x-kubernetes-validations") or ()
    kind = declared(schema, "selfType", is_resource=is_resource) if given else None
    if kind is not None:
        node.rules = [Rule(rule, kind, schema) for rule in given if rule.get("rule")]
    for key, part in (schema.get("properties") or {}).items():
        below = plan(part, is_resource=bool(part.get(EMBEDDED)))
        if below is not None:
            node.properties[key] = below
    for key in ("additionalProperties", "items"):
        part = schema.get(key)
        below = plan(part, is_resource=bool(part.get(EMBEDDED))) if isinstance(part, dict) else None
        if key == "items":
            node.items = below
        else:
            node.more = below
    return node


class _Ended(Exception):  # noqa: N818 - the budget is spent: no rule after this one is checked
    """Carries nothing: the reason was noted."""


@dataclass(slots=True)
class Checking:
    """One object's rules being checked. ``warnings`` are what is wrong but was so before."""

    budget: Budget = field(default_factory=lambda: Budget(REQUEST_LIMIT))
    problems: list[FieldError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def run(self, node: Ruled, new: Any, old: Any, at: Field, *, ratchets: bool = True) -> list[FieldError]:
        """Everything that the rules say about an object and what stood before (None for a new one). Raises TooLongError."""
        pair = Pair(new, old, node.schema) if ratchets and old is not None else None
        with suppress(_Ended):  # the problems say why
            self._value(node, (new, old), at, pair, None)
        return self.problems

    def _value(self, node: Ruled, values: tuple[Any, Any], at: Field, pair: Pair | None, above: Pair | None) -> None:
        new, old = values
        if new is None:
            return
        if node.rules:
            self._rules(node, values, at, pair if pair is not None else above)
        if isinstance(new, list) and node.items is not None:
            known = by_key(node.schema, old)
            keys = node.schema.get(LIST_KEYS) or []
            for number, item in enumerate(new):
                key = list_key(keys, item) if known and node.schema.get(LIST_TYPE) == "map" else None
                before = known.get(key) if key is not None else None
                inner = pair.index(number) if pair is not None else None
                self._value(node.items, (item, before), at[number], inner, pair or above)
        elif isinstance(new, dict):
            for key, value in new.items():
                below = node.properties.get(key) or (node.more if key not in node.properties else None)
                if below is None:
                    continue
                where = at / key if key in node.properties else at[key]
                before = old.get(key) if isinstance(old, dict) else None
                inner = pair.key(key) if pair is not None else None
                self._value(below, (value, before), where, inner, pair or above)

    def _rules(self, node: Ruled, values: tuple[Any, Any], at: Field, nearest: Pair | None) -> None:
        new, old = values
        given: dict[str, Any] = {"self": node.wrap(new)}
        wrapped_old = node.wrap(old) if old is not None else None
        for rule in node.rules:
            variables = dict(given)
            if rule.raw.get("optionalOldSelf"):
                variables["oldSelf"] = NONE if old is None else Optional(True, wrapped_old)
            elif old is not None:
                variables["oldSelf"] = wrapped_old
            self._rule(rule, variables, at, new, nearest)

    def _rule(self, rule: Rule, variables: dict[str, Any], at: Field, value: Any, nearest: Pair | None) -> None:
        kind = rule.schema.get("type", "")
        if self.budget.left <= 0:
            self.problems.append(at.invalid(kind, f"validation failed due to running out of cost budget, {_NO_MORE}"))
            raise _Ended
        try:
            program = rule.program
        except CelError as error:
            self.problems.append(at.invalid(kind, f"rule compile error: {error}"))
            return
        uses_old = "oldSelf" in program.uses
        if uses_old and "oldSelf" not in variables:
            return
        try:
            if program.run(variables, self.budget) is True:
                return
        except OutOfBudgetError as error:
            if error.per_call:
                why = f"'{error}': {_NO_MORE} due to call cost exceeds limit for rule: {rule.text}"
            else:
                why = f"validation failed due to running out of cost budget, {_NO_MORE}"
            self.problems.append(at.invalid(kind, why))
            raise _Ended from None
        except CelError as error:
            self.problems.append(at.invalid(kind, _failed(str(error), rule.text)))
            return
        self._broken(rule, variables, at, value, nearest if not uses_old else None)

    def _broken(self, rule: Rule, variables: dict[str, Any], at: Field, value: Any, nearest: Pair | None) -> None:
        """Notes a rule that is false."""
        kind = rule.schema.get("type", "")
        where = rule.place(at)
        shown = kind if isinstance(value, dict | list) else value
        ended = False
        try:
            detail = self._message(rule, variables) or _default_message(rule)
            problem = _error(where, shown, detail, rule.raw.get("reason"))
        except OutOfBudgetError as error:
            expression = rule.raw["messageExpression"]
            why = f'{_NO_MORE} due to call cost exceeds limit for messageExpression: "{expression}"'
            if not error.per_call:
                why = f"messageExpression evaluation failed due to running out of cost budget, {_NO_MORE}"
            problem, ended = where.invalid(kind, why), True
        if nearest is not None and nearest.is_same:
            self.warnings.append(str(problem))
        else:
            self.problems.append(problem)
        if ended:
            raise _Ended

    def _message(self, rule: Rule, variables: dict[str, Any]) -> str | None:
        """What the rule's expression says; None if there is none or it says nothing useful. Raises OutOfBudgetError."""
        program = rule.message
        if program is None:
            return None
        try:
            found = program.run(variables, self.budget)
        except OutOfBudgetError:
            raise
        except CelError:
            return None
        text = found.strip() if isinstance(found, str) else ""
        return text if text and "\n" not in text and len(text.encode()) <= MESSAGE_LIMIT else None


def _failed(error: str, text: str) -> str:
    if error.startswith("no such overload"):
        return f"'{error}': call arguments did not match a supported operator, function or macro signature for rule: {text}"
    return f"{error} evaluating rule: {text}"


def _default_message(rule: Rule) -> str:
    return str(rule.raw["message"]).strip() if rule.raw.get("message") else f"failed rule: {rule.text}"


def _error(at: Field, value: Any, detail: str, reason: str | None) -> FieldError:
    match reason:
        case "FieldValueForbidden":
            return at.forbidden(detail)
        case "FieldValueRequired":
            return at.required(detail)
        case "FieldValueDuplicate":
            return at.duplicate(value)
    return FieldError(FieldErrorType.INVALID, at.path, value, detail)


def rule_texts(schema: Raw) -> Iterator[str]:
    """All expressions of a schema's rules."""
    todo: list[Any] = [schema]
    while todo:
        found = todo.pop()
        if not isinstance(found, dict):
            continue
        for rule in found.get("x-kubernetes-validations") or ():
            yield rule.get("rule") or ""
            yield rule.get("messageExpression") or ""
        todo += [found.get("items"), found.get("additionalProperties"), *(found.get("properties") or {}).values()]
