"""What ValidatingAdmissionPolicy and MutatingAdmissionPolicy have in common: which policies, bindings and params a write meets.

Source: apiserver's admission/plugin/policy/generic and matching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from polder.api.errors import ApiError
from polder.api.kinds import Kind
from polder.api.labelselector import matcher_of
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.crdconvert import breathe
from polder.apiserver.objects import decode_entry
from polder.apiserver.webhooks_forms import Forms
from polder.apiserver.webhooks_index import Found, Registrations, Remembered
from polder.apiserver.webhooks_match import Match, match_rules, matches_namespace, matches_object, namespace_of
from polder.base.ids import TenantName
from polder.store.protocol import Key, Prefix, Store

PARAMS_LIMIT: Final = 1000
"""Params of one binding: each is an evaluation."""
COMPILED: Final = 32 * 1024 * 1024
"""Bytes, about, of compiled policies that are remembered."""
HEAVY: Final = 4096
"""Bytes of a policy from which on it is compiled in a thread."""
TURN: Final = 32
"""Policies that are compared with a write before others get their turn."""

KindOf = Callable[[TenantName, str, str], Any]
"""Finds the Resource of a tenant by ``apiVersion`` and kind; a coroutine, None if there is none."""
T = TypeVar("T")


class PolicyConfigError(Exception):
    """A policy or binding that cannot be applied; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What went wrong with a policy (and a binding of it) whose failure policy is Fail."""

    policy: str
    binding: str
    message: str


@dataclass(frozen=True, slots=True)
class Invocation(Generic[T]):
    """A policy that a write meets: as which kind, with which binding, with which params (None: without)."""

    policy: Found
    compiled: T
    kind: Kind
    binding: Found
    params: Sequence[Raw | None]


@dataclass(frozen=True, slots=True)
class Meeting(Generic[T]):
    """All of one write."""

    invocations: Sequence[Invocation[T]] = ()
    troubles: Sequence[Trouble] = ()


def fails(policy: Found) -> bool:
    """Whether errors of a policy refuse the request."""
    return bool((policy.obj.get("spec") or {}).get("failurePolicy") != "Ignore")


@dataclass(slots=True)
class Policies(Generic[T]):
    """Finds what a write meets. ``compile_policy`` makes of a policy's object what is run."""

    store: Store
    registered: Registrations
    forms: Forms
    kind_of: KindOf
    compile_policy: Callable[[Raw], T]
    resources: tuple[str, str]
    _compiled: Remembered[T] = field(default_factory=lambda: Remembered(COMPILED))

    async def meet(self, context: AdmissionContext) -> Meeting[T]:
        """Raises ApiError 404 where the namespace is gone."""
        policies = await self.registered.of(self.resources[0], context.tenant)
        if not policies:
            return Meeting()
        bindings: dict[str, list[Found]] = {}
        for row in await self.registered.of(self.resources[1], context.tenant):
            bindings.setdefault((row.obj.get("spec") or {}).get("policyName", ""), []).append(row)
        found: list[Invocation[T]] = []
        troubles: list[Trouble] = []
        for number, policy in enumerate(policies):
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
            bound = bindings.get(policy.key.name)
            if bound:
                await self._meet_policy(context, policy, bound, (found, troubles))
        return Meeting(found, troubles)

    async def _meet_policy(
        self, context: AdmissionContext, policy: Found, bindings: Sequence[Found],
        into: tuple[list[Invocation[T]], list[Trouble]],
    ) -> None:  # fmt: skip
        spec, (found, troubles) = policy.obj.get("spec") or {}, into

        def trouble(binding: str, why: str) -> None:
            if fails(policy):
                which = "binding" if binding else "policy"
                troubles.append(Trouble(policy.key.name, binding, f"failed to configure {which}: {why}"))

        try:
            match = await self._matches(spec.get("matchConstraints") or {}, context)
            if match is None:
                return
            resource = await self._param_resource(context, spec.get("paramKind"))
        except PolicyConfigError as error:
            trouble("", str(error))
            return
        made = await self._compile(policy)
        for binding in bindings:
            try:
                said = binding.obj.get("spec") or {}
                constraints = said.get("matchResources")
                if constraints and await self._matches(constraints, context) is None:
                    continue
                params = await self._params(context, resource, said.get("paramRef") if resource else None)
            except PolicyConfigError as error:
                trouble(binding.key.name, str(error))
                continue
            found.append(Invocation(policy, made, match.kind, binding, params))

    async def _compile(self, policy: Found) -> T:
        known = self._compiled.get(policy.key, policy.revision)
        if known is not None:
            return known
        size = len(str(policy.obj.get("spec")))
        build = self.compile_policy
        made = build(policy.obj) if size < HEAVY else await asyncio.to_thread(build, policy.obj)
        return self._compiled.put(policy.key, policy.revision, made, 10 * size + 4096)

    async def _matches(self, constraints: Raw, context: AdmissionContext) -> Match | None:
        """Raises PolicyConfigError for selectors that cannot be used, ApiError 404."""
        try:
            if not matches_object(constraints.get("objectSelector"), context):
                return None
            equivalents = await self.forms.equivalents(context)
            how = constraints.get("matchPolicy") or "Equivalent"
            excluded = constraints.get("excludeResourceRules") or []
            if excluded and match_rules(excluded, context, how, equivalents) is not None:
                return None
            rules = constraints.get("resourceRules") or []
            match = match_rules(rules, context, how, equivalents) if rules else Match(context.resource.kind)
            if match is None or not await matches_namespace(constraints.get("namespaceSelector"), context, self.store):
                return None
        except ValueError as error:
            raise PolicyConfigError(str(error)) from error
        return match

    async def _param_resource(self, context: AdmissionContext, kind: Mapping[str, str] | None) -> Any:
        if not kind:
            return None
        version, name = kind.get("apiVersion", ""), kind.get("kind", "")
        found = await self.kind_of(context.tenant, version, name)
        if found is None:
            raise PolicyConfigError(f"failed to find resource referenced by paramKind: '{version}, Kind={name}'")
        return found

    async def _params(self, context: AdmissionContext, resource: Any, reference: Raw | None) -> list[Raw | None]:
        """Raises PolicyConfigError."""
        if resource is None or not reference:
            return [None]
        place = ""
        if resource.kind.namespaced:
            place = reference.get("namespace") or namespace_of(context)
            if not place:
                raise PolicyConfigError(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                )
        elif reference.get("namespace"):
            raise PolicyConfigError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        found = await self._read_params(context.tenant, resource, place, reference)
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise PolicyConfigError("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    async def _read_params(self, tenant: TenantName, resource: Any, place: str, reference: Raw) -> list[Raw | None]:
        name, selector = reference.get("name"), reference.get("selector")
        if name:
            entry = await self.store.get(Key(resource.kind.resource, tenant, place, name))
            return [] if entry is None else [_shown(decode_entry(entry), resource.kind)]
        if selector is None:
            raise PolicyConfigError("one of name or selector must be provided")
        try:
            matcher = matcher_of(selector)
        except ValueError as error:
            raise PolicyConfigError(str(error)) from error
        page = await self.store.list(Prefix(resource.kind.resource, tenant, place))
        found: list[Raw | None] = []
        size = 0
        for entry in page.entries:
            size = await breathe(size + len(entry.value))
            obj = decode_entry(entry)
            if matcher.matches(obj):
                found.append(_shown(obj, resource.kind))
            if len(found) > PARAMS_LIMIT:
                raise PolicyConfigError(f"the selector of paramRef chooses more than {PARAMS_LIMIT} params")
        return found


def _shown(obj: Raw, kind: Kind) -> Raw:
    """A param in the form in which its kind was named."""
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind}


def not_admitted(context: AdmissionContext, message: str, reason: str, code: int) -> ApiError:
    """The refusal of a policy: upstream's 403 sentence with the policy's own reason and code."""
    kind = context.resource.kind
    details: Raw = {"name": context.name, "kind": kind.plural, "causes": [{"message": message}]}
    if kind.group:
        details["group"] = kind.group
    return ApiError(code, reason, f'{kind.qualified} "{context.name}" is forbidden: {message}', details)
