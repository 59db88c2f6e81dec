"""Of a pod, what controllers and the scheduler look at: caches of all pods hold these instead of whole pods.

The names and meanings are those of core/v1; a field that is not here is skipped as the pod is read, so it is no part of what
a cache compares. Whoever needs more of a pod reads it from the server.
"""

from __future__ import annotations

from typing import Any

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


class ControlledSpec(Struct, frozen=True, kw_only=True):
    """Where a pod is, and what endpoints show of it."""

    containers: list[ContainerNames] = []
    init_containers: list[ContainerNames] | None = None
    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
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


class ContainerDemand(Struct, frozen=True, kw_only=True):
    """Of a container, what it takes of a node."""

    ports: list[ContainerPort] | None = None
    resources: Resources | None = None
    restart_policy: str = ""


class ScheduledSpec(Struct, frozen=True, kw_only=True):
    """What a pod asks of a node."""

    containers: list[ContainerDemand] = []
    init_containers: list[ContainerDemand] | None = None
    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: list[Toleration] | None = None
    scheduler_name: str = "default-scheduler"
    priority: int | None = None


class ScheduledStatus(Struct, frozen=True, kw_only=True):
    """Whether a pod has ended, and what it says about its scheduling."""

    phase: str = "Pending"
    conditions: list[ConditionFacts] | None = None


class ScheduledPod(Object, frozen=True, kw_only=True):
    """A pod as the scheduler's cache has it."""

    spec: ScheduledSpec = ScheduledSpec()
    status: ScheduledStatus = ScheduledStatus()
