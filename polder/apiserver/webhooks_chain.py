"""What users registered to take part in admission, composed: policies first, then webhooks, then perhaps a second round.

Source of the order: apiserver's plug-in order (MutatingAdmissionPolicy, MutatingAdmissionWebhook, ValidatingAdmissionPolicy,
ValidatingAdmissionWebhook) and its reinvocation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from polder.api.errors import ApiError
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext, Hook
from polder.apiserver.admission_names import DEFAULT
from polder.apiserver.hooks import Tenancy
from polder.apiserver.policies_mutating import MutatingPolicies
from polder.apiserver.policies_types import PolicyTypes
from polder.apiserver.policies_validating import ValidatingPolicies
from polder.apiserver.webhooks import Reinvocation, Webhooks, concerns_users
from polder.apiserver.webhooks_index import EXEMPT, VALIDATING_POLICIES, Registrations

REQUEST_TIME = 34.0
"""Seconds that everything registered has for one write, as upstream's mutating requests."""


@dataclass(slots=True)
class RegisteredAdmission:
    """The policies and webhooks of each tenant."""

    registrations: Registrations
    tenancy: Tenancy
    webhooks: Webhooks
    mutating: MutatingPolicies
    validating: ValidatingPolicies
    types: PolicyTypes
    plugins: frozenset[str] = frozenset(DEFAULT)

    async def change(self, context: AdmissionContext, again: Sequence[Hook]) -> None:
        """See ``admission.Registered``."""
        if context.resource.kind.resource in EXEMPT and context.verb != "delete":
            self.registrations.expect(context.resource.kind.resource, context.tenant)
            if context.resource.kind.resource == VALIDATING_POLICIES:
                await self.types.note(context)
        if not await self._asked(context):
            return
        try:
            async with asyncio.timeout(REQUEST_TIME):
                await self._rounds(context, again)
        except TimeoutError as error:
            raise too_slow() from error

    async def _rounds(self, context: AdmissionContext, again: Sequence[Hook]) -> None:
        policies, hooks = Reinvocation(), Reinvocation()
        await self._round(context, policies, hooks)
        if not (hooks.wanted or policies.wanted) or context.obj is None:
            return
        for hook in again:
            await hook.admit(context)
        hooks.second = policies.second = True
        await self._round(context, policies, hooks)

    async def _round(self, context: AdmissionContext, policies: Reinvocation, hooks: Reinvocation) -> None:
        before = dict(context.obj or {})
        if "MutatingAdmissionPolicy" in self.plugins:
            await self.mutating.change(context, policies)
        if "MutatingAdmissionWebhook" in self.plugins:
            await self.webhooks.change(context, hooks)
        _hold(context, before)

    async def check(self, context: AdmissionContext) -> None:
        """See ``admission.Registered``."""
        if not await self._asked(context):
            return
        try:
            async with asyncio.timeout(REQUEST_TIME):
                if "ValidatingAdmissionPolicy" in self.plugins:
                    await self.validating.check(context)
                if "ValidatingAdmissionWebhook" in self.plugins:
                    await self.webhooks.check(context)
        except TimeoutError as error:
            raise too_slow() from error

    async def _asked(self, context: AdmissionContext) -> bool:
        """A tenant that is being deleted is asked nothing any more."""
        if not concerns_users(context) or not self.registrations.any(context.tenant):
            return False
        return await self.tenancy.phase(context.tenant) != "Terminating"


def _hold(context: AdmissionContext, before: Raw) -> None:
    """Puts back what the request itself could not change, as upstream's strategies do after admission: the status, or for a
    write of the status what stands beside it. A VXLAN identifier stands in a status.
    """
    obj = context.obj
    if obj is None or context.subject is not None or not context.resource.has_status:
        return
    if context.subresource == "status":
        kept = {"apiVersion", "kind", "metadata", "status"}
    elif not context.subresource:
        kept = obj.keys() - {"status"}
    else:
        return
    for name in obj.keys() | before.keys():
        if name in kept:
            continue
        obj.pop(name, None)
        if name in before:
            obj[name] = before[name]


def too_slow() -> ApiError:
    """504: what was registered took all the time of the request."""
    return ApiError(504, "Timeout", "Timeout: request did not complete within requested timeout")
