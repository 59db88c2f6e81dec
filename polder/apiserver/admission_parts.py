"""Admission by what users registered, put together from the server's parts."""

from __future__ import annotations

from collections.abc import Sequence

from polder.api.errors import internal
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import CustomKinds, Resource
from polder.apiserver.hooks import Parts
from polder.apiserver.webhooks import Webhooks
from polder.apiserver.webhooks_chain import RegisteredAdmission
from polder.apiserver.webhooks_forms import Forms
from polder.apiserver.webhooks_index import Registrations
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.store.protocol import Store


def registered_admission(store: Store, parts: Parts, custom: CustomKinds, clock: Clock) -> RegisteredAdmission | None:
    """What a server needs that can call out; None for one that cannot."""
    if parts.outcalls is None:
        return None
    registrations = Registrations(store)
    forms = forms_of(custom)
    webhooks = Webhooks(store, registrations, parts.outcalls, forms, no_conditions, clock)
    return RegisteredAdmission(registrations, parts.tenancy, webhooks)


def forms_of(custom: CustomKinds) -> Forms:
    """The versions of resources."""

    async def siblings(tenant: TenantName, resource: Resource) -> Sequence[Resource]:
        own = resource.kind
        return [r for r in await custom.all(tenant) if (r.kind.group, r.kind.plural) == (own.group, own.plural)]

    async def convert_custom(tenant: TenantName, obj: Raw, old: Resource, new: Resource) -> Raw:
        del tenant, old
        return {**obj, "apiVersion": new.kind.api_version}

    return Forms(siblings, convert_custom)


async def no_conditions(conditions: Sequence[Raw], context: AdmissionContext, kind: Kind, strict: bool) -> bool:
    raise internal("match conditions cannot be evaluated")
