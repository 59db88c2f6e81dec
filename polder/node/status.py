"""The Node object of this node and its Lease: made, renewed, and true about the runtime."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.api.core import Node, NodeAddress, NodeCondition, NodeStatus
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
COMPARE_EVERY = 10.0
"""Seconds between looks at what the API shows of us."""
WRITE_EVERY = 300.0
"""Seconds after which an unchanged status is written again, with a new heartbeat."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """How this node presents itself."""

    name: NodeName
    address: str
    version: str
    max_pods: int
    state: Path
    capacity: Capacity


class NodeReporter:
    """Writes Node and Lease until cancelled. The server being away is borne; the lease tells others."""

    def __init__(
        self, settings: NodeSettings, client: Client, supervisor: Supervisor, cri: CriClient, clock: Clock
    ) -> None:
        self._settings = settings
        self._client = client
        self._supervisor = supervisor
        self._cri = cri
        self._clock = clock
        self._runtime = ("containerd", "")
        self._conditions: dict[str, NodeCondition] = {}
        self._node_uid = ""
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
        while True:
            status = await self._status()
            print_ = _without_times(status)
            late = self._clock.monotonic() - at > WRITE_EVERY
            if print_ != written or late or await self._is_overwritten(status):
                try:
                    await self._write(status)
                    written, at = print_, self._clock.monotonic()
                except (PolderError, OSError) as error:
                    log.info("the node's status was not written: %s", error)
            ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions or [])
            await asyncio.sleep(LOOK_EVERY if ready else UNREADY_LOOK_EVERY)

    async def _is_overwritten(self, status: NodeStatus) -> bool:
        """Whether the API shows other conditions than ours: whoever thought us silent wrote them, or the Node was deleted."""
        now = self._clock.monotonic()
        if now - self._compared < COMPARE_EVERY:
            return False
        self._compared = now
        try:
            node = await self._client.get(Node, self._ref)
        except (PolderError, OSError) as error:
            return isinstance(error, ApiError) and error.is_not_found
        shown = {c.type: c.status for c in node.status.conditions or []}
        return any(shown.get(c.type) != c.status for c in status.conditions or [])

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
        left = {**sizes, "memory": f"{max(0, held.capacity.memory - machine.LOW_MEMORY) // 1024}Ki"}
        return NodeStatus(
            capacity=dict(sizes),
            allocatable=dict(left),
            conditions=await self._observe_conditions(),
            addresses=[
                NodeAddress(type="InternalIP", address=held.address),
                NodeAddress(type="Hostname", address=held.name),
            ],
            node_info=machine.observe_node_info(self._runtime, held.version),
        )

    async def _observe_conditions(self) -> list[NodeCondition]:
        pressures = await asyncio.to_thread(machine.observe_pressures, self._settings.state)
        reasons = {
            "MemoryPressure": ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            "DiskPressure": ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            "PIDPressure": ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
        }
        found = [self._condition(kind, on, reasons[kind][0 if on else 1], "") for kind, on in pressures.items()]
        why = await self._why_not_ready()
        reason = "KubeletNotReady" if why else "KubeletReady"
        return [*found, self._condition("Ready", not why, reason, why or "the node runs pods")]

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
        ref = Ref(ROOT, LEASE_NAMESPACE, name)
        try:
            await self._client.patch(Lease, ref, {"spec": {"renewTime": now}})
        except ApiError as error:
            if not error.is_not_found:
                raise
            owner = OwnerReference(api_version="v1", kind="Node", name=name, uid=self._node_uid)
            spec = LeaseSpec(holder_identity=name, lease_duration_seconds=LEASE_SECONDS, renew_time=now)
            meta = ObjectMeta(
                name=name, namespace=LEASE_NAMESPACE, owner_references=[owner] if self._node_uid else None
            )
            await self._client.create(ROOT, Lease(metadata=meta, spec=spec))


def _status_body(status: NodeStatus) -> object:
    return msgspec.to_builtins(status)


def _without_times(status: NodeStatus) -> tuple[object, ...]:
    conditions = tuple((c.type, c.status, c.reason, c.message) for c in status.conditions or [])
    return (conditions, status.capacity, status.allocatable, status.addresses, status.node_info)
