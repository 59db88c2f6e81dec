"""The agent's part that runs pods: containerd, images, pods, logs, the Node object. The network is composed beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from polder.api.core import Pod
from polder.api.meta import Raw
from polder.api.podspec import Container
from polder.api.quantity import milli, whole
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.base.ids import NodeName, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.events import Recorder
from polder.client.informer import Informer
from polder.client.mux import Stream
from polder.node.access import ImageAccess
from polder.node.eviction.images import ImageUse
from polder.node.eviction.manager import Eviction, EvictionSettings, Sources
from polder.node.eviction.thresholds import MEMORY, NODE_FS, Threshold, parse_thresholds
from polder.node.forward import Forwards
from polder.node.images import Images, ensure_own_images
from polder.node.logrotate import LogRotation
from polder.node.logs import LogReader
from polder.node.machine import Capacity, allocatable, observe_capacity, observe_use
from polder.node.pages import NodePages, healthy, listing
from polder.node.pods.configs import Places
from polder.node.pods.context import Context, Machine
from polder.node.pods.features import Features
from polder.node.pods.manager import PodManager
from polder.node.pods.manifests import Folder
from polder.node.pods.mirrors import Mirrors, NodeCluster
from polder.node.pods.nodepods import NodePods
from polder.node.pods.ports import Prepare, Services, no_services
from polder.node.pods.resolv import Resolver
from polder.node.pods.room import Room
from polder.node.pods.starting import puller
from polder.node.probes.attempt import Means
from polder.node.probes.reach import Reach
from polder.node.remote import RemoteCommands
from polder.node.stats.disk import Disk, DiskPlaces
from polder.node.stats.pages import StatsPages
from polder.node.stats.sampler import Sampler
from polder.node.stats.usage import UsageReports
from polder.node.status import NodeReporter, NodeSettings, Told
from polder.node.stream import Handler
from polder.node.supervisor import Supervisor, SupervisorSettings
from polder.node.volumes.claims import Claims
from polder.node.volumes.images import ImageVolumes
from polder.node.volumes.manager import Volumes
from polder.node.volumes.storage import Storage, UidOf
from polder.node.volumes.tokens import Tokens
from polder.system.accounting import Accounting, observe_hierarchies
from polder.system.cgroups import Cgroups
from polder.system.containerd import ContainerdPaths, Registry, find_crun
from polder.system.cri import CriClient
from polder.system.cri_types import DnsConfig, ImageInfo
from polder.system.lsm import has_app_armor
from polder.system.selinux import is_enabled
from polder.system.snapshots import Snapshots

log = logging.getLogger(__name__)

SANDBOXES_AT_ONCE = 8
IMAGE_RETRY = 5.0


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """``state`` is the node's directory, ``prefix`` begins the names of cgroups, ``images`` holds the project's archives.
    ``sysctls`` are kernel parameters beyond the safe ones that pods may set.
    ``cpu`` and ``memory`` override the machine's size, as quantities. ``static_pods`` is the folder of manifests.
    """

    node: NodeName
    state: Path
    prefix: str
    address: str
    version: str
    images: Path
    cpu: str = ""
    memory: str = ""
    max_pods: int = 110
    reserved: Mapping[str, str] = field(default_factory=dict)
    thresholds: tuple[Threshold, ...] = parse_thresholds({})
    host_dns: DnsConfig = field(default_factory=DnsConfig)
    registries: Mapping[str, Registry] = field(default_factory=dict)
    sysctls: tuple[str, ...] = ()
    static_pods: Path | None = None

    @property
    def containerd(self) -> ContainerdPaths:
        """The files of the node's containerd."""
        return ContainerdPaths(self.state / "containerd", self.state / "cni" / "bin", self.state / "cni" / "conf")

    @property
    def places(self) -> Places:
        """Where pods keep things. The cgroup carries the node's name: several nodes may share a machine."""
        return Places(self.state / "pods", self.state / "logs", f"{self.prefix}/{self.node}")


@dataclass(frozen=True, slots=True)
class Doings:
    """What the network does for pods: ``prepare`` makes it ready for a pod before its sandbox, ``resolver_of`` gives the
    address of a tenant's resolver, empty where it has none, ``services`` those of a tenant's
    namespace, ``uid_of`` a tenant's UID, empty where the node does not know it.
    """

    prepare: Prepare
    resolver_of: Callable[[TenantName], str]
    uid_of: UidOf
    services: Services = no_services


class Agent:
    """Runs the pods that ``pods`` shows: the informer over ``/tenants/*/pods`` bound to this node, which the caller runs.

    ``handlers`` serve the server's streams.
    """

    def __init__(
        self, settings: AgentSettings, client: Client, pods: Informer[Pod], doings: Doings, clock: Clock
    ) -> None:
        capacity = observe_capacity(settings.state, settings.cpu, settings.memory)
        paths = settings.containerd
        self._settings = settings
        self.cri = CriClient(paths.socket)
        self._snapshots = Snapshots(paths)
        self._storage = Storage(settings.state / "storage", doings.uid_of)
        self.supervisor = Supervisor(SupervisorSettings(paths, settings.registries))
        self.recorder = Recorder(client, "kubelet", clock, settings.node)
        self._pods = NodePods(pods, Folder(settings.static_pods, settings.node), clock)
        cluster = NodeCluster(client, settings.node, clock, self._pods)
        self._context = self._make_context(cluster, doings, clock, capacity)
        self._manager: PodManager | None = None
        self._mirrors = Mirrors(client, self._pods, settings.node)
        self._bound = pods
        self.logs = LogReader(settings.places.logs, self.cri.list_containers, clock)
        self._stats = self._make_stats(capacity, clock)
        self._images = ImageUse(self.cri, clock)
        self._eviction = self._make_eviction(capacity, clock)
        self._reporter = self._make_reporter(client, capacity, clock)
        self._commands = RemoteCommands(self.cri)
        self._forwards = Forwards(self.cri)

    def _make_stats(self, capacity: Capacity, clock: Clock) -> StatsPages:
        settings, pods = self._settings, self._pods
        self._accounting = Accounting(observe_hierarchies())
        self._sampler = Sampler(
            settings.places.cgroup,
            self._accounting,
            self.cri.list_containers,
            lambda: observe_use(clock.now().timestamp()),
            clock,
        )
        places = DiskPlaces(settings.state, settings.places.pods, settings.places.logs, settings.containerd.root)
        self._disk = Disk(places, self.cri.disk_use, self.cri.images_use, clock, self._storage.held)
        size = (capacity.cpu, capacity.memory)
        shown = {"maxPods": settings.max_pods, "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{settings.places.cgroup}"}
        return StatsPages(settings.node, size, self._sampler, self._disk, lambda: list(pods.values()), shown)

    def _make_eviction(self, capacity: Capacity, clock: Clock) -> Eviction:
        settings, group = self._settings, self._settings.places.cgroup
        return Eviction(
            EvictionSettings(settings.thresholds, capacity.memory, group),
            Sources(
                machine=lambda: observe_use(clock.now().timestamp()),
                accounting=self._accounting,
                sampler=self._sampler,
                disk=self._disk,
                images=self._images,
                pods=self._pods.values,
                evict=lambda uid, why: self._manager is not None and self._manager.evict(uid, why),
                say=self._say,
            ),
            clock,
        )

    def _say(self, reason: str, message: str) -> None:
        self._reporter.say_warning(reason, message)

    def _make_reporter(self, client: Client, capacity: Capacity, clock: Clock) -> NodeReporter:
        settings = self._settings
        node = NodeSettings(
            settings.node, settings.address, settings.version, settings.max_pods, settings.state, capacity,
            self._left(capacity), ("crun", "runc") if find_crun() else ("runc",),
        )  # fmt: skip
        told = Told(clock, lambda: self._eviction.pressures, self.recorder.event)
        return NodeReporter(node, client, self.supervisor, self.cri, told)

    def _left(self, capacity: Capacity) -> Mapping[str, int]:
        """What pods may be given: neither what is reserved, nor what must stay free."""
        kept = {name: milli(size) if name == "cpu" else whole(size) for name, size in self._settings.reserved.items()}
        for one in self._settings.thresholds:
            of = {MEMORY: ("memory", capacity.memory), NODE_FS: ("ephemeral-storage", capacity.disk)}.get(one.signal)
            if of is not None:
                kept[of[0]] = kept.get(of[0], 0) + one.quantity(of[1])
        return allocatable(capacity, self._settings.max_pods, kept)

    def _make_context(self, cluster: NodeCluster, doings: Doings, clock: Clock, capacity: Capacity) -> Context:
        settings = self._settings
        left = self._left(capacity)
        machine = Machine(settings.address, capacity.cpu, capacity.memory, capacity.disk, left)
        images = Images(self.cri, ImageAccess(settings.state / "image-access"))
        more = (Claims(cluster, self._storage), self._image_volumes(cluster, images))
        return Context(
            cri=self.cri,
            cluster=cluster,
            recorder=self.recorder,
            volumes=Volumes(settings.places.pods, cluster, Tokens(cluster, clock), machine.around, more),
            images=images,
            prepare=doings.prepare,
            places=settings.places,
            resolver=Resolver(doings.resolver_of, settings.host_dns),
            machine=machine,
            clock=clock,
            cgroups=Cgroups(),
            room=Room(left, lambda: self._eviction.pressures),
            starts=asyncio.Semaphore(SANDBOXES_AT_ONCE),
            means=Means(self.cri, Reach()),
            since=clock.now().timestamp(),
            services=doings.services,
        )

    def _image_volumes(self, cluster: NodeCluster, images: Images) -> ImageVolumes:
        async def pull(pod: Pod, container: Container) -> ImageInfo:
            def say(kind: str, reason: str, message: str) -> None:
                self.recorder.event(pod, kind, reason, message)

            return await images.ensure(container, puller(cluster, self.recorder, pod), say)

        return ImageVolumes(self._settings.places.pods, pull, self.cri.chain, self._snapshots)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """What this part serves of the streams that the server opens."""
        commands = self._under_own_uid(self._commands.serve)
        return {
            "logs": self._under_own_uid(self.logs.serve),
            "usage": UsageReports(self._sampler, self._pods.shown_uid).serve,
            "exec": commands,
            "attach": commands,
            "forward": self._under_own_uid(self._forwards.serve),
            "discard": self._storage.serve,
            "page": NodePages(
                {
                    "healthz": healthy,
                    "pods": listing(lambda: list(self._pods.values()), "Pod"),
                    **self._stats.pages(),
                }
            ).serve,
        }

    def _under_own_uid(self, serve: Handler) -> Handler:
        """The same; a mirror's UID, by which the server asks, stands for that of its static pod."""

        async def translated(header: Raw, stream: Stream) -> None:
            await serve({**header, "uid": self._pods.own_uid(str(header.get("uid", "")))}, stream)

        return translated

    async def run(self) -> None:
        """Until cancelled. Containers and containerd live on, and the next agent finds them again."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.supervisor.run())
                group.create_task(self.recorder.run())
                group.create_task(self._reporter.run())
                group.create_task(LogRotation(self._settings.places.logs, self.cri).run())
                group.create_task(self._sampler.run())
                group.create_task(self._eviction.run())
                group.create_task(self._storage.run())
                group.create_task(self._run_pods())
        finally:
            self._context.means.reach.close()
            await self._snapshots.close()
            await self.cri.close()

    async def _run_pods(self) -> None:
        await self.supervisor.up.wait()
        while True:
            archives = sorted(self._settings.images.glob("*.tar"))
            try:
                await ensure_own_images(self.cri, self._settings.containerd.socket, archives)
                break
            except PolderError as error:
                self._reporter.hindrance = f"the node's own images are not ready: {error}"
                log.warning("%s", self._reporter.hindrance)
            await asyncio.sleep(IMAGE_RETRY)
        if self._settings.static_pods is None:
            await self._bound_are_known()
        strict = await self.cri.strict_groups()
        features = Features(is_enabled(), has_app_armor(), strict, self._settings.sysctls)
        self._manager = PodManager(replace(self._context, features=features), self._pods)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._manager.run())
            group.create_task(self._pods.run(self._manager, self.cri))
            group.create_task(self._mirrors.run(self._manager.runs))
            group.create_task(self._bound_are_known())

    async def _bound_are_known(self) -> None:
        """Until then the node takes no pods; static ones do not wait for it."""
        await self._bound.wait_synced()
        self._reporter.hindrance = ""

    def changed(self, what: Iterable[tuple[str, Ref]] | None) -> None:
        """Objects, by (resource, reference), changed that pods may show; None: any may have."""
        uids = self._context.volumes.changed(what)
        if self._manager is not None:
            self._manager.wake(uids)
