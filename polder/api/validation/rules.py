"""Rules about fields as data: a path, and what must hold of every value that it leads to.

Paths are those of ``defaults_table``: ``name`` (missing counts as empty), ``name?`` (skipped where it is missing),
``name[]`` and ``name{}`` (each item). A rule of a kind takes the object, a rule of a change the new and the old one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from polder.api import names, quantity
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.validation.meta import validate_labels

Check = Callable[[Raw], Iterable[FieldError]]
Change = Callable[[Raw, Raw], Iterable[FieldError]]
NameRule = Callable[[str], list[str]]
IMMUTABLE: Final = "field is immutable"
OPERATORS: Final = ("DoesNotExist", "Exists", "In", "NotIn")


@dataclass(frozen=True, slots=True)
class Rules:
    """What must hold of a kind: of each object, and of each change."""

    checks: tuple[Check, ...] = ()
    changes: tuple[Change, ...] = ()


@functools.cache
def _steps(path: str) -> tuple[tuple[str, str], ...]:
    found = []
    for step in path.split("."):
        name = step.rstrip("?[]{}")
        found.append((name, step[len(name) :]))
    return tuple(found)


def places(obj: Any, path: str, at: Field | None = None) -> Iterator[tuple[Field, Any]]:
    """Every place that a path leads to, with what stands there; None where nothing does."""
    yield from _places(obj, _steps(path), at or Field())


def _places(obj: Any, steps: tuple[tuple[str, str], ...], at: Field) -> Iterator[tuple[Field, Any]]:
    (name, mark), rest = steps[0], steps[1:]
    value, where = (obj.get(name) if isinstance(obj, dict) else None), at / name
    if mark == "[]":
        for number, item in enumerate(value or ()):
            yield from _places(item, rest, where[number]) if rest else [(where[number], item)]
    elif mark == "{}":
        for key, item in (value or {}).items():
            yield from _places(item, rest, where[key]) if rest else [(where[key], item)]
    elif not rest:
        yield where, value
    elif mark != "?" or value is not None:
        yield from _places(value, rest, where)


def every(path: str, rule: Callable[[Any, Field], Iterable[FieldError]]) -> Check:
    """``rule`` for every value that is there."""

    def check(obj: Raw) -> Iterator[FieldError]:
        for at, value in places(obj, path):
            if value is not None:
                yield from rule(value, at)

    return check


def required(path: str, detail: str = "") -> Check:
    """Something stands there: no null, no empty text, list or map."""

    def check(obj: Raw) -> Iterator[FieldError]:
        return (at.required(detail) for at, value in places(obj, path) if value in (None, "", [], {}))

    return check


def present(path: str, detail: str = "") -> Check:
    """Something stands there, be it empty."""

    def check(obj: Raw) -> Iterator[FieldError]:
        return (at.required(detail) for at, value in places(obj, path) if value is None)

    return check


def choice(path: str, *values: str, needed: bool = False) -> Check:
    """One of a closed list."""

    def check(obj: Raw) -> Iterator[FieldError]:
        for at, value in places(obj, path):
            if value in (None, ""):
                if needed:
                    yield at.required()
            elif value not in values:
                yield at.not_supported(value, sorted(values))

    return check


def least(path: str, minimum: int = 0) -> Check:
    """A number of at least ``minimum``."""
    return every(path, functools.partial(_least, minimum=minimum))


def _least(value: Any, at: Field, minimum: int = 0) -> Iterator[FieldError]:
    if value < minimum:
        yield at.invalid(value, f"must be greater than or equal to {minimum}")


def above(path: str) -> Check:
    """A number greater than 0."""
    return every(path, lambda value, at: [] if value > 0 else [at.invalid(value, "must be greater than zero")])


def between(path: str, low: int, high: int) -> Check:
    """A number from ``low`` to ``high``."""
    why = f"must be between {low} and {high}, inclusive"
    return every(path, lambda value, at: [] if low <= value <= high else [at.invalid(value, why)])


def named(path: str, rule: NameRule = names.dns_subdomain) -> Check:
    """Text that follows a rule for names, where it is not empty."""
    return every(path, lambda value, at: [at.invalid(value, said) for said in rule(value)] if value else [])


def labels(path: str) -> Check:
    """A map of labels."""
    return every(path, validate_labels)


def amounts(path: str) -> Check:
    """Quantities that are not negative."""
    return every(path, validate_amount)


def validate_amount(value: Any, at: Field) -> Iterator[FieldError]:
    """A quantity that is not negative."""
    if quantity.parse(value).value < 0:
        yield at.invalid(value, "must be greater than or equal to 0")


def selector(path: str) -> Check:
    """A metav1.LabelSelector."""
    return every(path, validate_selector)


def validate_selector(found: Raw, at: Field) -> Iterator[FieldError]:
    """A metav1.LabelSelector: labels, and clauses whose operator and values fit."""
    yield from validate_labels(found.get("matchLabels") or {}, at / "matchLabels")
    for number, clause in enumerate(found.get("matchExpressions") or ()):
        where, operator = (at / "matchExpressions")[number], clause.get("operator", "")
        values = clause.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                yield (where / "values").required("must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in OPERATORS:
            if values:
                yield (where / "values").forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            yield (where / "operator").invalid(operator, "not a valid selector operator")
        yield from (
            (where / "key").invalid(clause.get("key", ""), s) for s in names.qualified_name(clause.get("key", ""))
        )
        for index, value in enumerate(values):
            yield from ((where / "values")[index].invalid(value, said) for said in names.label_value(value))


def one_of(path: str, *fields: str, missing: str = "", several: str = "") -> Check:
    """Exactly one of several fields is there."""
    listed = ", ".join(fields)

    def rule(value: Raw, at: Field) -> Iterator[FieldError]:
        found = [name for name in fields if value.get(name) is not None]
        if not found:
            yield at.required(missing or f"must specify one of: {listed}")
        elif len(found) > 1:
            yield (at / found[1]).forbidden(several or f"may not specify more than one of {listed}")

    return every(path, rule)


def unique(path: str, *keys: str) -> Check:
    """No two items of a list have the same keys; without keys, are the same."""

    def rule(items: list[Any], at: Field) -> Iterator[FieldError]:
        seen: set[Any] = set()
        for number, item in enumerate(items):
            said = tuple(str(item.get(key, "")) for key in keys) if keys else item
            if said in seen:
                where = at[number] / keys[0] if len(keys) == 1 else at[number]
                yield where.duplicate(said[0] if len(keys) == 1 else item)
            seen.add(said)

    return every(path, rule)


def plain(value: Any) -> Any:
    """A value without what Go does not tell apart: no nulls, no empty texts, lists and maps, no false, no zero."""
    if isinstance(value, dict):
        found = {key: plain(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if item not in (None, "", [], {}, False, 0)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def same(new: Any, old: Any) -> bool:
    """Whether two values mean the same."""
    return bool(new == old or plain(new) == plain(old))


def fixed(*paths: str, why: str = IMMUTABLE) -> Change:
    """Fields that keep their value."""

    def change(new: Raw, old: Raw) -> Iterator[FieldError]:
        for path in paths:
            (at, now), (_, before) = next(places(new, path)), next(places(old, path))
            if not same(now, before):
                yield at.invalid(now, why)

    return change


def once(*paths: str, why: str = IMMUTABLE) -> Change:
    """Fields that keep their value from the moment they have one."""

    def change(new: Raw, old: Raw) -> Iterator[FieldError]:
        for path in paths:
            (at, now), (_, before) = next(places(new, path)), next(places(old, path))
            if before not in (None, "", [], {}) and not same(now, before):
                yield at.invalid(now, why)

    return change
