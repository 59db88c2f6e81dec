"""Nobody grants what he has not: checks of writes of roles and bindings.

Source: the documentation of RBAC in Kubernetes, "Privilege escalation prevention and bootstrapping".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from polder.api.errors import Field, forbidden, invalid, not_found
from polder.api.kinds import BUILT_IN
from polder.api.meta import Raw
from polder.api.rbac import Held, PolicyRule, RoleRef, breakdown, combinations, compact, quoted_list
from polder.api.rbac_policy import GROUP
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.authz import EVERYTHING, Authorizer
from polder.apiserver.builtin import BINDINGS, CLUSTER_BINDINGS, CLUSTER_ROLES, ROLES
from polder.apiserver.rbac import Rbac
from polder.apiserver.types import RequestInfo

COMBINATIONS: Final = 20_000
"""Grants of one role that are compared with what somebody has: lists of verbs, groups and resources multiply."""
SLICE: Final = 64
"""Grants that are compared before others get their turn."""
_OF_ROLES: Final = frozenset({ROLES, CLUSTER_ROLES})
_OF_BINDINGS: Final = frozenset({BINDINGS, CLUSTER_BINDINGS})
_REFERRED: Final = {k.kind: k for k in BUILT_IN if k.resource in _OF_ROLES}
_KEPT_BY_OTHERS: Final = frozenset({"finalizers", "ownerReferences", "managedFields", "resourceVersion", "generation"})


@dataclass(frozen=True, slots=True)
class Escalation:
    """A checking hook of admission."""

    authorizer: Authorizer
    rbac: Rbac

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 404 (a binding's role is missing), 422 (a binding's role is changed)."""
        resource, obj = context.resource.kind.resource, context.obj
        if obj is None or not context.concerns(resource, "create", "update"):
            return
        if resource in _OF_BINDINGS:
            _check_reference(context, obj)
        elif resource not in _OF_ROLES:
            return
        if context.old is not None and _without_upkeep(obj) == _without_upkeep(context.old):
            return
        if resource in _OF_ROLES:
            await self._role(context, obj)
        else:
            await self._binding(context, obj)

    async def _role(self, context: AdmissionContext, obj: Raw) -> None:
        plural = context.resource.kind.plural
        if await self._may(context, "escalate", plural, context.name):
            return
        await self._confirm(context, msgspec.convert(obj.get("rules") or [], list[PolicyRule]))
        if (_aggregates(obj) or _aggregates(context.old)) and await self._missing(context, EVERYTHING):
            why = "must have cluster-admin privileges to use the aggregationRule"
            raise forbidden(context.resource.kind, context.name, why)

    async def _binding(self, context: AdmissionContext, obj: Raw) -> None:
        ref = msgspec.convert(obj.get("roleRef") or {}, RoleRef)
        kind = _REFERRED.get(ref.kind)
        if kind is None or await self._may(context, "bind", kind.plural, ref.name):
            return
        rules = await self.rbac.role(context.tenant, context.namespace, ref)
        if rules is None:
            raise not_found(kind, ref.name)
        await self._confirm(context, rules.rules)

    async def _may(self, context: AdmissionContext, verb: str, resource: str, name: str) -> bool:
        what = RequestInfo(context.tenant, verb, "", GROUP, "*", resource, namespace=context.namespace, name=name)
        return (await self.authorizer.decide(context.who, what)).allowed

    async def _missing(self, context: AdmissionContext, rules: Sequence[PolicyRule]) -> list[PolicyRule]:
        """What of the rules the caller has not. Raises ApiError 403 for more than can be compared."""
        if sum(map(combinations, rules)) > COMBINATIONS:
            why = f"the rules combine to more than {COMBINATIONS} grants, which only who may escalate can give"
            raise forbidden(context.resource.kind, context.name, why)
        held = Held((await self.authorizer.rules(context.who, context.tenant, context.namespace))[0])
        found = []
        for rule in rules:
            for number, small in enumerate(breakdown(rule)):
                if number % SLICE == 0:
                    await asyncio.sleep(0)
                if not held.covers(small):
                    found.append(small)
        return found

    async def _confirm(self, context: AdmissionContext, rules: Sequence[PolicyRule]) -> None:
        missing = await self._missing(context, rules)
        if missing:
            who = f'user "{context.who.name}" (groups={quoted_list(context.who.groups)})'
            why = f"{who} is attempting to grant RBAC permissions not currently held:\n" + "\n".join(compact(missing))
            raise forbidden(context.resource.kind, context.name, why)


def _aggregates(obj: Raw | None) -> bool:
    return bool(((obj or {}).get("aggregationRule") or {}).get("clusterRoleSelectors"))


def _check_reference(context: AdmissionContext, obj: Raw) -> None:
    """A binding's role stays. Raises ApiError 422."""
    if context.old is not None and obj.get("roleRef") != context.old.get("roleRef"):
        problem = Field("roleRef").invalid(obj.get("roleRef"), "cannot change roleRef")
        raise invalid(context.resource.kind, context.name, [problem])


def _without_upkeep(obj: Raw) -> Raw:
    """The object without what the garbage collector and the server write."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _KEPT_BY_OTHERS}
    return {**obj, "metadata": meta}
