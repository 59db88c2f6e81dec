"""Admission by what users registered, put together from the server's parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from polder.api.cel.types import BOOL
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.admission_names import DEFAULT
from polder.apiserver.catalog import Resource
from polder.apiserver.crdregistry import CrdRegistry
from polder.apiserver.hooks import Parts
from polder.apiserver.policies import KindOf, Policies
from polder.apiserver.policies_cel import Cel, Compiled, ConditionsFailedError, compiled, conditions_hold, variables_of
from polder.apiserver.policies_mutating import MutatingPolicies, compile_mutating
from polder.apiserver.policies_types import Find, PolicyTypes
from polder.apiserver.policies_validating import ValidatingPolicies, compile_validating
from polder.apiserver.webhooks import Webhooks
from polder.apiserver.webhooks_chain import RegisteredAdmission
from polder.apiserver.webhooks_forms import Forms
from polder.apiserver.webhooks_index import (
    MUTATING_BINDINGS,
    MUTATING_POLICIES,
    VALIDATING_BINDINGS,
    VALIDATING_POLICIES,
    Registrations,
)
from polder.apiserver.webhooks_match import object_of
from polder.apiserver.webhooks_review import request_of
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.store.protocol import Store

PROGRAMS = 512
"""Match conditions whose programs are remembered; validation bounds the length of each."""


def registered_admission(
    store: Store, parts: Parts, custom: CrdRegistry, clock: Clock, plugins: Sequence[str] = DEFAULT
) -> RegisteredAdmission | None:
    """What a server needs that can call out; None for one that cannot."""
    if parts.outcalls is None:
        return None
    rows, forms, cel = Registrations(store), forms_of(custom), Cel(parts.authorizer)
    kind_of = kinds_by_name(custom)
    conditions = Conditions(store, forms, cel)
    webhooks = Webhooks(store, rows, parts.outcalls, forms, conditions.hold, clock)
    mutating = Policies(store, rows, forms, kind_of, compile_mutating, (MUTATING_POLICIES, MUTATING_BINDINGS))
    validating = Policies(store, rows, forms, kind_of, compile_validating, (VALIDATING_POLICIES, VALIDATING_BINDINGS))
    return RegisteredAdmission(
        rows, parts.tenancy, webhooks, MutatingPolicies(mutating, cel), ValidatingPolicies(validating, cel),
        PolicyTypes(resources_by_path(custom), kind_of), frozenset(plugins),
    )  # fmt: skip


def kinds_by_name(custom: CrdRegistry) -> KindOf:
    """Finds a tenant's resource by ``apiVersion`` and kind."""
    built_in = {(kind.api_version, kind.kind): Resource(kind) for kind in BUILT_IN}

    async def find(tenant: TenantName, api_version: str, kind: str) -> Resource | None:
        known = built_in.get((api_version, kind))
        if known is not None:
            return known
        wanted = (api_version, kind)
        return next((r for r in await custom.all(tenant) if (r.kind.api_version, r.kind.kind) == wanted), None)

    return find


def resources_by_path(custom: CrdRegistry) -> Find:
    """Finds a tenant's resource by group, version and plural."""
    built_in = {(kind.group, kind.version, kind.plural): Resource(kind) for kind in BUILT_IN}

    async def find(tenant: TenantName, group: str, version: str, plural: str) -> Resource | None:
        return built_in.get((group, version, plural)) or await custom.find(tenant, group, version, plural)

    return find


class Conditions:
    """Evaluates the match conditions of webhooks."""

    def __init__(self, store: Store, forms: Forms, cel: Cel) -> None:
        self._store = store
        self._forms = forms
        self._cel = cel
        self._compiled: OrderedDict[str, Compiled] = OrderedDict()

    async def hold(self, conditions: Sequence[Raw], context: AdmissionContext, kind: Kind, strict: bool) -> bool:
        """See ``webhooks.Conditions``: where a failure does not count, it is as if one did not hold. Raises
        ConditionsFailedError.
        """
        own = context.subject is None
        obj = await self._forms.show(context, context.obj, kind) if own else object_of(context)
        old = await self._forms.show(context, context.old, kind) if own else None
        values = self._cel.values((obj, old), request_of(context, kind, None, None))
        values["namespaceObject"] = None
        evaluation = self._cel.evaluation(context, values, {})
        made = [(str(row.get("name", "")), self._program(str(row.get("expression", "")))) for row in conditions]
        try:
            return await conditions_hold(made, evaluation)
        except ConditionsFailedError:
            if strict:
                raise
            return False

    def _program(self, expression: str) -> Compiled:
        """Equal expressions are compiled once; the least used are dropped."""
        found = self._compiled.get(expression)
        if found is None:
            found = self._compiled[expression] = compiled(expression, variables_of(), (BOOL,))
            while len(self._compiled) > PROGRAMS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(expression)
        return found


def forms_of(custom: CrdRegistry) -> Forms:
    """The versions of resources."""

    async def siblings(tenant: TenantName, resource: Resource) -> Sequence[Resource]:
        return await custom.versions(tenant, resource.kind.group, resource.kind.plural)

    async def convert_custom(obj: Raw, new: Resource) -> Raw:
        assert new.custom is not None
        return await new.custom.convert(obj, new.kind.version)

    return Forms(siblings, convert_custom)
