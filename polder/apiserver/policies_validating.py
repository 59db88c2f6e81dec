"""ValidatingAdmissionPolicy: expressions that a write must satisfy.

Source: apiserver's admission/plugin/policy/validating (dispatcher, validator, policy_decision).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from polder.api.cel import Budget, CelError, OutOfBudgetError
from polder.api.cel.types import BOOL, NULL, STRING
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.policies import Invocation, Policies, fails, not_admitted
from polder.apiserver.policies_cel import (
    Cel,
    Compiled,
    Composition,
    ConditionsFailedError,
    Evaluation,
    compiled,
    compose,
    conditions_hold,
    shown_namespace,
    variables_of,
)
from polder.apiserver.webhooks_match import namespace_object, object_of, old_of
from polder.apiserver.webhooks_review import request_of

MESSAGE_LIMIT: Final = 5 * 1024
"""Bytes of a message that an expression makes; a longer one is dropped."""
ANNOTATION_LIMIT: Final = 10 * 1024
_CODES: Final = {"Forbidden": 403, "Unauthorized": 401, "RequestEntityTooLarge": 413}
OUT_OF_BUDGET: Final = "validation failed due to running out of cost budget, no further validation rules will be run"


@dataclass(frozen=True, slots=True)
class Validation:
    """One entry of ``spec.validations``."""

    check: Compiled
    message: str
    message_of: Compiled | None
    reason: str


@dataclass(frozen=True, slots=True)
class ValidatingPolicy:
    """A policy, compiled."""

    conditions: tuple[tuple[str, Compiled], ...]
    composition: Composition
    validations: tuple[Validation, ...]
    annotations: tuple[tuple[str, Compiled], ...]


def compile_conditions(spec: Raw, *, params: bool) -> tuple[tuple[str, Compiled], ...]:
    """A policy's or webhook's ``matchConditions``."""
    scope = variables_of(params=params)
    rows = spec.get("matchConditions") or []
    return tuple((str(r.get("name", "")), compiled(str(r.get("expression", "")), scope, (BOOL,))) for r in rows)


def compile_validating(policy: Raw) -> ValidatingPolicy:
    """Never fails: an expression that does not compile fails when it is run."""
    spec = policy.get("spec") or {}
    has_params = bool(spec.get("paramKind"))
    scope = variables_of(params=has_params)
    composition = compose(spec.get("variables") or [], scope)
    messages = {**composition.kinds}
    for name in ("authorizer", "authorizer.requestResource"):
        messages.pop(name, None)
    validations = []
    for row in spec.get("validations") or []:
        text = row.get("messageExpression")
        validations.append(
            Validation(
                compiled(str(row.get("expression", "")), composition.kinds, (BOOL,)),
                str(row.get("message") or ""),
                compiled(text, messages, (STRING,)) if text else None,
                str(row.get("reason") or "Invalid"),
            )
        )
    annotations = tuple(
        (str(row.get("key", "")), compiled(str(row.get("valueExpression", "")), messages, (STRING, NULL)))
        for row in spec.get("auditAnnotations") or []
    )
    return ValidatingPolicy(compile_conditions(spec, params=has_params), composition, tuple(validations), annotations)


@dataclass(frozen=True, slots=True)
class Denial:
    """What a policy objects to. ``number`` is that of the validation."""

    message: str
    reason: str = "Invalid"
    number: int = 0


@dataclass(slots=True)
class Outcome:
    """Of one policy, binding and param."""

    denials: list[Denial] = field(default_factory=list)
    annotations: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Audit annotations that failed: they refuse, whatever the binding's actions."""


class ValidatingPolicies:
    """Runs the validating policies of a write."""

    def __init__(self, policies: Policies[ValidatingPolicy], cel: Cel) -> None:
        self._policies = policies
        self._cel = cel

    async def check(self, context: AdmissionContext) -> None:
        """Raises ApiError where a policy refuses."""
        meeting = await self._policies.meet(context)
        refused = [_sentence(t.policy, t.binding, Denial(t.message)) for t in meeting.troubles]
        answers: dict[Any, Any] = {}
        for invocation in meeting.invocations:
            published: dict[str, list[str]] = {}
            for param in invocation.params:
                outcome = await self._evaluate(context, invocation, param, answers)
                refused += self._act(context, invocation, outcome)
                for key, value in outcome.annotations:
                    if value not in published.setdefault(key, []):
                        published[key].append(value)
            for key, values in published.items():
                context.audit[f"{invocation.policy.key.name}/{key}"] = ", ".join(values)
        if refused:
            message, reason = refused[0]
            raise not_admitted(context, message, reason, _CODES.get(reason, 422))

    def _act(
        self, context: AdmissionContext, invocation: Invocation[ValidatingPolicy], outcome: Outcome
    ) -> list[tuple[str, str]]:
        policy, binding = invocation.policy.key.name, invocation.binding.key.name
        actions = (invocation.binding.obj.get("spec") or {}).get("validationActions") or []
        refused = []
        for denial in outcome.denials:
            if "Deny" in actions:
                refused.append(_sentence(policy, binding, denial))
            if "Warn" in actions:
                context.warnings.append(
                    f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {denial.message}"
                )
            if "Audit" in actions:
                said = {
                    "message": denial.message, "policy": policy, "binding": binding,
                    "expressionIndex": denial.number, "validationActions": actions,
                }  # fmt: skip
                context.audit["validation.policy.admission.k8s.io/validation_failure"] = orjson.dumps([said]).decode()
        return refused + [_sentence(policy, binding, Denial(text)) for text in outcome.broken]

    async def _evaluate(
        self, context: AdmissionContext, invocation: Invocation[ValidatingPolicy], param: Raw | None,
        answers: dict[Any, Any],
    ) -> Outcome:  # fmt: skip
        policy, strict = invocation.compiled, fails(invocation.policy)
        evaluation = await prepare(self._policies, self._cel, context, invocation, (param, answers))
        outcome = Outcome()
        try:
            if not await conditions_hold(policy.conditions, evaluation):
                return outcome
        except ConditionsFailedError as error:
            if strict:
                outcome.denials.append(Denial(str(error)))
            return outcome
        budget = Budget()
        for number, validation in enumerate(policy.validations):
            denial = await self._validate(validation, evaluation, budget, strict=strict)
            if denial is not None:
                outcome.denials.append(Denial(denial.message, denial.reason, number))
            if budget.left < 0:
                break
        await self._annotate(policy.annotations, evaluation, outcome, strict=strict)
        return outcome

    async def _validate(
        self, validation: Validation, evaluation: Evaluation, budget: Budget, *, strict: bool
    ) -> Denial | None:
        try:
            if await evaluation.run(validation.check, budget) is True:
                return None
        except OutOfBudgetError as error:
            return Denial(OUT_OF_BUDGET if not error.per_call else _failed(validation.check, error)) if strict else None
        except CelError as error:
            return Denial(_failed(validation.check, error)) if strict else None
        message = await self._message(validation, evaluation, budget)
        return Denial(message, validation.reason)

    async def _message(self, validation: Validation, evaluation: Evaluation, budget: Budget) -> str:
        """The expression's, else the one that is written, else the expression itself."""
        if validation.message_of is not None:
            try:
                made = await evaluation.run(validation.message_of, budget)
            except CelError:
                made = None  # a message that cannot be made falls back, as upstream
            text = made.strip() if isinstance(made, str) else ""
            if text and len(text.encode()) <= MESSAGE_LIMIT and "\n" not in text:
                return text
        return validation.message.strip() or f"failed expression: {validation.check.expression.strip()}"

    async def _annotate(
        self, annotations: Sequence[tuple[str, Compiled]], evaluation: Evaluation, outcome: Outcome, *, strict: bool
    ) -> None:
        budget = Budget()
        for key, made in annotations:
            try:
                value = await evaluation.run(made, budget)
            except CelError as error:
                if strict:
                    outcome.broken.append(_failed(made, error))
                continue
            text = value.strip() if isinstance(value, str) else ""
            if text:
                outcome.annotations.append((key, text[:ANNOTATION_LIMIT]))


def _failed(made: Compiled, error: CelError) -> str:
    """What is said of an expression that could not be run."""
    if made.program is None:
        return made.problem
    return f"expression '{made.expression.strip()}' resulted in error: {error}"


def _sentence(policy: str, binding: str, denial: Denial) -> tuple[str, str]:
    bound = f" with binding '{binding}'" if binding else ""
    return f"ValidatingAdmissionPolicy '{policy}'{bound} denied request: {denial.message}", denial.reason


async def prepare(
    policies: Policies[Any], cel: Cel, context: AdmissionContext, invocation: Invocation[Any],
    given: tuple[Raw | None, dict[Any, Any]],
) -> Evaluation:  # fmt: skip
    """The variables of one policy on one write. ``given`` are the param and the answers of the authorizer."""
    kind = invocation.kind
    obj = await policies.forms.show(context, object_of(context), kind)
    old = await policies.forms.show(context, old_of(context), kind)
    values = cel.values((obj, old), request_of(context, kind, None, None))
    itself = context.resource.kind.resource == "namespaces"
    namespace = await namespace_object(context, policies.store) if context.namespace and not itself else None
    values["namespaceObject"] = shown_namespace(namespace)
    values["params"] = given[0]
    return cel.evaluation(context, values, given[1], invocation.compiled.composition)
