"""Admission where objects depend on networks: prefixes of a tenant's router, references of pods and namespaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from polder.api import cidr
from polder.api.core import Namespace, Pod
from polder.api.errors import Field, FieldError, forbidden, invalid
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.polder import (
    ADDRESS_ANNOTATION,
    DEFAULT_NETWORK,
    DEFAULT_ROUTER,
    NETWORK_ANNOTATION,
    SYSTEM_NAMESPACE,
    Network,
    Port,
    Router,
)
from polder.api.validation.networks import is_host, network_conflicts
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.objects import decode_entry
from polder.base.ids import ROOT
from polder.store.protocol import Key, Prefix, Store

PODS: Final = kind_of(Pod)
NAMESPACES: Final = kind_of(Namespace)
NETWORKS: Final = kind_of(Network)
PORTS: Final = kind_of(Port)
ROUTERS: Final = kind_of(Router)
_ANNOTATIONS: Final = Field("metadata") / "annotations"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Networks on one router have prefixes of their own, apart from the tenant's services. Held by the writer's lock."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 422 naming ``spec.cidr``."""
        if not context.concerns(NETWORKS.resource, "create", "update") or context.obj is None:
            return
        router = context.obj["spec"].get("router", DEFAULT_ROUTER)
        page = await self.store.list(Prefix(NETWORKS.resource, context.tenant))
        others = [decode_entry(entry) for entry in page.entries]
        services = await self._services(context, router)
        problems = network_conflicts(context.obj, others, services, platform=context.tenant == ROOT)
        if problems:
            raise invalid(NETWORKS, context.name, problems)

    async def _services(self, context: AdmissionContext, router: str) -> list[str]:
        entry = await self.store.get(Key(ROUTERS.resource, context.tenant, SYSTEM_NAMESPACE, router))
        spec = (decode_entry(entry).get("spec") or {}) if entry else {}
        return [*cidr.listed(spec, "serviceCidr", "serviceCidrs"), *(spec.get("furtherServiceCidrs") or ())]


@dataclass(frozen=True, slots=True)
class References:
    """The network that a pod or a namespace names exists in the tenant, and a static address lies in it."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 422 naming the annotation."""
        is_pod = context.concerns(PODS.resource, "create")
        if not is_pod and not context.concerns(NAMESPACES.resource, "create", "update"):
            return
        assert context.obj is not None
        annotations = context.obj["metadata"].get("annotations") or {}
        named = annotations.get(NETWORK_ANNOTATION, "")
        address = annotations.get(ADDRESS_ANNOTATION, "") if is_pod else ""
        if not is_pod and context.old is not None:
            before = (context.old["metadata"].get("annotations") or {}).get(NETWORK_ANNOTATION, "")
            named = "" if named == before else named
        problems = []
        if named and await self._network(context.tenant, named) is None:
            problems.append(_ANNOTATIONS[NETWORK_ANNOTATION].not_found(named))
        elif address:
            problems = await self._address(context, named, address)
        if problems:
            raise invalid(context.resource.kind, context.name, problems)

    async def _network(self, tenant: str, reference: str) -> Raw | None:
        namespace, _, name = reference.partition("/")
        entry = await self.store.get(Key(NETWORKS.resource, tenant, namespace, name))
        return decode_entry(entry) if entry else None

    async def _address(self, context: AdmissionContext, named: str, address: str) -> list[FieldError]:
        """Whether the pod's network has such an address."""
        reference = named or await self._default(context)
        network = await self._network(context.tenant, reference)
        field = _ANNOTATIONS[ADDRESS_ANNOTATION]
        if network is None:
            return [field.invalid(address, f"the namespace's network {reference} does not exist")]
        prefixes = [found for text in cidr.listed(network["spec"], "cidr", "cidrs") if (found := cidr.prefix(text))]
        problems = (self._misplaced(one, prefixes, reference, network) for one in address.split(","))
        return [field.invalid(address, why) for why in problems if why]

    def _misplaced(self, address: str, prefixes: list[cidr.Prefix], reference: str, network: Raw) -> str:
        """Why a network does not have an address for a pod; empty if it does."""
        wanted, shown = cidr.any_address(address), ", ".join(map(str, prefixes))
        prefix = next((one for one in prefixes if wanted is not None and wanted in one), None)
        if prefix is None or wanted is None:
            return f"is not in {shown} of network {reference}"
        spec, status = network["spec"], network.get("status") or {}
        gateways = {*cidr.listed(spec, "gateway", "gateways"), *cidr.listed(status, "gateway", "gateways")}
        if not any((":" in gateway) == (":" in address) for gateway in gateways):
            gateways.add(str(prefix[1]))
        if (spec.get("router", DEFAULT_ROUTER) and address in gateways) or not is_host(prefix, wanted):
            return f"is reserved in network {reference}"
        return ""

    async def _default(self, context: AdmissionContext) -> str:
        entry = await self.store.get(Key(NAMESPACES.resource, context.tenant, "", context.namespace))
        annotations = (decode_entry(entry)["metadata"].get("annotations") or {}) if entry else {}
        return str(annotations.get(NETWORK_ANNOTATION) or f"{SYSTEM_NAMESPACE}/{DEFAULT_NETWORK}")


@dataclass(frozen=True, slots=True)
class PortNetworks:
    """A network that is missing or goes gets no new port: it went when nothing was attached to it."""

    store: Store

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns(PORTS.resource, "create") or context.obj is None:
            return
        reference = str(context.obj["spec"].get("network", ""))
        namespace, _, name = reference.partition("/")
        entry = await self.store.get(Key(NETWORKS.resource, context.tenant, namespace, name))
        if entry is None:
            raise forbidden(PORTS, context.name, f"network {reference} does not exist")
        if decode_entry(entry)["metadata"].get("deletionTimestamp"):
            raise forbidden(PORTS, context.name, f"network {reference} is being deleted")
