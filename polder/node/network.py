"""A node's network: the objects of its share into the pipeline, pods made ready, routers that come and go with tenants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, cast

from polder.api.addresses import ExternalAddress
from polder.api.core import Namespace, Node, Pod, Service
from polder.api.discovery import EndpointSlice
from polder.api.errors import ApiError
from polder.api.meta import Object, ref_of, tenant_of
from polder.api.netpolicies import ClusterNetworkPolicy, NetworkPolicy
from polder.api.polder import (
    DEFAULT_NETWORK,
    NETWORK_ANNOTATION,
    SYSTEM_NAMESPACE,
    Network,
    Port,
    Router,
    Tenant,
    port_name,
)
from polder.base.clock import Clock, SystemClock
from polder.base.errors import PermanentError, PolderError, RetryableError
from polder.base.ids import EVERY_TENANT, ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.informer import Informer
from polder.loop.runner import Runner
from polder.node.attach import DEFAULT_INTERFACE, YOUNG, Attachments, AttachParts, PortCache, router_ref
from polder.node.ipam import TRANSIT, Ipam, UsedAddresses, router_port_name
from polder.node.journal import Journal
from polder.node.keep import keep_sockets
from polder.node.policies import PolicyFacts, Views
from polder.node.ways_out import WaysOut
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.droplog import DropLog
from polder.sdn.kernelport import KernelPort
from polder.sdn.pipeline import Pipeline
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.names import router_space
from polder.sdn.saved import SavedTopology
from polder.sdn.topology import types as topology

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)

ENTRY_PORT = 443
PREPARE_PATIENCE = 15.0
"""Seconds that a pod's start waits for its tenant's router and network on this node."""
COLLECT_EVERY = 60.0
"""Seconds between looks for attachments whose sandbox is gone (containerd 1.6 never asks for it)."""

SetEntries = Callable[[Mapping[str, tuple[str, str, int]]], Awaitable[None]]
"""(tenant, address, port) by space: where to listen for the tenants' ``kubernetes`` services."""
SetResolvers = Callable[[Mapping[str, tuple[str, str]]], Awaitable[None]]
"""(tenant, address) by space: where to answer for the tenants' names."""
ListSandboxes = Callable[[], Awaitable[frozenset[str]]]
"""The sandboxes that the runtime has, of every state."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """``state`` is the node's state directory, with the routers' namespaces in ``netns``. ``linger`` is for how many seconds a
    router stays after the tenant's last pod left: the next pod often follows.
    """

    facts: NodeFacts
    state: Path
    linger: float = 30.0


class Missing(NamedTuple):
    """An object that a watch or list does not show any more."""

    kind: type[Object]
    ref: Ref

    @property
    def tenant(self) -> TenantName:
        """Whose it is: queues take turns by it."""
        return self.ref.tenant


class Followed(Protocol):
    """An informer of whatever kind."""

    async def run(self) -> None:
        """Until cancelled."""
        ...

    async def wait_synced(self) -> None:
        """Until the first list has come."""
        ...


class NodeNetwork:
    """Composes informers, pipeline, IPAM and attachments. ``pods`` is the informer of the pods bound to this node, which the
    caller runs.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        client: Client,
        kernel: KernelPort,
        pods: Informer[Pod],
        clock: Clock | None = None,
    ) -> None:
        self._facts = settings.facts
        self._linger = settings.linger
        self._netns = settings.state / "netns"
        self._client = client
        self._pods = pods
        self._clock = clock or SystemClock()
        self.pipeline = Pipeline(kernel, settings.facts, SavedTopology(settings.state / "topology"), self._clock)
        used = UsedAddresses()
        self._ipam = Ipam(client, settings.facts.name, used)
        self._informers: list[Followed] = []
        self._by_kind: dict[type[Object], object] = {}
        self._ports = self._follow(Port)
        self._networks = self._follow(Network)
        self._namespaces = self._follow(Namespace)
        for kind in (Router, Tenant, Service, EndpointSlice, NetworkPolicy, ClusterNetworkPolicy, ExternalAddress):
            self._follow(kind)
        self._ways_out = WaysOut(client, settings.facts, self._follow(Node))
        self._ports.add_index("pod", lambda port: [port.spec.pod_uid] if port.spec.pod_uid else [])
        pods.add_index("uid", lambda pod: [pod.metadata.uid])
        pods.add_index("tenant", lambda pod: [tenant_of(pod.metadata)])
        self.attachments = Attachments(self._attach_parts(settings))
        self._gone: Runner[Missing] = Runner("missing", self._ask_for, workers=4, clock=self._clock)
        self._tenants: Runner[Ref] = Runner("routers", self._reconcile_router, workers=2, clock=self._clock)
        for listener in (used.change, self.attachments.changed, self._port_changed):
            self._ports.on_change(listener)
        pods.on_change(self._pod_changed)
        views = Views(self.pipeline.knows, pods.get, lambda uid: self._ports.by_index("pod", uid))
        self._policies = PolicyFacts(
            client, views, lambda port: self.pipeline.put(Port, ref_of(port), port), self._clock
        )
        pods.on_change(self._policies.changed)
        self._ports.on_change(self._policies.port_changed)

    def _attach_parts(self, settings: NetworkSettings) -> AttachParts:
        return AttachParts(
            client=self._client,
            pipeline=self.pipeline,
            ipam=self._ipam,
            journal=Journal(settings.state / "journal"),
            cache=PortCache(
                port=self._ports.get,
                ports_of_pod=lambda uid: self._ports.by_index("pod", uid),
                pod_of_uid=lambda uid: next(iter(self._pods.by_index("uid", uid)), None),
            ),
            prepare=self.ensure,
            clock=self._clock,
        )

    async def run(self, set_entries: SetEntries | None = None, sandboxes: ListSandboxes | None = None) -> None:
        """Until cancelled. What is in the kernel stays."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            group.create_task(self._sync())
            parts = (self.attachments, self._tenants, self._gone, self._policies, self._ways_out)
            for part in (self.pipeline, DropLog(self.pipeline), *parts):
                group.create_task(part.run())
            if set_entries is not None:
                group.create_task(self._keep_entries(set_entries))
            if sandboxes is not None:
                group.create_task(self._collect(sandboxes))

    def router_of(self, tenant: str) -> tuple[str, str] | None:
        """The space of a tenant's router on this node and its address here; None where the tenant has none."""
        part = self.pipeline.part(Key(Concern.ROUTER, router_ref(TenantName(tenant))))
        address = part.address_on(self._facts.name) if isinstance(part, topology.Router) else ""
        return (router_space(tenant), address) if address else None

    async def prepare(self, pod: Pod) -> None:
        """Before a pod's sandbox: its addresses claimed, its tenant's router and network on this node."""
        await self.ensure(pod)

    async def ensure(self, pod: Pod) -> Port:
        """As ``prepare``; the pod's Port. Raises RetryableError or PermanentError with a sentence."""
        try:
            network = await self._network_of(pod)
            tenant = tenant_of(pod.metadata)
            if self.router_of(tenant) is None:
                router = await self._ipam.ensure_router_address(tenant)
                self.pipeline.put(Port, ref_of(router), router)
            await self._policies.ensure_seen(tenant)
            port = self._whole_port(pod) or await self._ipam.ensure_port(pod, network)
            self.pipeline.put(Port, ref_of(port), port)
        except ApiError as error:
            kind = PermanentError if error.is_invalid else RetryableError
            raise kind(f"Pod {ref_of(pod)}: {error}") from error
        keys = [Key(Concern.ROUTER, router_ref(tenant)), Key(Concern.NETWORK, ref_of(network))]
        await self.pipeline.settle(keys, timeout=PREPARE_PATIENCE)
        return port

    def _whole_port(self, pod: Pod) -> Port | None:
        """The Port that an earlier call completed."""
        at = ref_of(pod)
        port = self._ports.get(Ref(at.tenant, at.namespace, port_name(pod.metadata.uid, DEFAULT_INTERFACE)))
        whole = port is not None and port.spec.addresses and port.metadata.deletion_timestamp is None
        return port if whole else None

    async def _network_of(self, pod: Pod) -> Network:
        """The network that the pod names, else its namespace, else the tenant's default."""
        at = ref_of(pod)
        named = (pod.metadata.annotations or {}).get(NETWORK_ANNOTATION, "")
        where = f"Pod {at}: annotation {NETWORK_ANNOTATION}"
        if not named:
            where_it_is = Ref(at.tenant, "", at.namespace)
            namespace = self._namespaces.get(where_it_is) or await self._client.get(Namespace, where_it_is)
            named = (namespace.metadata.annotations or {}).get(NETWORK_ANNOTATION, "")
            where = f"Namespace {at.tenant}:{at.namespace}: annotation {NETWORK_ANNOTATION}"
        if not named:
            named, where = f"{SYSTEM_NAMESPACE}/{DEFAULT_NETWORK}", f"Pod {at}"
        namespace_name, slash, name = named.partition("/")
        if not slash or not namespace_name or not name:
            raise PermanentError(f"{where}: {named!r} is not namespace/name of a Network")
        ref = Ref(at.tenant, namespace_name, name)
        if ref == TRANSIT:
            raise PermanentError(f"{where}: Network {named} is for routers, not for pods")
        found = self._networks.get(ref)
        if found is None:
            try:
                found = await self._client.get(Network, ref)
            except ApiError as error:
                if not error.is_not_found:
                    raise
                raise RetryableError(f"{where}: Network {ref} does not exist", 2.0) from error
        if found.metadata.deletion_timestamp is not None:
            raise RetryableError(f"{where}: Network {ref} is being deleted", 2.0)
        return found

    # -- the tenants' routers on this node ------------------------------------------------------------------------

    def _pod_changed(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        self.pipeline.put(Pod, ref, new)
        if new is None and old is not None:
            self._tenants.add_after(_transit_ref(ref.tenant, self._facts.name), self._linger)
        elif new is not None and new.spec.host_network and ref.tenant == ROOT:
            self._tenants.add(_transit_ref(ROOT, self._facts.name))

    def _port_changed(self, ref: Ref, old: Port | None, new: Port | None) -> None:
        port = new or old
        if port is None or port.spec.node != self._facts.name:
            return
        if new is None and port.spec.router_of:
            self._policies.left(port.spec.router_of)
        elif new is None or port.spec.router_of:
            self._tenants.add_after(_transit_ref(ref.tenant, self._facts.name) if new is None else ref, self._linger)

    async def _reconcile_router(self, ref: Ref) -> float | None:
        """Let a router's address go when its tenant has no pod and no port here. A pod that comes meanwhile waits for it."""
        port = self._ports.get(ref)
        if port is None and ref == _transit_ref(ROOT, self._facts.name) and self._pods.by_index("tenant", ROOT):
            await self._ipam.ensure_router_address(ROOT)  # its pods on the node's own network reach others by it
        if not (self.pipeline.synced and self._pods.synced):
            return self._linger
        if port is None or (meta := port.metadata).deletion_timestamp is not None:
            return None
        tenant = TenantName(port.spec.router_of)
        if self._pods.by_index("tenant", tenant) or self._has_ports(tenant):
            return None
        log.info("tenant %s has left this node; its router goes", tenant)
        try:
            await self._client.delete(Port, ref, uid=meta.uid, resource_version=meta.resource_version)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
        return None

    def _has_ports(self, tenant: TenantName) -> bool:
        here = (p for p in self._ports.values() if p.spec.node == self._facts.name and not p.spec.router_of)
        return any(tenant_of(port.metadata) == tenant for port in here)

    # -- tasks ----------------------------------------------------------------------------------------------------

    def _follow(self, kind: type[T]) -> Informer[T]:
        """An informer over the node's share that feeds the pipeline."""
        informer = Informer(self._client, kind, EVERY_TENANT)
        informer.on_change(lambda ref, old, new: self._changed(kind, ref, old, new))
        self._informers.append(informer)
        self._by_kind[kind] = informer
        return informer

    def _changed(self, kind: type[Object], ref: Ref, old: Object | None, new: Object | None) -> None:
        if new is None and self._is_doubtful(kind, ref, old):
            self._gone.add(Missing(kind, ref))
        else:
            self.pipeline.put(kind, ref, new)

    def _is_doubtful(self, kind: type[Object], ref: Ref, old: Object | None) -> bool:
        """Whether an object that is seen no more may be there all the same. A Port of this node has our finalizer, so that it
        goes by our own hand only; and while a tenant's router is here, so are the tenant's networks and policies. Pods would
        lose their network, or be open, by a view that is wrong for a moment.
        """
        if kind is Port and isinstance(old, Port):
            return old.spec.node == self._facts.name and self.pipeline.knows(Port, ref)
        if kind in (Network, Router, Tenant, Namespace, NetworkPolicy, ClusterNetworkPolicy):
            return self.router_of(ref.name if kind is Tenant else ref.tenant) is not None
        return False

    async def _ask_for(self, missing: Missing) -> None:
        """Look at the server itself for what the view has lost."""
        kind, ref = missing
        try:
            found: Object | None = await self._client.get(kind, ref)
        except ApiError as error:
            if not error.is_not_found and self._is_doubtful(kind, ref, None):
                raise RetryableError(f"{kind.__name__} {ref} is not shown any more: {error}", 1.0) from error
            found = None
        self.pipeline.put(kind, ref, found)

    async def _sync(self) -> None:
        """All informers have listed; and what the disk has of this node's ports is seen, or is gone for sure."""
        for informer in (self._pods, *self._informers):
            await informer.wait_synced()
        while True:
            kept = [port for port in self.pipeline.unseen() if not await self._is_gone(port)]
            if not kept:
                break
            log.warning("%d ports of this node are not shown by the API; nothing is taken down", len(kept))
            await asyncio.sleep(0.3)
        self.pipeline.set_synced()

    async def _is_gone(self, port: topology.Port) -> bool:
        namespace, _, name = port.name.partition("/")
        try:
            await self._client.get(Port, Ref(TenantName(port.tenant), namespace, name))
        except ApiError as error:
            # Forbidden: nothing of the tenant is on this node, neither a pod nor a Port.
            return error.is_not_found or error.is_forbidden
        except RetryableError:
            return False
        return False

    async def _keep_entries(self, set_entries: SetEntries) -> None:
        """Listen wherever a router stands."""

        def wanted() -> dict[str, tuple[str, str, int]]:
            return {space: (space, address, ENTRY_PORT) for space, address in self.pipeline.entries().items()}

        await keep_sockets(self.changes(), wanted, self._netns, set_entries)

    async def keep_resolvers(self, set_resolvers: SetResolvers, share: Callable[[dict[str, str]], None]) -> None:
        """Have the tenants' names answered wherever a router stands; ``share`` is told whose router has which address. Until
        cancelled.
        """

        def wanted() -> dict[str, tuple[str, str]]:
            spaces = self.pipeline.entries()
            share({router[1]: space for space in spaces if (router := self.router_of(space)) is not None})
            found = {space: self.resolver_of(TenantName(space)) for space in spaces}
            return {space: (space, address) for space, address in found.items() if address}

        await keep_sockets(self.changes(), wanted, self._netns, set_resolvers)

    def resolver_of(self, tenant: TenantName) -> str:
        """The address of a tenant's resolver; empty where there is none."""
        part = self.pipeline.part(Key(Concern.ROUTER, router_ref(tenant)))
        return part.dns if isinstance(part, topology.Router) else ""

    def informer(self, kind: type[T]) -> Informer[T]:
        """What the node sees of a kind."""
        return cast(Informer[T], self._by_kind[kind])

    def changes(self) -> asyncio.Event:
        """Set now, and after each run of the pipeline."""
        changed = asyncio.Event()
        changed.set()
        self.pipeline.on_run(changed.set)
        return changed

    async def _collect(self, sandboxes: ListSandboxes) -> None:
        """Detach what belongs to sandboxes that are gone. Only what is older than any call that may be under way."""
        while True:
            await asyncio.sleep(COLLECT_EVERY)
            if not self.pipeline.attached():
                continue
            try:
                living = await sandboxes()
                keep = {(p.sandbox, p.interface) for p in self.pipeline.attached() if p.sandbox in living}
                await self.attachments.collect(keep, young=YOUNG)
            except (PolderError, OSError) as error:
                log.warning("attachments were not compared with the runtime's sandboxes: %s", error)


def _transit_ref(tenant: TenantName, node: str) -> Ref:
    return Ref(ROOT, SYSTEM_NAMESPACE, router_port_name(tenant, node))
