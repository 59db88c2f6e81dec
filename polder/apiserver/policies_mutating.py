"""MutatingAdmissionPolicy: expressions that change what is written, by apply configurations or JSON patches.

Source: apiserver's admission/plugin/policy/mutating (dispatcher, patch/json_patch.go, patch/smd.go).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polder.api.apply_items import is_associative, is_granular
from polder.api.apply_typed import TypedError, check, merge
from polder.api.apply_types import Type, type_of_schema
from polder.api.cel import Budget, CelError
from polder.api.cel.errors import Fault
from polder.api.cel.mutations import to_json, to_patch
from polder.api.cel.types import list_of, struct
from polder.api.cel.values import DynamicObject
from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.api.patch import apply_json
from polder.api.schemas import definition_name, named
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.managers import scope_of
from polder.apiserver.policies import Invocation, Policies, Trouble, fails, not_admitted
from polder.apiserver.policies_cel import (
    Cel,
    Compiled,
    Composition,
    ConditionsFailedError,
    Evaluation,
    compiled,
    compose,
    conditions_hold,
    variables_of,
)
from polder.apiserver.policies_validating import compile_conditions, prepare
from polder.apiserver.webhooks import KEPT_FIELDS, Reinvocation, dumped, keep_owners
from polder.apiserver.webhooks_match import object_of

_OBJECT = struct("Object")
_JSON_PATCHES = list_of(struct("JSONPatch"))


@dataclass(frozen=True, slots=True)
class Mutation:
    """One entry of ``spec.mutations``; ``merges`` tells ApplyConfiguration from JSONPatch."""

    expression: Compiled
    merges: bool


@dataclass(frozen=True, slots=True)
class MutatingPolicy:
    """A policy, compiled."""

    conditions: tuple[tuple[str, Compiled], ...]
    composition: Composition
    mutations: tuple[Mutation, ...]
    again: bool


class MutationFailedError(Exception):
    """A mutation that cannot be made; the sentence says why."""


def compile_mutating(policy: Raw) -> MutatingPolicy:
    """Never fails: an expression that does not compile fails when it is run."""
    spec = policy.get("spec") or {}
    has_params = bool(spec.get("paramKind"))
    composition = compose(spec.get("variables") or [], variables_of(params=has_params), mutating=True)
    mutations = []
    for row in spec.get("mutations") or []:
        merges = row.get("patchType") == "ApplyConfiguration"
        said = row.get("applyConfiguration" if merges else "jsonPatch") or {}
        wanted = _OBJECT if merges else _JSON_PATCHES
        made = compiled(str(said.get("expression", "")), composition.kinds, (wanted,), mutating=True)
        mutations.append(Mutation(made, merges))
    again = spec.get("reinvocationPolicy") == "IfNeeded"
    return MutatingPolicy(compile_conditions(spec, params=has_params), composition, tuple(mutations), again)


class MutatingPolicies:
    """Runs the mutating policies of a write."""

    def __init__(self, policies: Policies[MutatingPolicy], cel: Cel) -> None:
        self._policies = policies
        self._cel = cel

    async def change(self, context: AdmissionContext, round_: Reinvocation) -> None:
        """One round. Raises ApiError where a policy whose failure policy is Fail cannot be applied."""
        meeting = await self._policies.meet(context)
        troubles = list(meeting.troubles)
        if meeting.invocations:
            round_.begin(object_of(context))
        answers: dict[Any, Any] = {}
        for invocation in meeting.invocations:
            for param in invocation.params:
                troubles += await self._run(context, invocation, (param, answers), round_)
        if meeting.invocations:
            round_.end(object_of(context))
        if troubles:
            raise _refused(context, troubles)

    async def _run(
        self, context: AdmissionContext, invocation: Invocation[MutatingPolicy],
        given: tuple[Raw | None, dict[Any, Any]], round_: Reinvocation,
    ) -> list[Trouble]:  # fmt: skip
        policy, param = invocation.compiled, given[0]
        meta = (param or {}).get("metadata") or {}
        mark = (invocation.policy.key.name, invocation.binding.key.name, meta.get("namespace"), meta.get("name"))
        before, troubles = dumped(object_of(context)), []
        evaluation = await prepare(self._policies, self._cel, context, invocation, given)
        try:
            if not await conditions_hold(policy.conditions, evaluation) or not round_.takes_part(mark):
                return []
            for mutation in policy.mutations:
                if context.obj is None and (context.subject is None or context.subject.take is None):
                    continue
                await self._mutate(context, invocation, mutation, evaluation)
                evaluation = await prepare(self._policies, self._cel, context, invocation, given)
        except (ConditionsFailedError, MutationFailedError) as error:
            if fails(invocation.policy):
                troubles.append(Trouble(invocation.policy.key.name, invocation.binding.key.name, str(error)))
        if dumped(object_of(context)) != before:
            round_.require()
            round_.wanted = True
        if policy.again:
            round_.previously.add(mark)
        return troubles

    async def _mutate(
        self, context: AdmissionContext, invocation: Invocation[MutatingPolicy], mutation: Mutation,
        evaluation: Evaluation,
    ) -> None:  # fmt: skip
        """Raises MutationFailedError."""
        try:
            value = await evaluation.run(mutation.expression, Budget())
            live: Raw = evaluation.values["object"]
            changed = self._merged(context, invocation, live, value) if mutation.merges else _patched(live, value)
        except (CelError, Fault) as error:
            made = mutation.expression
            why = str(error) if made.program is None else f"expression '{made.expression}' resulted in error: {error}"
            raise MutationFailedError(why) from error
        if changed is None:
            return
        meta, was = changed.get("metadata"), live.get("metadata") or {}
        if not isinstance(meta, dict) or any(meta.get(k) != was.get(k) for k in KEPT_FIELDS):
            raise MutationFailedError(f"a mutation may not change any of metadata.{', '.join(KEPT_FIELDS)}")
        keep_owners(meta, was)
        changed |= {"apiVersion": live["apiVersion"], "kind": live["kind"]}
        try:
            await self._policies.forms.take(context, changed, invocation.kind)
        except ApiError as error:
            raise MutationFailedError(str(error)) from error

    def _merged(self, context: AdmissionContext, invocation: Invocation[MutatingPolicy], live: Raw, value: Any) -> Raw:
        if not isinstance(value, DynamicObject):
            raise MutationFailedError("unsupported return type from ApplyConfiguration expression")
        mismatch = misnamed(value, value.type_name)
        if mismatch:
            raise MutationFailedError(f"type mismatch: {mismatch}")
        config = {**to_json(value), "apiVersion": live["apiVersion"], "kind": live["kind"]}
        if context.subject is not None:
            kind = type_of_schema(named(definition_name(context.subject.kind)))
        else:
            resource = context.resource if context.resource.custom is not None else Resource(invocation.kind)
            kind = scope_of(resource, "").versions.type_in(invocation.kind.api_version)
        try:
            check(kind, config)
        except TypedError as error:
            raise MutationFailedError(
                f"error applying patch: failed to convert patch object to typed object: {error}"
            ) from error
        wholes = atomics(kind, config)
        if wholes:
            listed = ", ".join(wholes)
            raise MutationFailedError(
                f"error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {listed}"
            )
        merged: Raw = merge(kind, live, config)
        return dict(merged)


def _patched(live: Raw, value: Any) -> Raw | None:
    """None where a test in the patch fails: then nothing is changed."""
    operations = to_patch(value)
    for operation in operations:
        if not isinstance(operation.get("from", ""), str) or not operation.get("from", "x"):
            operation.pop("from", None)
    try:
        return dict(apply_json(live, operations))
    except ApiError as error:
        if "test failed" in error.message:
            return None
        raise MutationFailedError(f"JSON Patch: {error.message}") from error


def atomics(kind: Type, value: Any, path: str = "") -> list[str]:
    """The places in an apply configuration that would be replaced as a whole."""
    found: list[str] = []
    if isinstance(value, dict):
        if kind.is_map and not is_granular(kind):
            found.append(path)
        for key, inner in value.items():
            part = kind.fields.get(key)
            if part is not None:
                found += atomics(part, inner, f"{path}.{key}")
    elif isinstance(value, list):
        if kind.is_list and kind.relation == "atomic" and not is_associative(kind):
            found.append(path)
        if kind.items is not None:
            for number, inner in enumerate(value):
                found += atomics(kind.items, inner, f"{path}[{number}]")
    return found


def misnamed(value: Any, expected: str) -> str:
    """What is wrong with the names of an object's types, which must be those of the fields that hold them."""
    if isinstance(value, DynamicObject):
        if value.type_name != expected:
            return (
                f'unexpected type name "{value.type_name}", expected "{expected}", '
                "which matches field name path from root Object type"
            )
        inner = ((each, f"{expected}.{name}") for name, each in value.fields.items())
    elif isinstance(value, list):
        inner = ((each, expected) for each in value)
    else:
        return ""
    return next((problem for each, path in inner if (problem := misnamed(each, path))), "")


def _refused(context: AdmissionContext, troubles: list[Trouble]) -> ApiError:
    sentences = []
    for t in troubles:
        bound = f"policy '{t.policy}' with binding '{t.binding}'" if t.binding else f'policy "{t.policy}"'
        sentences.append(f"{bound} denied request: {t.message}")
    refused = not_admitted(context, sentences[0], "Invalid", 403)
    refused.message = sentences[0]
    refused.details["causes"] = [{"message": sentence} for sentence in sentences]
    return refused
