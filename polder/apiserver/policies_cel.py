"""Expressions of policies and match conditions: their variables, compiling them, running them without holding up others.

A program that takes longer than a turn of the event loop is run from its beginning in a thread, one of a tenant at a time. What
it asks the authorizer is answered between runs. Source: apiserver's admission/plugin/cel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from polder.api.cel import Budget, CelError, CelType, Program, TooLongError, compile_cel
from polder.api.cel.authorizer import (
    AUTHORIZER,
    RESOURCE_CHECK,
    Answer,
    Question,
    UnansweredError,
    authorizer_value,
    resource_check,
)
from polder.api.cel.errors import Fault
from polder.api.cel.program import MATCH_LIMIT, TURN
from polder.api.cel.types import BOOL, DYN, MAP_DYN, STRING, list_of, map_of, struct
from polder.api.cel.values import NONE, Fields, Optional
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.hooks import Authorizer
from polder.apiserver.outconn import Turns
from polder.apiserver.types import Identity, RequestInfo, Requirement, Role
from polder.apiserver.webhooks_match import namespace_of
from polder.base.ids import TenantName

THREADS: Final = 2
"""Expressions that run in threads at a time."""
REQUEST_RESOURCE: Final = "authorizer.requestResource"
_GVK = struct("kubernetes.GroupVersionKind", {"group": STRING, "version": STRING, "kind": STRING})
_GVR = struct("kubernetes.GroupVersionResource", {"group": STRING, "version": STRING, "resource": STRING})
_USER = struct(
    "kubernetes.UserInfo",
    {"username": STRING, "uid": STRING, "groups": list_of(STRING), "extra": map_of(STRING, list_of(STRING))},
)
REQUEST: Final = struct(
    "kubernetes.AdmissionRequest",
    {
        "kind": _GVK, "resource": _GVR, "subResource": STRING, "requestKind": _GVK, "requestResource": _GVR,
        "requestSubResource": STRING, "name": STRING, "namespace": STRING, "operation": STRING, "userInfo": _USER,
        "dryRun": BOOL, "options": DYN,
    },
)  # fmt: skip
_META = struct(
    "kubernetes.NamespaceMetadata",
    {
        "name": STRING, "generateName": STRING, "namespace": STRING, "labels": map_of(STRING, STRING),
        "annotations": map_of(STRING, STRING), "UID": STRING, "creationTimestamp": DYN, "deletionTimestamp": DYN,
        "deletionGracePeriodSeconds": DYN, "generation": DYN, "resourceVersion": STRING, "finalizers": list_of(STRING),
    },
)  # fmt: skip
_STATUS = struct("kubernetes.NamespaceStatus", {"phase": STRING, "conditions": list_of(MAP_DYN)})
_SPEC = struct("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)})
NAMESPACE: Final = struct("kubernetes.Namespace", {"metadata": _META, "status": _STATUS, "spec": _SPEC})

Decide = Callable[[Question], Awaitable[Answer]]
"""Answers a question of an expression."""


def variables_of(*, params: bool = False, authorizer: bool = True) -> dict[str, CelType]:
    """The variables of an expression on a write."""
    found = {"object": DYN, "oldObject": DYN, "request": REQUEST, "namespaceObject": NAMESPACE}
    if params:
        found["params"] = DYN
    if authorizer:
        found |= {"authorizer": AUTHORIZER, REQUEST_RESOURCE: RESOURCE_CHECK}
    return found


def shown_namespace(namespace: Raw | None) -> Raw | None:
    """What expressions may see of a namespace."""
    if namespace is None:
        return None
    meta = namespace["metadata"]
    wanted = set(_META.fields or ()) - {"UID"}
    shown = {name: meta[name] for name in wanted if name in meta}
    status = namespace.get("status") or {}
    return {
        "metadata": {**shown, "UID": meta.get("uid", "")},
        "status": {name: status[name] for name in ("phase", "conditions") if name in status},
        "spec": {"finalizers": (namespace.get("spec") or {}).get("finalizers") or []},
    }


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression, compiled or not. ``label`` is for messages."""

    expression: str
    program: Program | None
    problem: str = ""


def compiled(
    expression: str, variables: Mapping[str, CelType], results: Sequence[CelType | None], *, mutating: bool = False
) -> Compiled:
    """Compiles to the first of the result types that fits."""
    problem = ""
    for result in results:
        try:
            return Compiled(expression, compile_cel(expression, variables, result, mutating=mutating))
        except CelError as error:
            problem = problem or str(error)
    if len(results) > 1:
        names = " ".join(str(kind) for kind in results)
        with suppress(CelError):  # the first problem says it
            program = compile_cel(expression, variables, None, mutating=mutating)
            problem = f"must evaluate to one of [{names}] but got {program.result}"
    return Compiled(expression, None, f"compilation failed: {problem}")


@dataclass(frozen=True, slots=True)
class Composition:
    """The variables that a policy declares, in order; each may use those before it."""

    declared: tuple[tuple[str, Compiled], ...]
    kinds: Mapping[str, CelType]


def compose(declared: Sequence[Raw], kinds: Mapping[str, CelType], *, mutating: bool = False) -> Composition:
    """Compiles a policy's ``variables``."""
    known: dict[str, CelType] = {}
    found = []
    for row in declared:
        scope = {**kinds, "variables": struct("kubernetes.variables", dict(known))}
        made = compiled(str(row.get("expression", "")), scope, (None,), mutating=mutating)
        name = str(row.get("name", ""))
        found.append((name, made))
        known[name] = made.program.result if made.program is not None else DYN
    return Composition(tuple(found), {**kinds, "variables": struct("kubernetes.variables", known)})


class LazyVariables(Fields):
    """``variables``: each is computed when it is first used, and once."""

    __slots__ = ("_budget", "_done", "_programs", "_values")
    type_name = "kubernetes.variables"

    def __init__(self, composition: Composition, values: dict[str, Any]) -> None:
        self._programs = dict(composition.declared)
        self._values = values
        self._done: dict[str, Any] = {}
        self._budget = Budget()

    def use(self, budget: Budget) -> None:
        """What is computed from now on is paid from this budget."""
        self._budget = budget

    def find(self, name: str) -> Optional:
        """The value of a variable. Raises Fault where it fails."""
        if name in self._done:
            found = self._done[name]
            if isinstance(found, Fault):
                raise found
            return Optional(True, found)
        made = self._programs.get(name)
        if made is None:
            return NONE
        if made.program is None:
            raise self._failed(name, made.problem)
        try:
            self._done[name] = made.program.run(self._values, self._budget)
        except (TooLongError, UnansweredError):
            raise
        except CelError as error:
            raise self._failed(name, str(error)) from None
        return Optional(True, self._done[name])

    def _failed(self, name: str, why: str) -> Fault:
        fault = self._done[name] = Fault(f'composited variable "{name}" fails to evaluate: {why}')
        return fault

    def names(self) -> list[str]:
        """All variables."""
        return list(self._programs)


@dataclass(slots=True)
class Evaluation:
    """The values of one write (and one param) for all expressions of a policy. ``answers`` outlive it within the write."""

    values: dict[str, Any]
    answers: dict[Question, Answer]
    tenant: TenantName
    decide: Decide
    turns: Turns
    variables: LazyVariables | None = None

    async def run(self, made: Compiled, budget: Budget) -> Any:
        """The value of an expression. Raises CelError."""
        if made.program is None:
            raise CelError(made.problem)
        while True:
            left = budget.left
            budget.turn = TURN
            try:
                return self._once(made.program, budget)
            except TooLongError:
                budget.left = left
                try:
                    return await self._elsewhere(made.program, budget)
                except UnansweredError as error:
                    asked = error.question
            except UnansweredError as error:
                asked = error.question
            budget.left = left
            self.answers[asked] = await self.decide(asked)

    def _once(self, program: Program, budget: Budget) -> Any:
        if self.variables is not None:
            self.variables.use(budget)
        return program.run(self.values, budget)

    async def _elsewhere(self, program: Program, budget: Budget) -> Any:
        budget.turn = 2**62
        async with self.turns.turn(self.tenant):
            return await asyncio.to_thread(self._once, program, budget)


@dataclass(slots=True)
class Cel:
    """Makes evaluations; answers what they ask the authorizer."""

    authorizer: Authorizer
    turns: Turns = field(default_factory=lambda: Turns(1))

    def values(self, objects: tuple[Raw | None, Raw | None], request: Raw) -> dict[str, Any]:
        """The variables of every expression but params and namespace. ``objects`` are the new one and the old one."""
        asks = {key: value for key, value in request.items() if key not in {"object", "oldObject"}}
        return {"object": objects[0], "oldObject": objects[1], "request": asks}

    def evaluation(
        self, context: AdmissionContext, values: dict[str, Any], answers: dict[Question, Answer],
        composition: Composition | None = None,
    ) -> Evaluation:  # fmt: skip
        """For a set of values; adds the authorizer and the policy's own variables."""
        check = authorizer_value(answers)
        kind = context.resource.kind
        about = Question(
            group=kind.group, resource=kind.plural, subresource=context.subresource, namespace=namespace_of(context),
            name=context.name,
        )  # fmt: skip
        values = {**values, "authorizer": check, REQUEST_RESOURCE: resource_check(check, about)}

        async def decide(question: Question) -> Answer:
            return await self._answer(context, question)

        made = Evaluation(values, answers, context.tenant, decide, self.turns)
        if composition is not None and composition.declared:
            made.variables = values["variables"] = LazyVariables(composition, values)
        return made

    async def _answer(self, context: AdmissionContext, question: Question) -> Answer:
        who = context.who
        if question.service_account is not None:
            namespace, name = question.service_account
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
            who = Identity(f"system:serviceaccount:{namespace}:{name}", Role.SERVICE_ACCOUNT, context.tenant, groups)
        what = RequestInfo(
            context.tenant, question.verb, question.path, question.group, "*" if question.resource else "",
            question.resource, question.subresource, question.namespace, question.name,
            _requirements(question.field_selector), _requirements(question.label_selector),
        )  # fmt: skip
        decision = await self.authorizer.decide(who, what)
        return Answer(decision.allowed, decision.reason)


def _requirements(selector: str) -> tuple[Requirement, ...]:
    """The equality clauses of a selector; others tell an authorizer nothing that it may rely on."""
    found = []
    for clause in selector.split(","):
        key, equal, value = clause.partition("=")
        if equal and not key.endswith("!"):
            found.append(Requirement(key.strip(), "In", (value.lstrip("=").strip(),)))
    return tuple(found)


class ConditionsFailedError(Exception):
    """Match conditions that could not be evaluated; the sentence says why."""


async def conditions_hold(conditions: Sequence[tuple[str, Compiled]], evaluation: Evaluation) -> bool:
    """Whether all hold; one that is false decides, whatever others fail at. Raises ConditionsFailedError."""
    budget, problems = Budget(MATCH_LIMIT), []
    for _, made in conditions:
        try:
            if await evaluation.run(made, budget) is False:
                return False
        except CelError as error:
            problems.append(f"expression '{made.expression.strip()}' resulted in error: {error}")
    if problems:
        raise ConditionsFailedError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return True
