"""Whether the expressions of what is registered compile: looked at when it is written, so that a mistake is told at once.

Expressions that stood there before stay as they are. Source: apis/admissionregistration/validation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from polder.api.cel.types import BOOL
from polder.api.errors import Field, FieldError, invalid
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.policies import HEAVY
from polder.apiserver.policies_cel import Compiled, compiled, variables_of
from polder.apiserver.policies_mutating import compile_mutating
from polder.apiserver.policies_validating import compile_validating
from polder.apiserver.webhooks_index import (
    MUTATING_POLICIES,
    MUTATING_WEBHOOKS,
    VALIDATING_POLICIES,
    VALIDATING_WEBHOOKS,
)

_SPEC = Field("spec")
Expression = tuple[Field, Compiled]


def expressions_of(resource: str, obj: Raw) -> Iterator[Expression]:
    """Every expression with its place."""
    if resource in {MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS}:
        scope = variables_of()
        for number, hook in enumerate(obj.get("webhooks") or []):
            for at, row in enumerate(hook.get("matchConditions") or []):
                place = Field("webhooks")[number] / "matchConditions"
                yield place[at] / "expression", compiled(str(row.get("expression", "")), scope, (BOOL,))
    elif resource == VALIDATING_POLICIES:
        policy = compile_validating(obj)
        yield from _common(policy.conditions, policy.composition.declared)
        for number, row in enumerate(policy.validations):
            place = (_SPEC / "validations")[number]
            yield place / "expression", row.check
            if row.message_of is not None:
                yield place / "messageExpression", row.message_of
        for number, (_, made) in enumerate(policy.annotations):
            yield (_SPEC / "auditAnnotations")[number] / "valueExpression", made
    elif resource == MUTATING_POLICIES:
        changing = compile_mutating(obj)
        yield from _common(changing.conditions, changing.composition.declared)
        for number, mutation in enumerate(changing.mutations):
            kind = "applyConfiguration" if mutation.merges else "jsonPatch"
            yield (_SPEC / "mutations")[number] / kind / "expression", mutation.expression


def _common(
    conditions: tuple[tuple[str, Compiled], ...], variables: tuple[tuple[str, Compiled], ...]
) -> Iterator[Expression]:
    for number, (_, made) in enumerate(conditions):
        yield (_SPEC / "matchConditions")[number] / "expression", made
    for number, (_, made) in enumerate(variables):
        yield (_SPEC / "variables")[number] / "expression", made


def problems_of(resource: str, obj: Raw, old: Raw | None) -> list[FieldError]:
    """What does not compile and is new."""
    before = {made.expression for _, made in expressions_of(resource, old)} if old is not None else set()
    return [
        place.invalid(made.expression, made.problem)
        for place, made in expressions_of(resource, obj)
        if made.program is None and made.expression not in before
    ]


class RegisteredExpressions:
    """Checks policies and webhook configurations when they are written."""

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 422."""
        resource, obj = context.resource.kind.resource, context.obj
        known = {MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, MUTATING_POLICIES, VALIDATING_POLICIES}
        if resource not in known or obj is None or context.subresource or context.verb not in {"create", "update"}:
            return
        if _said(obj) == (_said(context.old) if context.old is not None else None):
            return
        small = len(str(_said(obj))) < HEAVY
        old = context.old
        found = problems_of(resource, obj, old) if small else await asyncio.to_thread(problems_of, resource, obj, old)
        if found:
            raise invalid(context.resource.kind, context.name, found)


def _said(obj: Raw) -> object:
    return obj.get("webhooks"), obj.get("spec")
