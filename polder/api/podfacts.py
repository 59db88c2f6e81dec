"""Of a pod, what controllers and the scheduler look at: caches of all pods hold these instead of whole pods.

The names and meanings are those of core/v1; a field that is not here is skipped as the pod is read, so it is no part of what
a cache compares. Whoever needs more of a pod reads it from the server.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from polder.api.core import PodIP
from polder.api.meta import Object, Struct
from polder.api.nodeaffinity import Requirement
from polder.api.podspec import ContainerPort, Resources, Toleration


class ConditionFacts(Struct, frozen=True, kw_only=True):
    """One condition, without its reason."""

    type: str
    status: str
    message: str = ""
    last_transition_time: str | None = None


class ContainerNames(Struct, frozen=True, kw_only=True):
    """Of a container, the ports that a Service may mean by name."""

    ports: list[ContainerPort] | None = None
    restart_policy: str = ""


class Ended(Struct, frozen=True, kw_only=True):
    """When a container ended."""

    finished_at: str | None = None


class EndState(Struct, frozen=True, kw_only=True):
    """Of a container's state, whether it has ended."""

    terminated: Ended | None = None


class Restarts(Struct, frozen=True, kw_only=True):
    """How often a container was started again, and when it ended."""

    restart_count: int = 0
    state: EndState | None = None


class _TargetTerm(Struct, frozen=True, kw_only=True):
    match_fields: list[Requirement] | None = None


class _TargetTerms(Struct, frozen=True, kw_only=True):
    node_selector_terms: list[_TargetTerm] = []


class _TargetNodes(Struct, frozen=True, kw_only=True):
    required: _TargetTerms | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class TargetAffinity(Struct, frozen=True, kw_only=True):
    """Of an affinity, the node that is meant by its name: a daemon's pod is made for one."""

    node_affinity: _TargetNodes | None = None


class EphemeralMark(Struct, frozen=True, kw_only=True):
    """That a volume's claim is made with the pod."""


class VolumeMark(Struct, frozen=True, kw_only=True):
    """Of a volume, whether its claim is made with the pod."""

    ephemeral: EphemeralMark | None = None


class ControlledSpec(Struct, frozen=True, kw_only=True):
    """Where a pod is, and what endpoints show of it."""

    containers: list[ContainerNames] = []
    init_containers: list[ContainerNames] | None = None
    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    volumes: list[VolumeMark] | None = None
    affinity: TargetAffinity | None = None


class ControlledStatus(Struct, frozen=True, kw_only=True):
    """What decides which pods are counted, reached, or go first."""

    phase: str = "Pending"
    conditions: list[ConditionFacts] | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIP] | None = msgspec.field(default=None, name="podIPs")
    container_statuses: list[Restarts] | None = None
    init_container_statuses: list[Restarts] | None = None


class ControlledPod(Object, frozen=True, kw_only=True):
    """A pod as the controllers' cache has it."""

    spec: ControlledSpec = ControlledSpec()
    status: ControlledStatus = ControlledStatus()


class HostPort(Struct, frozen=True, kw_only=True):
    """A port of the node that a container takes, if ``host_port`` says so."""

    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")


class ContainerDemand(Struct, frozen=True, kw_only=True):
    """Of a container, what it takes of a node."""

    name: str = ""
    image: str = ""
    ports: list[HostPort] | None = None
    resources: Resources | None = None
    restart_policy: str = ""

    def __post_init__(self) -> None:
        """Forgets ports that take none of the node's."""
        if self.ports:
            msgspec.structs.force_setattr(self, "ports", [p for p in self.ports if p.host_port] or None)


class Gate(Struct, frozen=True, kw_only=True):
    """What must be taken away before a pod is scheduled."""

    name: str


class ClaimVolume(Struct, frozen=True, kw_only=True):
    """A volume that is a claim."""

    claim_name: str = ""


class DemandedVolume(Struct, frozen=True, kw_only=True):
    """Of a volume, the claim that it is, or that is made for it."""

    name: str = ""
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: dict[str, Any] | None = None


_NONE: Final = msgspec.Raw(b"null")
_SHARED: Final = (
    "containers", "init_containers", "node_selector", "affinity", "topology_spread_constraints", "tolerations", "overhead",
    "resources",
)  # fmt: skip
_LIGHT: Final = 4096
"""Bytes of what is remembered of one template."""
_KEPT: Final = 1024
"""Templates that are remembered; a full memory is begun anew."""
_templates: dict[bytes, tuple[Any, ...]] = {}


def _remembered(key: bytes, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What equal pods brought before."""
    known = _templates.get(key)
    if known is None:
        if len(_templates) >= _KEPT:
            _templates.clear()
        if len(key) <= _LIGHT:
            _templates[key] = values
        return values
    return known


class ScheduledSpec(Struct, frozen=True, kw_only=True):
    """What a pod asks of a node. Affinity and spread constraints stay as they came: they are read once for many pods."""

    containers: list[ContainerDemand] = []
    init_containers: list[ContainerDemand] | None = None
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: msgspec.Raw = _NONE
    topology_spread_constraints: msgspec.Raw = _NONE
    tolerations: list[Toleration] | None = None
    scheduler_name: str = "default-scheduler"
    priority: int | None = None
    preemption_policy: str = ""
    overhead: dict[str, str | int | float] | None = None
    resources: Resources | None = None
    runtime_class_name: str = ""
    scheduling_gates: list[Gate] | None = None
    volumes: list[DemandedVolume] | None = None

    def __post_init__(self) -> None:
        """Takes the raw parts out of the message that they came in, and forgets volumes that are no claims."""
        for name in ("affinity", "topology_spread_constraints"):
            part = getattr(self, name)
            msgspec.structs.force_setattr(self, name, _NONE if bytes(part) == b"null" else part.copy())
        self._share()
        if self.volumes:
            claims = [v for v in self.volumes if v.persistent_volume_claim is not None or v.ephemeral is not None]
            msgspec.structs.force_setattr(self, "volumes", claims or None)

    def _share(self) -> None:
        """Thousands of pods of one template hold what they have of it once."""
        values = tuple(getattr(self, name) for name in _SHARED)
        known = _remembered(msgspec.json.encode(values), values)
        for name, value in zip(_SHARED, known, strict=True):
            msgspec.structs.force_setattr(self, name, value)


class ContainerHolds(Struct, frozen=True, kw_only=True):
    """What a container was given, while it is resized."""

    name: str = ""
    resources: Resources | None = None
    allocated_resources: dict[str, str | int | float] | None = None


class ScheduledStatus(Struct, frozen=True, kw_only=True):
    """Whether a pod has ended, what it says about its scheduling, and what it holds."""

    phase: str = "Pending"
    conditions: list[ConditionFacts] | None = None
    nominated_node_name: str = ""
    start_time: str | None = None
    container_statuses: list[ContainerHolds] | None = None


class ScheduledPod(Object, frozen=True, kw_only=True):
    """A pod as the scheduler's cache has it."""

    spec: ScheduledSpec = ScheduledSpec()
    status: ScheduledStatus = ScheduledStatus()
