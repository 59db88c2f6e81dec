"""The Node object of this node and its Lease: made, renewed, and true about the runtime."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from polder.api.core import Node, NodeAddress, NodeCondition, NodeImage, NodeStatus, RuntimeHandler
from polder.api.discovery import Lease, LeaseSpec
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, OwnerReference
from polder.base.clock import Clock, micro_stamp, stamp
from polder.base.errors import PolderError
from polder.base.ids import ROOT, NodeName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.node import machine
from polder.node.machine import Capacity
from polder.node.supervisor import Supervisor
from polder.system.cri import CriClient
from polder.system.cri_types import RuntimeFailureError

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
LEASE_EVERY = 10.0
LOOK_EVERY = 2.0
"""Seconds between looks at the runtime; what changed is written at once."""
UNREADY_LOOK_EVERY = 0.2
"""Likewise while the node is not ready: pods wait for it."""
STARTING = 20.0
"""Seconds for which an agent that starts takes back nobody's word that the node is ready: its pods run on, and whoever reads that
their node is not ready takes them out of their Services."""
COMPARE_EVERY = 10.0
"""Seconds between looks at what the API shows of us."""
WRITE_EVERY = 300.0
"""Seconds after which an unchanged status is written again, with a new heartbeat."""
IMAGES_EVERY = 60.0
MOST_IMAGES, MOST_NAMES = 50, 5
"""Images that a status names at most, and names of each, as upstream."""
PRESSURES: Final = (
    ("MemoryPressure", (("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"))),
    ("DiskPressure", (("KubeletHasDiskPressure", "kubelet has disk pressure"),
                      ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"))),
    ("PIDPressure", (("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                     ("KubeletHasSufficientPID", "kubelet has sufficient PID available"))),
)  # fmt: skip
"""Reason and message where the pressure is there, and where it is not."""
EVENTS: Final = {
    "MemoryPressure": ("NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    "DiskPressure": ("NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    "PIDPressure": ("NodeHasInsufficientPID", "NodeHasSufficientPID"),
    "Ready": ("NodeReady", "NodeNotReady"),
}


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How this node presents itself."""

    name: NodeName
    address: str
    version: str
    max_pods: int
    state: Path
    capacity: Capacity
    allocatable: Mapping[str, int] = field(default_factory=dict)
    handlers: Sequence[str] = ("runc",)
    """The runtime handlers that RuntimeClasses may name."""


def _none() -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Told:
    """What the reporter is told: the time, which pressures there are (conditions' names), and who notes events."""

    clock: Clock
    pressures: Callable[[], frozenset[str]] = _none
    event: Callable[[Node, str, str, str], None] | None = None


class NodeReporter:
    """Writes Node and Lease until cancelled. The server being away is borne; the lease tells others."""

    def __init__(
        self, settings: NodeSettings, client: Client, supervisor: Supervisor, cri: CriClient, told: Told
    ) -> None:
        self._settings = settings
        self._client = client
        self._supervisor = supervisor
        self._cri = cri
        self._clock = told.clock
        self._told = told
        self._images: list[NodeImage] = []
        self._listed = -IMAGES_EVERY
        self._started = False
        self._runtime = ("containerd", "")
        self._conditions: dict[str, NodeCondition] = {}
        self._node_uid = ""
        self._lease_of = ""
        """The node that the lease names as its owner, as far as this agent wrote it."""
        self._compared = 0.0
        self._ref = Ref(ROOT, "", settings.name)
        self.hindrance = "the node is starting"
        """Why pods cannot run here though the runtime is up; empty when they can. Set by the agent."""

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_status())
            group.create_task(self._keep_lease())

    async def _keep_status(self) -> None:
        written: tuple[object, ...] = ()
        at = 0.0
        begun = self._clock.monotonic()
        while True:
            status = await self._status()
            if not written and self._clock.monotonic() - begun < STARTING and await self._was_ready(status):
                await asyncio.sleep(UNREADY_LOOK_EVERY)
                continue
            print_ = _without_times(status)
            late = self._clock.monotonic() - at > WRITE_EVERY
            if print_ != written or late or await self._is_overwritten(status):
                try:
                    await self._write(status)
                    written, at = print_, self._clock.monotonic()
                    self._say_started()
                except (PolderError, OSError) as error:
                    log.info("the node's status was not written: %s", error)
            await asyncio.sleep(LOOK_EVERY if _is_ready(status) else UNREADY_LOOK_EVERY)

    async def _was_ready(self, status: NodeStatus) -> bool:
        """Whether this status says that the node is not ready where the API says, from the agent before, that it is."""
        if _is_ready(status):
            return False
        try:
            return _is_ready((await self._client.get(Node, self._ref)).status)
        except (PolderError, OSError):
            return False

    async def _is_overwritten(self, status: NodeStatus) -> bool:
        """Whether the API shows other conditions than ours: whoever thought us silent wrote them, or the Node was deleted."""
        now = self._clock.monotonic()
        if now - self._compared < COMPARE_EVERY:
            return False
        self._compared = now
        try:
            node = await self._client.get(Node, self._ref)
            await self._follow_extended(node.status)
        except (PolderError, OSError) as error:
            return isinstance(error, ApiError) and error.is_not_found
        shown = {c.type: c.status for c in node.status.conditions or []}
        return any(shown.get(c.type) != c.status for c in status.conditions or [])

    async def _follow_extended(self, shown: NodeStatus) -> None:
        """What others advertise of extended resources (``status.capacity``) may be allocated until they take it back."""
        has, left = _extended(shown.capacity), _extended(shown.allocatable)
        if has != left:
            sizes = {**dict.fromkeys(left), **has}
            await self._client.patch(Node, self._ref, {"status": {"allocatable": sizes}}, subresource="status")

    async def _write(self, status: NodeStatus) -> None:
        try:
            found = await self._client.patch(Node, self._ref, {"status": _status_body(status)}, subresource="status")
        except ApiError as error:
            if not error.is_not_found:
                raise
            await self._register()
            found = await self._client.patch(Node, self._ref, {"status": _status_body(status)}, subresource="status")
        self._node_uid = found.metadata.uid

    async def _register(self) -> None:
        name = self._settings.name
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine.architecture(),
        }
        try:
            await self._client.create(ROOT, Node(metadata=ObjectMeta(name=name, labels=labels)))
        except ApiError as error:
            if not error.is_already_exists:
                raise

    async def _status(self) -> NodeStatus:
        held = self._settings
        sizes = {
            "cpu": f"{held.capacity.cpu}m" if held.capacity.cpu % 1000 else str(held.capacity.cpu // 1000),
            "memory": f"{held.capacity.memory // 1024}Ki",
            "ephemeral-storage": f"{held.capacity.disk // 1024}Ki",
            "pods": str(held.max_pods),
        }
        left = {
            **sizes,
            "memory": f"{held.allocatable.get('memory', held.capacity.memory) // 1024}Ki",
            "ephemeral-storage": str(held.allocatable.get("ephemeral-storage", held.capacity.disk)),
        }
        cpu = held.allocatable.get("cpu", held.capacity.cpu)
        left["cpu"] = f"{cpu}m" if cpu % 1000 else str(cpu // 1000)
        pages = machine.observe_huge_pages()
        return NodeStatus(
            capacity={**sizes, **pages},
            allocatable={**left, **pages},
            images=await self._observe_images(),
            runtime_handlers=[RuntimeHandler(name=name) for name in ("", *held.handlers)],
            conditions=await self._observe_conditions(),
            addresses=[
                NodeAddress(type="InternalIP", address=held.address),
                NodeAddress(type="Hostname", address=held.name),
            ],
            node_info=machine.observe_node_info(self._runtime, held.version),
        )

    async def _observe_conditions(self) -> list[NodeCondition]:
        pressures = self._told.pressures()
        found = [self._condition(kind, kind in pressures, *said[kind not in pressures]) for kind, said in PRESSURES]
        why = await self._why_not_ready()
        reason = "KubeletNotReady" if why else "KubeletReady"
        return [*found, self._condition("Ready", not why, reason, why or "kubelet is posting ready status")]

    async def _observe_images(self) -> list[NodeImage]:
        """The largest images that are here, looked at once a minute."""
        now = self._clock.monotonic()
        if now - self._listed >= IMAGES_EVERY and self._supervisor.up.is_set():
            try:
                found = await self._cri.list_images()
            except RuntimeFailureError as error:
                log.debug("images were not listed: %s", error)
                return self._images
            self._listed = now
            largest = sorted(found, key=lambda image: (-image.size, image.id))[:MOST_IMAGES]
            self._images = [
                NodeImage(names=[*image.digests, *image.tags][:MOST_NAMES], size_bytes=image.size) for image in largest
            ]
        return self._images

    def _say(self, kind: str, reason: str, message: str) -> None:
        if self._told.event is not None:
            name = self._settings.name
            about = Node(metadata=ObjectMeta(name=name, uid=self._node_uid or name))
            self._told.event(about, kind, reason, message)

    def say_warning(self, reason: str, message: str) -> None:
        """Notes an event about the node."""
        self._say("Warning", reason, message)

    def _say_started(self) -> None:
        if not self._started:
            self._started = True
            self._say("Normal", "Starting", "Starting kubelet.")
            for condition in list(self._conditions.values()):
                self._say_condition(condition)

    def _say_condition(self, condition: NodeCondition) -> None:
        """Upstream's events of a condition that changed."""
        on = condition.status == "True"
        reason = EVENTS[condition.type][0 if on else 1]
        if self._started:
            self._say("Normal", reason, f"Node {self._settings.name} status is now: {reason}")

    async def _why_not_ready(self) -> str:
        if not self._supervisor.up.is_set():
            return f"container runtime is down: {self._supervisor.reason}"
        try:
            status = await self._cri.status()
            self._runtime = await self._cri.version()
        except RuntimeFailureError as error:
            return f"container runtime is down: {error}"
        if not status.ready:
            return f"container runtime is not ready: {status.reason}"
        if not status.network_ready:
            return f"container runtime network not ready: {status.reason}"
        return self.hindrance

    def _condition(self, kind: str, on: bool, reason: str, message: str) -> NodeCondition:
        now, status = stamp(self._clock.now()), "True" if on else "False"
        old = self._conditions.get(kind)
        changed = old is None or old.status != status
        since = old.last_transition_time if old is not None and old.status == status else now
        made = NodeCondition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_heartbeat_time=now,
            last_transition_time=since,
        )
        self._conditions[kind] = made
        if changed:
            self._say_condition(made)
        return made

    async def _keep_lease(self) -> None:
        while True:
            try:
                await self._renew()
            except (PolderError, OSError) as error:
                log.info("the node's lease was not renewed: %s", error)
            await asyncio.sleep(LEASE_EVERY)

    async def _renew(self) -> None:
        name, now = self._settings.name, micro_stamp(self._clock.now())
        body: dict[str, object] = {"spec": {"renewTime": now}}
        owned = self._node_uid
        owners = [OwnerReference(api_version="v1", kind="Node", name=name, uid=owned)] if owned else None
        if owned != self._lease_of:  # it may have been made before the node's object was known
            body["metadata"] = {"ownerReferences": msgspec.to_builtins(owners)}
        try:
            await self._client.patch(Lease, Ref(ROOT, LEASE_NAMESPACE, name), body)
        except ApiError as error:
            if not error.is_not_found:
                raise
            spec = LeaseSpec(holder_identity=name, lease_duration_seconds=LEASE_SECONDS, renew_time=now)
            meta = ObjectMeta(name=name, namespace=LEASE_NAMESPACE, owner_references=owners)
            await self._client.create(ROOT, Lease(metadata=meta, spec=spec))
        self._lease_of = owned


def _status_body(status: NodeStatus) -> object:
    return msgspec.to_builtins(status)


def _extended(sizes: Mapping[str, str | int] | None) -> dict[str, str | int]:
    """Resources that are not Kubernetes' own."""
    return {name: size for name, size in (sizes or {}).items() if "/" in name and "kubernetes.io/" not in name}


def _is_ready(status: NodeStatus) -> bool:
    return any(c.type == "Ready" and c.status == "True" for c in status.conditions or [])


def _without_times(status: NodeStatus) -> tuple[object, ...]:
    conditions = tuple((c.type, c.status, c.reason, c.message) for c in status.conditions or [])
    return (
        conditions, status.capacity, status.allocatable, status.addresses, status.node_info, status.images,
        status.runtime_handlers,
    )  # fmt: skip
