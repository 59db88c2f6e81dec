"""Mutating and validating admission webhooks, each tenant's own.

Whom a tenant's webhooks may hold up: everybody who writes in the tenant, and nobody else. They are asked about the writes of
users, accounts and Polder's controllers; of the latter with little patience, since a controller's worker serves other
tenants too: after one that was too slow, the tenant's webhooks are taken as failed for a while. They are never asked
about what keeps the platform going: the writes of nodes, the kinds that only Polder writes, networks' status, its Leases
and Events, anything of a tenant that is being deleted, and admission's own configuration.

Source: apiserver's admission/plugin/webhook (mutating, validating, generic).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from polder.api.errors import ApiError, bad_request, forbidden, internal
from polder.api.kinds import POLDER_WRITTEN, Kind
from polder.api.meta import Raw
from polder.api.patch import apply_json
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.outcalls import OutcallError, Outcalls, with_query
from polder.apiserver.policies_cel import ConditionsFailedError
from polder.apiserver.types import Role
from polder.apiserver.webhooks_forms import Forms
from polder.apiserver.webhooks_index import (
    EXEMPT,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    Found,
    Registrations,
)
from polder.apiserver.webhooks_match import (
    Match,
    bad_selector,
    match_rules,
    matches_namespace,
    matches_object,
    object_of,
    old_of,
)
from polder.apiserver.webhooks_review import ReviewError, Verdict, ask, refusal, request_of, verify
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.store.protocol import Store

log = logging.getLogger(__name__)

TIMEOUT: Final = 10
"""Seconds that a webhook has where its configuration does not say."""
COMPONENT_PATIENCE: Final = 3.0
"""Seconds that a webhook has for a write of Polder's own controllers and scheduler."""
AT_ONCE: Final = 8
"""Validating webhooks that are asked at a time about one write: each question holds the object twice."""
TURN: Final = 64
"""Webhooks that are compared with a write before others get their turn."""
KEPT_FIELDS: Final = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "resourceVersion",
    "generation",
    "deletionTimestamp",
)
"""Metadata that no admission may change."""
NETWORK_STATUS: Final = ("networks.polder.dev", "status")
"""Only Polder writes it: who changed the VXLAN identifier in it would be in another tenant's network."""
NOT_FOR_COMPONENTS: Final = frozenset({"leases.coordination.k8s.io", "events"})

Conditions = Callable[[Sequence[Raw], AdmissionContext, Kind, bool], Awaitable[bool]]
"""(matchConditions, write, as which kind, whether failures count): whether all hold. Raises ConditionsFailedError."""


def concerns_users(context: AdmissionContext) -> bool:
    """Whether what a tenant registered is asked about a write at all."""
    resource, role = context.resource.kind.resource, context.who.role
    if resource in EXEMPT or resource in POLDER_WRITTEN or role is Role.NODE:
        return False
    if (resource, context.subresource) == NETWORK_STATUS:
        return False
    return not (role is Role.COMPONENT and resource in NOT_FOR_COMPONENTS)


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of a configuration. ``id`` is unique within the tenant's."""

    configuration: str
    id: str
    raw: Raw

    @property
    def name(self) -> str:
        """As messages name it."""
        return str(self.raw.get("name", ""))

    @property
    def ignores_failures(self) -> bool:
        """Whether a call that fails admits."""
        return self.raw.get("failurePolicy") == "Ignore"


@dataclass(slots=True)
class Reinvocation:
    """What decides whether a second round is run and who takes part: who was asked before somebody else changed the object."""

    previously: set[object] = field(default_factory=set)
    required: set[object] = field(default_factory=set)
    second: bool = False
    wanted: bool = False
    output: bytes = b""

    def begin(self, obj: Raw | None) -> None:
        """Before a round: what changed the object in between calls for everybody."""
        if self.second and dumped(obj) != self.output:
            self.require()

    def end(self, obj: Raw | None) -> None:
        """After a round."""
        self.output = dumped(obj)

    def require(self) -> None:
        """The object changed: all who can be asked again and were asked before are needed again."""
        self.required |= self.previously
        self.previously.clear()

    def takes_part(self, id_: object) -> bool:
        """Whether somebody is asked in this round."""
        return not self.second or id_ in self.required


def dumped(obj: Raw | None) -> bytes:
    """For comparison."""
    return orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)


def keep_owners(meta: Raw, before: Raw) -> None:
    """Who owns which fields is not admission's to say."""
    meta.pop("managedFields", None)
    if before.get("managedFields") is not None:
        meta["managedFields"] = before["managedFields"]


def hooks_of(found: Sequence[Found]) -> list[Hook]:
    """The webhooks in their order: configurations by name, then as listed."""
    return [
        Hook(one.key.name, f"{one.key.name}/{hook.get('name', '')}/{number}", hook)
        for one in found
        for number, hook in enumerate(one.obj.get("webhooks") or [])
    ]


async def _turn(number: int) -> None:
    if number % TURN == TURN - 1:
        await asyncio.sleep(0)


class Patience:
    """Of Polder's controllers with each tenant's webhooks: whose were too slow is not waited for, for longer each time, until
    one answers again.
    """

    SHORTEST: Final = 10.0
    LONGEST: Final = 300.0
    """Seconds without asking."""
    TENANTS: Final = 4096

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lost: OrderedDict[TenantName, tuple[float, float]] = OrderedDict()

    def is_over(self, tenant: TenantName) -> bool:
        """Whether the tenant's webhooks are not to be asked."""
        return self._lost.get(tenant, (0.0, 0.0))[0] > self._clock.monotonic()

    def lose(self, tenant: TenantName) -> None:
        """One was too slow."""
        now, known = self._clock.monotonic(), self._lost.pop(tenant, None)
        if known is not None and known[0] > now:
            self._lost[tenant] = known  # of several at the same time
            return
        pause = self.SHORTEST if known is None else min(2 * known[1], self.LONGEST)
        self._lost[tenant] = now + pause, pause
        while len(self._lost) > self.TENANTS:
            self._lost.popitem(last=False)

    def restore(self, tenant: TenantName) -> None:
        """One answered in time."""
        self._lost.pop(tenant, None)


class _CallError(Exception):
    """A webhook gave no good answer; failurePolicy decides."""


class Webhooks:
    """Asks the webhooks."""

    def __init__(
        self, store: Store, registered: Registrations, outcalls: Outcalls, forms: Forms, conditions: Conditions,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._store = store
        self._registered = registered
        self._outcalls = outcalls
        self._forms = forms
        self._conditions = conditions
        self._clock = clock
        self._patience = Patience(clock)

    async def change(self, context: AdmissionContext, round_: Reinvocation) -> None:
        """One round of the mutating webhooks, one after the other. Raises ApiError."""
        hooks = hooks_of(await self._registered.of(MUTATING_WEBHOOKS, context.tenant))
        if not hooks:
            return
        round_.begin(object_of(context))
        for number, hook in enumerate(hooks):
            await _turn(number)
            match = await self._meant(hook, context)
            if match is None or not round_.takes_part(hook.id):
                continue
            changed = await self._change(hook, context, match.kind, f"round_{int(round_.second)}_index_{number}")
            if changed:
                round_.require()
                round_.wanted = True
            if hook.raw.get("reinvocationPolicy") == "IfNeeded":
                round_.previously.add(hook.id)
        round_.end(object_of(context))

    async def check(self, context: AdmissionContext) -> None:
        """The validating webhooks, all at once. Raises the ApiError of the first that refuses."""
        hooks = hooks_of(await self._registered.of(VALIDATING_WEBHOOKS, context.tenant))
        meant = []
        for number, hook in enumerate(hooks):
            await _turn(number)
            if (match := await self._meant(hook, context)) is not None:
                meant.append((hook, match))
        if not meant:
            return
        room = asyncio.Semaphore(AT_ONCE)

        async def one(hook: Hook, kind: Kind) -> None:
            async with room:
                await self._check(hook, context, kind)

        calls = [asyncio.ensure_future(one(hook, match.kind)) for hook, match in meant]
        try:
            await asyncio.wait(calls)
        finally:
            for call in calls:
                call.cancel()
        await asyncio.gather(*calls)

    async def _meant(self, hook: Hook, context: AdmissionContext) -> Match | None:
        raw = hook.raw
        try:
            if not matches_object(raw.get("objectSelector"), context):
                return None
            equivalents = await self._forms.equivalents(context)
            match = match_rules(raw.get("rules") or [], context, raw.get("matchPolicy") or "Equivalent", equivalents)
            if match is None or not await matches_namespace(raw.get("namespaceSelector"), context, self._store):
                return None
        except ValueError as error:
            raise bad_selector(error) from error
        conditions = raw.get("matchConditions") or []
        if not conditions:
            return match
        try:
            return match if await self._conditions(conditions, context, match.kind, not hook.ignores_failures) else None
        except ConditionsFailedError as error:
            raise forbidden(context.resource.kind, context.name, str(error)) from error

    async def _change(self, hook: Hook, context: AdmissionContext, kind: Kind, where: str) -> bool:
        verdict = await self._verdict(hook, context, kind, mutating=True)
        if verdict is None:
            context.audit[f"failed-open.mutation.webhook.admission.k8s.io/{where}"] = hook.name
            return False
        if not verdict.allowed:
            raise refusal(hook.name, verdict.result)
        changed = bool(verdict.patch) and await self._patch(hook, context, kind, verdict.patch)
        told = {"configuration": hook.configuration, "webhook": hook.name, "mutated": changed}
        context.audit[f"mutation.webhook.admission.k8s.io/{where}"] = orjson.dumps(told).decode()
        return changed

    async def _patch(self, hook: Hook, context: AdmissionContext, kind: Kind, operations: Any) -> bool:
        if context.obj is None and (context.subject is None or context.subject.take is None):
            raise internal(
                f'admission webhook "{hook.name}" attempted to modify the object, which is not supported for this operation'
            )
        shown = await self._forms.show(context, object_of(context), kind)
        assert shown is not None
        before = dumped(object_of(context))
        kept = {key: (shown.get("metadata") or {}).get(key) for key in KEPT_FIELDS}
        try:
            changed = apply_json(shown, operations)
            meta = changed.get("metadata")
            if not isinstance(meta, dict):
                raise bad_request("metadata is missing")
            keep_owners(meta, shown.get("metadata") or {})
            for key, value in kept.items():
                if meta.get(key) != value:
                    raise bad_request(f"metadata.{key} may not be changed")
            changed |= {"apiVersion": shown["apiVersion"], "kind": shown["kind"]}
            await self._forms.take(context, changed, kind)
        except ApiError as error:
            raise internal(f'the patch of admission webhook "{hook.name}" cannot be applied: {error}') from error
        return dumped(object_of(context)) != before

    async def _check(self, hook: Hook, context: AdmissionContext, kind: Kind) -> None:
        verdict = await self._verdict(hook, context, kind, mutating=False)
        if verdict is None:
            context.audit[f"failed-open.validating.webhook.admission.k8s.io/{hook.id}"] = hook.name
        elif not verdict.allowed:
            raise refusal(hook.name, verdict.result)

    async def _verdict(self, hook: Hook, context: AdmissionContext, kind: Kind, *, mutating: bool) -> Verdict | None:
        """What the webhook says; None where it failed and may. Raises ApiError."""
        if context.dry_run and hook.raw.get("sideEffects") not in {"None", "NoneOnDryRun"}:
            raise bad_request(f'admission webhook "{hook.name}" does not support dry run')
        try:
            verdict = await self._asked(hook, context, kind, mutating=mutating)
        except _CallError as error:
            message = f'failed calling webhook "{hook.name}": {error}'
            if not hook.ignores_failures:
                raise internal(message) from error
            log.info("tenant %s: %s; it admits, as its failure policy says", context.tenant, message)
            return None
        context.warnings += verdict.warnings
        context.audit.update({f"{hook.name}/{key}": value for key, value in verdict.audit.items()})
        return verdict

    async def _asked(self, hook: Hook, context: AdmissionContext, kind: Kind, *, mutating: bool) -> Verdict:
        seconds = float(hook.raw.get("timeoutSeconds") or TIMEOUT)
        hurried = context.who.role is Role.COMPONENT
        if hurried:
            seconds = min(seconds, COMPONENT_PATIENCE)
            if self._patience.is_over(context.tenant):
                raise _CallError("this tenant's webhooks were too slow for the platform's own writes a moment ago")
        obj = await self._forms.show(context, object_of(context), kind)
        old = await self._forms.show(context, old_of(context), kind)
        try:
            review = ask(request_of(context, kind, obj, old), hook.raw.get("admissionReviewVersions") or [])
            config = with_query(hook.raw.get("clientConfig") or {}, f"timeout={-int(-seconds // 1)}s")
            answer = await self._outcalls.post(context.tenant, config, review.body, seconds)
            if hurried:
                self._patience.restore(context.tenant)
            return verify(review, answer, mutating=mutating)
        except OutcallError as error:
            if hurried and error.timeout:
                self._patience.lose(context.tenant)
            raise _CallError(f"failed to call webhook: {error}") from error
        except ReviewError as error:
            raise _CallError(f"received invalid webhook response: {error}") from error
