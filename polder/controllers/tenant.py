"""A tenant in deletion: pods, then their ports and addresses, then everything else, then the tenant itself.

Each step looks at the server and goes on only when nothing of the step before is left, so that it can be broken off
anywhere. Pods are stopped first, operators among them; so finalizers that are not Polder's have nobody left to act on them
and are cleared. Finalizers of Polder's own stand for something on a node and are waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from polder.api.core import Namespace, Pod
from polder.api.errors import ApiError
from polder.api.extensions import CustomResourceDefinition
from polder.api.kinds import PLATFORM_ONLY, kind_of
from polder.api.meta import Condition, Object, ref_of
from polder.api.polder import (
    NETWORK_FINALIZER,
    PORT_FINALIZER,
    TENANT_FINALIZER,
    Address,
    Network,
    Port,
    Tenant,
)
from polder.base.clock import stamp
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.batch import each
from polder.controllers.conditions import a_few, merged
from polder.controllers.internal import contents
from polder.controllers.namespace import finalize, is_drained
from polder.controllers.reading import find
from polder.controllers.resources import (
    Resource,
    delete_object,
    list_objects,
    patch_metadata,
)
from polder.controllers.settings import ControllerSettings

CONDITION = "Deletion"
PORTS = Resource.of(kind_of(Port))
TENANTS = Resource.of(kind_of(Tenant))
NAMESPACES = Resource.of(kind_of(Namespace))
DEFINITIONS = Resource.of(kind_of(CustomResourceDefinition))
OURS = {PORTS.name: PORT_FINALIZER, kind_of(Network).resource: NETWORK_FINALIZER}
"""What is waited for, and on which kinds alone: a tenant may write any finalizer on its own objects."""
STEPPED = frozenset(
    {NAMESPACES.name, DEFINITIONS.name, *PLATFORM_ONLY, *(kind_of(k).resource for k in (Pod, Port, Address))}
)
"""Resources with a step of their own, and those that are the platform's wherever they show."""


class Remaining(Exception):  # noqa: N818  no error: a step that is not finished yet
    """What a step still waits for."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TenantController:
    """Reconciles Tenants of root; key: the Tenant's reference. ``router_ports`` says where to look for the Ports that a
    tenant's router has in root; one that it misses is the sweeper's, for its tenant does not exist then.
    """

    def __init__(
        self, client: Client, settings: ControllerSettings, router_ports: Callable[[TenantName], Iterable[Ref]]
    ) -> None:
        self._client = client
        self._settings = settings
        self._router_ports = router_ports

    async def reconcile(self, ref: Ref) -> float | None:
        """One step towards the tenant being gone. The seconds until the next look, None when there is nothing left."""
        tenant = await find(self._client, Tenant, ref)
        if tenant is None:
            return None
        finalizers = tenant.metadata.finalizers or []
        if tenant.metadata.deletion_timestamp is None:
            if TENANT_FINALIZER not in finalizers:
                await self._set_finalizers(tenant, [*finalizers, TENANT_FINALIZER])
            return None
        if TENANT_FINALIZER not in finalizers:
            return None
        name = TenantName(ref.name)
        try:
            await self._empty(name)
        except Remaining as remaining:
            await self._say(tenant, remaining)
            return self._settings.recheck
        await self._set_finalizers(tenant, [f for f in finalizers if f != TENANT_FINALIZER])
        return None

    async def _empty(self, name: TenantName) -> None:
        """All the steps in order. Raises Remaining at the first that is not finished."""
        await self._pods(name)
        await self._ports(name)
        await self._addresses(name)
        await self._contents(name, list((await contents(self._client, name)).counts))
        await self._definitions(name)

    async def _pods(self, name: TenantName) -> None:
        pods = (await self._client.list(Pod, name)).items
        await self._delete(Resource.of(kind_of(Pod)), name, pods)
        left = (await self._client.list(Pod, name)).items
        _none_left("PodsRemain", "stopping pods", left)

    async def _ports(self, name: TenantName) -> None:
        """The tenant's own ports, and its router's on the nodes, which are root's."""
        ports = (await self._client.list(Port, name)).items
        await self._delete(PORTS, name, ports)
        left = (await self._client.list(Port, name)).items if ports else []
        _none_left("PortsRemain", "waiting for nodes to remove the links of ports", left)
        routers = await self._standing(self._router_ports(name))
        await self._delete(PORTS, ROOT, routers)
        left = await self._standing(ref_of(port) for port in routers)
        _none_left("RouterRemains", "waiting for nodes to remove the tenant's router: ports", left)

    async def _standing(self, ports: Iterable[Ref]) -> list[Port]:
        found = [await find(self._client, Port, ref) for ref in ports]
        return [port for port in found if port is not None]

    async def _addresses(self, name: TenantName) -> None:
        """No pod and no port is left and none can be made, so nothing holds an address."""
        for address in (await self._client.list(Address, name)).items:
            meta = address.metadata
            await self._client.delete(Address, ref_of(address), uid=meta.uid, resource_version=meta.resource_version)

    async def _contents(self, name: TenantName, resources: Iterable[Resource]) -> None:
        """Namespaces empty themselves; what is in none is deleted here. (What servers of the tenant's own kept was theirs:
        their pods are gone.)
        """
        namespaces = (await self._client.list(Namespace, name)).items
        await self._delete(NAMESPACES, name, namespaces, clear=False)
        # What has drained itself and still stands is held by the tenant's own finalizers.
        drained = [n for n in namespaces if is_drained(n)]
        await self._delete(NAMESPACES, name, drained)
        await each([finalize(self._client, ref_of(n), n) for n in drained if n.spec.finalizers])
        if namespaces and not any(_is_stuck(n) for n in namespaces):
            raise Remaining("NamespacesRemain", f"deleting namespaces {a_few(n.metadata.name for n in namespaces)}")
        living = {n.metadata.name for n in namespaces}
        left: list[str] = []
        for resource in resources:
            if resource.name in STEPPED:
                continue
            found = await list_objects(self._client, name, resource)
            # In a living namespace only what its own controller has deleted already is touched, to clear finalizers.
            loose = [o for o in found if o.metadata.deletion_timestamp or o.metadata.namespace not in living]
            await self._delete(resource, name, loose)
            if found:
                left.append(f"{len(found)} {resource.name}")
        if left or living:
            raise Remaining("ContentRemains", f"deleting {a_few([*left, *(f'namespace {n}' for n in living)], 6)}")

    async def _definitions(self, name: TenantName) -> None:
        await self._delete(DEFINITIONS, name, await list_objects(self._client, name, DEFINITIONS))
        left = await list_objects(self._client, name, DEFINITIONS)
        _none_left("DefinitionsRemain", "deleting custom resource definitions", left)

    async def _delete(
        self, resource: Resource, name: TenantName, objects: Iterable[Object], *, clear: bool = True
    ) -> None:
        """Deletes those that are not being deleted yet; of the others clears finalizers that nobody will act on."""
        await each([self._delete_one(resource, name, o, clear) for o in objects])

    async def _delete_one(self, resource: Resource, name: TenantName, seen: Object, clear: bool) -> None:
        ref = Ref(name, seen.metadata.namespace, seen.metadata.name)
        try:
            if seen.metadata.deletion_timestamp is None:
                await delete_object(self._client, resource, ref, seen)
                return
            finalizers = seen.metadata.finalizers or []
            kept = [f for f in finalizers if f == OURS.get(resource.name)]
            if clear and kept != finalizers:
                await patch_metadata(self._client, resource, ref, seen, {"finalizers": kept or None})
        except ApiError as error:
            if not error.is_conflict:  # changed meanwhile: the next look sees it as it is then
                raise

    async def _set_finalizers(self, tenant: Tenant, finalizers: list[str]) -> None:
        await patch_metadata(self._client, TENANTS, ref_of(tenant), tenant, {"finalizers": finalizers or None})

    async def _say(self, tenant: Tenant, remaining: Remaining) -> None:
        wanted = Condition(type=CONDITION, status="False", reason=remaining.reason, message=remaining.message)
        said = merged(tenant.status.conditions, [wanted], stamp(self._settings.clock.now()))
        if said is None and tenant.status.phase == "Terminating":
            return
        status = {"phase": "Terminating", "conditions": msgspec.to_builtins(said or tenant.status.conditions)}
        await self._client.patch(Tenant, ref_of(tenant), {"status": status}, subresource="status")


def _none_left(reason: str, doing: str, objects: Iterable[Object]) -> None:
    names = [f"{o.metadata.namespace}/{o.metadata.name}".lstrip("/") for o in objects]
    if names:
        raise Remaining(reason, f"{doing}: {a_few(names)} ({len(names)} left)")


def _is_stuck(namespace: Namespace) -> bool:
    """Whether something in a namespace has finalizers that keep it."""
    return any(
        c.type == "NamespaceFinalizersRemaining" and c.status == "True" for c in namespace.status.conditions or []
    )
