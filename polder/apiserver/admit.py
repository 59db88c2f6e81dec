"""The standard chain of admission: which hooks there are, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polder.api.core import Namespace, Service
from polder.api.discovery import EndpointSlice
from polder.api.endpoints import Endpoints
from polder.api.errors import ApiError, forbidden, not_found
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.polder import DEFAULT_NETWORK, SYSTEM_NAMESPACE, Network, Tenant
from polder.apiserver.admission import AdmissionContext, Chain, Hook, Registered
from polder.apiserver.admission_names import DEFAULT, check_names
from polder.apiserver.admission_plugins import (
    AlwaysPullImages,
    DenyExecOnPrivileged,
    DenyServiceExternalIPs,
    RuntimeClasses,
    SecurityContextDeny,
    default_ingress,
    default_storage,
)
from polder.apiserver.admission_podsecurity import PodSecurity
from polder.apiserver.admit_certificates import Requesters, SignerRights
from polder.apiserver.admit_members import MemberTenants
from polder.apiserver.admit_networks import Overlap, PortNetworks, References
from polder.apiserver.admit_pods import PodAccounts, PodTolerations, UnsupportedPods
from polder.apiserver.admit_priority import OneDefault, Priorities
from polder.apiserver.aggregation_admit import ApiServices
from polder.apiserver.crdadmission import DefinitionRules, Definitions
from polder.apiserver.hooks import Bootstrap, Parts, Tenancy
from polder.apiserver.limits import LimitChecks, LimitDefaults
from polder.apiserver.objects import decode_entry
from polder.apiserver.policies_admit import RegisteredExpressions
from polder.apiserver.quota import Quotas
from polder.apiserver.quota_recount import Recount
from polder.apiserver.quota_tenant import TenantQuotas
from polder.apiserver.service_claims import HeldAddresses, ServiceClaims
from polder.apiserver.service_ranges import ServiceRangeRules
from polder.apiserver.turns import Turns
from polder.apiserver.workshop import Workshop
from polder.base.clock import Clock
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Check, Entry, Key, Store

NAMESPACES = kind_of(Namespace)
TENANTS = kind_of(Tenant)
POD_NETWORK = (kind_of(Network).resource, SYSTEM_NAMESPACE, DEFAULT_NETWORK)
KEPT = frozenset(
    (kind_of(type_).resource, *at)
    for type_ in (Service, EndpointSlice, Endpoints)
    for at in (("default", "kubernetes"), (SYSTEM_NAMESPACE, "kube-dns"))
)
"""What the router itself answers: another service with such an address would be no service."""
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
            raise _ends(context)
        if context.namespace and not context.subresource:
            await self._hold_namespace(context)

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """What is made is committed only while its namespace, or its tenant, is as it was looked at."""
        if context.verb != "create" or value is None:
            return
        if context.namespace:
            await self._hold_namespace(context)
        elif context.tenant != ROOT:
            key = Key(TENANTS.resource, ROOT, "", context.tenant)
            entry = await self.store.get(key)
            if entry is None or decode_entry(entry)["metadata"].get("deletionTimestamp"):
                raise _ends(context)
            context.along.append(Check(key, entry.revision))

    async def _hold_namespace(self, context: AdmissionContext) -> None:
        """Has the commit expect the namespace as it is now, unless it expects it already."""
        key = Key(NAMESPACES.resource, context.tenant, "", context.namespace)
        if all(op.key != key for op in context.along):
            context.along.append(Check(key, (await self._check_namespace(context)).revision))

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


def _ends(context: AdmissionContext) -> ApiError:
    return forbidden(context.resource.kind, context.name, "the tenant is being terminated")


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


Named = tuple[str, Hook]
"""A hook and the plug-in that it is part of; without a name it is always there."""


def standard_chain(
    store: Store, parts: Parts, clock: Clock, registered: Registered | None = None, workshop: Workshop | None = None,
    plugins: Sequence[str] = DEFAULT,
) -> Chain:  # fmt: skip
    """The hooks of every server, as far as ``plugins`` has them. Raises PermanentError for a plug-in that is unknown."""
    wanted = check_names(plugins)
    definitions = Definitions(store, clock)
    changing: tuple[Named, ...] = (
        ("", Turns(store)),
        ("", Lifecycle(store, parts.tenancy)),
        ("ServiceAccount", PodAccounts(store)),
        ("AlwaysPullImages", AlwaysPullImages()),
        ("DefaultTolerationSeconds", PodTolerations()),
        ("Priority", Priorities(store)),
        ("RuntimeClass", RuntimeClasses(store)),
        ("DefaultStorageClass", default_storage(store)),
        ("DefaultIngressClass", default_ingress(store)),
        ("LimitRanger", LimitDefaults(store)),
        ("", Requesters()),
        ("", MemberTenants(store, parts.authorizer)),
        ("", definitions),
    )
    claims = ServiceClaims(store, clock)
    recount = Recount(store)
    companions = (
        Lifecycle(store, parts.tenancy),
        definitions,
        FirstObjects(parts.bootstrap, store),
        claims,
        *((Quotas(store, recount),) if "ResourceQuota" in wanted else ()),
        TenantQuotas(store, recount),
    )
    checking = _checking(store, parts, workshop or Workshop())
    return Chain(_of(changing, wanted), _of(checking, wanted), companions, registered, assigning=(claims,))


def _checking(store: Store, parts: Parts, workshop: Workshop) -> tuple[Named, ...]:
    return (
        ("", DefinitionRules(workshop)),
        ("", FirstNamespaces(parts.tenancy)),
        ("", LastingObjects(parts.tenancy)),
        ("", UnsupportedPods()),
        ("", HeldAddresses(store, parts.tenancy)),
        ("", ServiceRangeRules(store)),
        ("", Overlap(store)),
        ("", References(store)),
        ("", PortNetworks(store)),
        ("LimitRanger", LimitChecks(store)),
        ("", OneDefault(store)),
        ("", ApiServices()),
        ("", RegisteredExpressions()),
        ("CertificateApproval", SignerRights(parts.authorizer)),
        ("PodSecurity", PodSecurity(store)),
        ("SecurityContextDeny", SecurityContextDeny()),
        ("DenyServiceExternalIPs", DenyServiceExternalIPs()),
        ("DenyExecOnPrivileged", DenyExecOnPrivileged(store)),
        *(("", hook) for hook in parts.checking),
    )


def _of(hooks: Sequence[Named], wanted: frozenset[str]) -> tuple[Hook, ...]:
    return tuple(hook for name, hook in hooks if not name or name in wanted)
