"""The standard chain of admission: which hooks there are, in which order."""

from __future__ import annotations

from dataclasses import dataclass

from polder.api.core import Namespace, Service
from polder.api.crd import accepted_status
from polder.api.discovery import EndpointSlice
from polder.api.errors import ApiError, forbidden, not_found
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.polder import DEFAULT_NETWORK, SYSTEM_NAMESPACE, Network, Tenant
from polder.api.validation import validate_create
from polder.apiserver.admission import AdmissionContext, Chain, Hook, Registered
from polder.apiserver.admit_networks import Overlap, PortNetworks, References
from polder.apiserver.admit_pods import PodAccounts, PodTolerations, UnsupportedPods
from polder.apiserver.crdregistry import DEFINITIONS
from polder.apiserver.hooks import Bootstrap, Parts, Tenancy
from polder.apiserver.limits import LimitChecks, LimitDefaults
from polder.apiserver.objects import decode_entry
from polder.apiserver.quota import Quotas
from polder.apiserver.quota_recount import Recount
from polder.apiserver.quota_tenant import TenantQuotas
from polder.apiserver.service_claims import HeldAddresses, ServiceClaims
from polder.base.clock import Clock, stamp
from polder.base.ids import TenantName
from polder.store.protocol import Check, Entry, Key, Prefix, Store

NAMESPACES = kind_of(Namespace)
TENANTS = kind_of(Tenant)
POD_NETWORK = (kind_of(Network).resource, SYSTEM_NAMESPACE, DEFAULT_NETWORK)
KEPT = frozenset({(kind_of(t).resource, "default", "kubernetes") for t in (Service, EndpointSlice)})
PROTECTED = frozenset({"default", SYSTEM_NAMESPACE, "kube-public", "kube-node-lease"})


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Nothing is made in a namespace or tenant that is missing or ends."""

    store: Store
    tenancy: Tenancy

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403, 404."""
        if context.concerns(NAMESPACES.resource, "update") and context.obj is not None and context.old is not None:
            context.obj["spec"] = context.old.get("spec") or {}  # finalizers: written by ``finalize`` alone
        if context.verb != "create":
            return
        if context.resource.kind.resource == NAMESPACES.resource and context.obj is not None:
            context.obj["spec"] = {"finalizers": ["kubernetes"]}
        if await self.tenancy.phase(context.tenant) == "Terminating":
            raise forbidden(context.resource.kind, context.name, "the tenant is being terminated")
        if context.namespace and not context.subresource:
            await self._check_namespace(context)

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """What is made in a namespace is committed only while the namespace is as it was looked at."""
        if context.verb == "create" and value is not None and context.namespace:
            entry = await self._check_namespace(context)
            context.along.append(Check(entry.key, entry.revision))

    async def _check_namespace(self, context: AdmissionContext) -> Entry:
        entry = await self.store.get(Key(NAMESPACES.resource, context.tenant, "", context.namespace))
        if entry is None:
            raise not_found(NAMESPACES, context.namespace)
        meta = decode_entry(entry)["metadata"]
        if not meta.get("deletionTimestamp"):
            return entry
        why = f"unable to create new content in namespace {context.namespace} because it is being terminated"
        refused = forbidden(context.resource.kind, context.name, why)
        message = f"namespace {context.namespace} is being terminated"
        refused.details["causes"] = [
            {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
        ]
        raise refused


@dataclass(frozen=True, slots=True)
class FirstNamespaces:
    """The first namespaces go only with their tenant."""

    tenancy: Tenancy

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns(NAMESPACES.resource, "delete") or context.name not in PROTECTED:
            return
        if await self.tenancy.phase(context.tenant) != "Terminating":
            raise forbidden(NAMESPACES, context.name, "this namespace may not be deleted")


@dataclass(frozen=True, slots=True)
class LastingObjects:
    """The ``kubernetes`` service says what the datapath does anyway, and pods without annotation need their network."""

    tenancy: Tenancy

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        where = (context.resource.kind.resource, context.namespace, context.name)
        if context.subresource or where not in {*KEPT, POD_NETWORK}:
            return
        if context.verb == "delete" and await self.tenancy.phase(context.tenant) != "Terminating":
            raise forbidden(context.resource.kind, context.name, "it goes only with its tenant")
        if context.verb == "update" and where in KEPT and _content(context.obj) != _content(context.old):
            raise forbidden(context.resource.kind, context.name, "only its metadata may change")


def _content(obj: Raw | None) -> Raw:
    return {key: value for key, value in (obj or {}).items() if key not in ("metadata", "status")}


@dataclass(frozen=True, slots=True)
class FirstObjects:
    """What is committed beside a tenant and a namespace."""

    bootstrap: Bootstrap
    store: Store

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Adds to ``context.along``."""
        resource = context.resource.kind.resource
        if resource == TENANTS.resource and context.verb == "create" and value is not None:
            context.along += self.bootstrap.tenant(value)
        elif resource == TENANTS.resource and value is None:
            context.along += await self.bootstrap.farewell(TenantName(context.name))
        elif resource == NAMESPACES.resource and context.verb == "create":
            for op in self.bootstrap.namespace(context.tenant, context.name):
                if await self.store.get(op.key) is None:
                    context.along.append(op)


@dataclass(frozen=True, slots=True)
class Definitions:
    """A CustomResourceDefinition is accepted or not at the moment in which it is written. Held by the writer's lock."""

    store: Store
    clock: Clock

    async def admit(self, context: AdmissionContext) -> None:
        """Sets the status; refuses new objects of a definition that ends. Raises ApiError 405."""
        if context.resource.terminating and context.verb == "create":
            message = "create not allowed while custom resource definition is terminating"
            raise ApiError(405, "MethodNotAllowed", message)
        if not context.concerns(DEFINITIONS.resource, "create", "update") or context.obj is None:
            return
        if validate_create(DEFINITIONS, context.obj):
            return  # validation, which comes after this, refuses it
        page = await self.store.list(Prefix(DEFINITIONS.resource, context.tenant))
        others = [decode_entry(e) for e in page.entries if e.key.name != context.name]
        context.obj["status"] = accepted_status(context.obj, others, stamp(self.clock.now()))


def standard_chain(store: Store, parts: Parts, clock: Clock, registered: Registered | None = None) -> Chain:
    """The hooks of every server."""
    changing: tuple[Hook, ...] = (
        Lifecycle(store, parts.tenancy),
        PodAccounts(store),
        PodTolerations(),
        LimitDefaults(store),
        Definitions(store, clock),
    )
    checking: tuple[Hook, ...] = (
        FirstNamespaces(parts.tenancy),
        LastingObjects(parts.tenancy),
        UnsupportedPods(),
        HeldAddresses(store, parts.tenancy),
        Overlap(store),
        References(store),
        PortNetworks(store),
        LimitChecks(store),
        *parts.checking,
    )
    claims = ServiceClaims(store, clock)
    recount = Recount(store)
    companions = (
        Lifecycle(store, parts.tenancy),
        FirstObjects(parts.bootstrap, store),
        claims,
        Quotas(store, recount),
        TenantQuotas(store, recount),
    )
    return Chain(changing, checking, companions, registered, assigning=(claims,))
