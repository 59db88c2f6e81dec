"""Defaults of a schema when they are written: each fits its own schema, with no field that would be cut off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from polder.api.cel.program import REQUEST_LIMIT, Budget
from polder.api.correlation import same
from polder.api.embedded import validate_embedded
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.rules import Checking, plan
from polder.api.schema_validate import WORK_LIMIT, validate, validate_lists
from polder.api.structural import EMBEDDED, RESOURCE_KEYS, Work, prune


def check_defaults(schema: Raw, at: Field, *, pruned: bool = True) -> Iterator[FieldError]:
    """What is wrong with the defaults anywhere in a schema. ``pruned`` asks that they have no unknown fields."""
    work, budget = Work(WORK_LIMIT, "steps to check"), Budget(REQUEST_LIMIT)
    todo: list[tuple[Any, Field, bool, bool]] = [(schema, at, False, True)]
    while todo:
        part, where, in_meta, is_root = todo.pop()
        if not isinstance(part, dict):
            continue
        embedded = bool(part.get(EMBEDDED))
        in_meta = in_meta and not embedded
        if part.get("default") is not None:
            yield from _check(part, where / "default", (work, budget), pruned=pruned and not in_meta)
        below = [(part.get("items"), where / "items", in_meta, False)]
        for key, inner in (part.get("properties") or {}).items():
            meta = in_meta or ((is_root or embedded) and key in RESOURCE_KEYS)
            below.append((inner, (where / "properties")[key], meta, False))
        todo += reversed(below)


def _check(schema: Raw, at: Field, limits: tuple[Work, Budget], *, pruned: bool) -> Iterator[FieldError]:
    work, budget = limits
    value = schema["default"]
    if pruned and not same(_pruned(schema, value), value):
        yield at.invalid(value, "must not have unknown fields")
    problems = list(validate_embedded(schema, value, at))
    problems = problems or list(validate(schema, value, at, work))
    problems += validate_lists(schema, value, at, work)
    yield from problems
    node = plan(schema, is_resource=bool(schema.get(EMBEDDED))) if not problems else None
    if node is None:
        return
    found = Checking(budget).run(node, value, value, at, ratchets=False)
    yield from found
    if not found:
        yield from Checking(budget).run(node, value, None, at, ratchets=False)


def _pruned(schema: Raw, value: Any) -> Any:
    return prune({"type": "object", "properties": {"default": schema}}, {"default": value})[0]["default"]
