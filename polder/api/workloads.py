"""ReplicaSet, Deployment (apps/v1) and ReplicationController (v1). Pod templates stay as they were written: a controller
that copied only what it knows would lose the rest.
"""

from __future__ import annotations

from typing import Any

from polder.api.meta import LabelSelector, Object, Struct

Template = dict[str, Any]
"""A PodTemplateSpec."""


class WorkloadCondition(Struct, frozen=True, kw_only=True):
    """What a controller says of its set."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_update_time: str | None = None
    last_transition_time: str | None = None


class ReplicaSetSpec(Struct, frozen=True, kw_only=True):
    """How many pods of a template."""

    replicas: int = 1
    min_ready_seconds: int = 0
    selector: LabelSelector | None = None
    template: Template = {}


class ReplicaSetStatus(Struct, frozen=True, kw_only=True):
    """How many there are."""

    replicas: int = 0
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int | None = None
    observed_generation: int = 0
    conditions: list[WorkloadCondition] | None = None


class ReplicaSet(Object, frozen=True, kw_only=True):
    """Keeps a number of pods."""

    spec: ReplicaSetSpec = ReplicaSetSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class ReplicationControllerSpec(Struct, frozen=True, kw_only=True):
    """How many pods of a template; the selector is a map."""

    replicas: int = 1
    min_ready_seconds: int = 0
    selector: dict[str, str] | None = None
    template: Template | None = None


class ReplicationController(Object, frozen=True, kw_only=True):
    """The older ReplicaSet."""

    spec: ReplicationControllerSpec = ReplicationControllerSpec()
    status: ReplicaSetStatus = ReplicaSetStatus()


class RollingUpdate(Struct, frozen=True, kw_only=True):
    """Numbers, or per cent of the replicas."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None


class DeploymentStrategy(Struct, frozen=True, kw_only=True):
    """Recreate, or RollingUpdate."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Struct, frozen=True, kw_only=True):
    """What a Deployment wants."""

    replicas: int = 1
    selector: LabelSelector | None = None
    template: Template = {}
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None


class DeploymentStatus(Struct, frozen=True, kw_only=True):
    """How far it is."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: list[WorkloadCondition] | None = None
    collision_count: int | None = None


class Deployment(Object, frozen=True, kw_only=True):
    """Rolls a template out over ReplicaSets."""

    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()
