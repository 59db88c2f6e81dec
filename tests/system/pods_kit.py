"""A node without network and API server: a real containerd in a namespace of its own, a cluster kept in memory."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from polder.api.core import ConfigMap, Pod, PodStatus, Secret, Service, ServicePort, ServiceSpec
from polder.api.meta import TENANT_ANNOTATION, Object, ObjectMeta, ref_of
from polder.api.podspec import Container
from polder.api.storagefacts import Claim, Volume
from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.access import ImageAccess
from polder.node.archive import build_images
from polder.node.images import Images, ensure_own_images
from polder.node.pods.configs import Places
from polder.node.pods.context import Context, Machine
from polder.node.pods.manager import Change, PodManager
from polder.node.pods.resolv import Resolver
from polder.node.pods.starting import puller
from polder.node.pods.status import OWN
from polder.node.probes.attempt import Means
from polder.node.probes.reach import Reach
from polder.node.supervisor import Supervisor, SupervisorSettings
from polder.node.volumes.claims import Claims
from polder.node.volumes.images import ImageVolumes
from polder.node.volumes.manager import Volumes
from polder.node.volumes.storage import Storage
from polder.node.volumes.tokens import Tokens
from polder.system.cgroups import Cgroups
from polder.system.containerd import ContainerdPaths
from polder.system.cri import CriClient
from polder.system.cri_types import ImageInfo
from polder.system.snapshots import Snapshots

CNI = """{"cniVersion": "0.4.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "test0", "isGateway": true,
"ipam": {"type": "host-local", "dataDir": "%s", "ranges": [[{"subnet": "10.77.0.0/24"}]]}}, {"type": "loopback"}]}"""


class MemoryCluster:
    """The part of the API that pods need, in memory; it keeps pods as an API server would, without admission."""

    def __init__(self) -> None:
        self.synced = True
        self.pods: dict[Ref, Pod] = {}
        self.maps: dict[Ref, ConfigMap] = {}
        self.secrets: dict[Ref, Secret] = {}
        self.handlers: dict[str, str] = {}
        self.claims: dict[Ref, Claim] = {}
        self.volumes: dict[Ref, Volume] = {}
        self.events: list[tuple[str, str, str]] = []
        self.parts: list[tuple[str, str, str]] = []
        self.statuses: list[PodStatus] = []
        self.away = False
        self._handlers: list[Change] = []
        self._changed = asyncio.Event()

    # --- what a user does ---

    def apply(self, pod: Pod) -> Pod:
        old = self.pods.get(ref_of(pod))
        self.pods[ref_of(pod)] = pod
        self._tell(ref_of(pod), old, pod)
        return pod

    def delete(self, pod: Pod, grace: int = 1) -> None:
        held = self.pods[ref_of(pod)]
        meta = msgspec.structs.replace(
            held.metadata, deletion_timestamp="2030-01-01T00:00:00Z", deletion_grace_period_seconds=grace
        )
        self.apply(msgspec.structs.replace(held, metadata=meta))

    def drop(self, pod: Pod) -> None:
        old = self.pods.pop(ref_of(pod), None)
        if old is not None:
            self._tell(ref_of(pod), old, None)

    async def until(self, pod: Pod, seen: Callable[[Pod | None], bool], seconds: float = 20.0) -> Pod | None:
        try:
            async with asyncio.timeout(seconds):
                while not seen(self.pods.get(ref_of(pod))):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not seen: {self.pods.get(ref_of(pod))}\n{self.events}") from None
        return self.pods.get(ref_of(pod))

    def _tell(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        self._changed.set()
        for handler in self._handlers:
            handler(ref, old, new)

    # --- PodSource ---

    def on_change(self, fn: Change) -> None:
        self._handlers.append(fn)
        for ref, pod in self.pods.items():
            fn(ref, None, pod)

    def forget_handlers(self) -> None:
        self._handlers.clear()

    def get(self, ref: Ref) -> Pod | None:
        return self.pods.get(ref)

    def values(self) -> list[Pod]:
        return list(self.pods.values())

    async def wait_synced(self) -> None:
        return

    # --- Cluster ---

    async def config_map(self, ref: Ref) -> ConfigMap | None:
        return self.maps.get(ref)

    async def secret(self, ref: Ref) -> Secret | None:
        return self.secrets.get(ref)

    async def claim(self, ref: Ref) -> Claim | None:
        return self.claims.get(ref)

    async def volume(self, tenant: TenantName, name: str) -> Volume | None:
        return self.volumes.get(Ref(tenant, "", name))

    async def kubernetes_service(self, tenant: TenantName) -> Service | None:
        return Service(
            metadata=ObjectMeta(name="kubernetes"),
            spec=ServiceSpec(cluster_ip="10.96.0.1", ports=[ServicePort(port=443, name="https")]),
        )

    async def runtime_handler(self, tenant: TenantName, name: str) -> str | None:
        return self.handlers.get(name)

    async def token(self, pod: Pod, audience: str, seconds: int) -> str:
        return f"token-of-{pod.metadata.uid}"

    async def pod_exists(self, ref: Ref, uid: str) -> bool:
        return ref in self.pods and self.pods[ref].metadata.uid == uid

    async def write_status(self, pod: Pod, status: PodStatus) -> None:
        if self.away:
            raise ConnectionError("the server is away")
        self.statuses.append(status)
        held = self.pods.get(ref_of(pod))
        if held is not None and held.metadata.uid == pod.metadata.uid:
            others = [c for c in held.status.conditions or [] if c.type not in OWN]
            whole = msgspec.structs.replace(status, conditions=[*others, *(status.conditions or [])])
            self.apply(msgspec.structs.replace(held, status=whole))

    async def forget(self, pod: Pod) -> None:
        self.drop(pod)

    # --- Recorder ---

    def event(self, obj: Object, type: str, reason: str, message: str, part: str = "") -> None:
        self.events.append((obj.metadata.name, reason, message))
        self.parts.append((obj.metadata.name, reason, part))
        self._changed.set()

    def reasons(self, pod: Pod) -> list[str]:
        return [reason for name, reason, _ in self.events if name == pod.metadata.name]


@dataclass
class NodeKit:
    base: Path
    netns: str
    paths: ContainerdPaths
    cluster: MemoryCluster
    supervisor: Supervisor
    ctx: Context
    prepared: list[str] = field(default_factory=list)
    manager: PodManager | None = None
    _task: asyncio.Task[None] | None = None

    def start_pods(self) -> None:
        """As an agent that starts: nothing known but what the API and the runtime say."""
        self.cluster.forget_handlers()
        self.manager = PodManager(self.ctx, self.cluster)
        self._task = asyncio.create_task(self.manager.run())

    async def stop_pods(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


async def eventually(holds: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  what is looked at is outside of this process
            await asyncio.sleep(0.05)


@asynccontextmanager
async def node_kit() -> AsyncIterator[NodeKit]:
    base = Path(tempfile.mkdtemp(prefix="pl-"))
    netns = f"pt-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    run("ip", "netns", "add", netns)
    run("ip", "-n", netns, "link", "set", "lo", "up")
    paths = ContainerdPaths(base / "containerd", Path("/usr/lib/cni"), base / "cni")
    paths.cni_conf.mkdir()
    (paths.cni_conf / "10-test.conflist").write_text(CNI % (base / "ipam"))
    supervisor = Supervisor(SupervisorSettings(paths, enter=("nsenter", f"--net=/run/netns/{netns}")))
    cri = CriClient(paths.socket)
    cluster = MemoryCluster()
    kit = NodeKit(base, netns, paths, cluster, supervisor, _context(base, cri, cluster))
    try:
        await supervisor.ensure()
        await ensure_own_images(cri, paths.socket, build_images(base / "images"))
        kit.start_pods()
        yield kit
    finally:
        await kit.stop_pods()
        await _remove_all(kit, cri)


def _context(base: Path, cri: CriClient, cluster: MemoryCluster) -> Context:
    clock, machine = SystemClock(), Machine("192.0.2.1", 2000, 4 << 30)
    places = Places(base / "pods", base / "logs", f"pt{os.getpid()}{base.name[-4:]}")

    images = Images(cri, ImageAccess(base / "image-access"))
    paths = ContainerdPaths(base / "containerd", Path("/usr/lib/cni"), base / "cni")

    async def prepare(pod: Pod) -> None:
        return

    async def pull(pod: Pod, container: Container) -> ImageInfo:
        return await images.ensure(container, puller(cluster, cluster, pod), lambda *words: None)

    more = (
        Claims(cluster, Storage(base / "storage", lambda tenant: f"uid-of-{tenant}")),
        ImageVolumes(places.pods, pull, cri.chain, Snapshots(paths)),
    )

    return Context(
        cri=cri,
        cluster=cluster,
        recorder=cluster,
        volumes=Volumes(places.pods, cluster, Tokens(cluster, clock), machine.around, more),
        images=images,
        prepare=prepare,
        places=places,
        resolver=Resolver(lambda tenant: "10.96.0.10"),
        machine=machine,
        clock=clock,
        cgroups=Cgroups(),
        starts=asyncio.Semaphore(8),
        means=Means(cri, Reach()),
        since=clock.now().timestamp(),
    )


async def _remove_all(kit: NodeKit, cri: CriClient) -> None:
    await kit.supervisor.ensure()
    for sandbox in await cri.list_sandboxes():
        await cri.stop_sandbox(sandbox.id)
        await cri.remove_sandbox(sandbox.id)
    await cri.close()
    await kit.supervisor.destroy()
    assert kit.ctx.cgroups.remove(f"/{kit.ctx.places.cgroup}", within=5.0)
    run("ip", "netns", "del", kit.netns)
    shutil.rmtree(kit.base)


def make_pod(name: str, script: str, tenant: str = "acme", **spec: object) -> Pod:
    """A pod of one toolbox container that runs a shell script."""
    container = {
        "name": "main",
        "image": "toolbox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        **spec.pop("container", {}),  # type: ignore[dict-item]
    }
    return msgspec.convert(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": str(uuid.uuid4()),
                "annotations": {TENANT_ANNOTATION: tenant},
            },
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 1, "containers": [container], **spec},
        },
        Pod,
    )


def meta_only(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace="default")
