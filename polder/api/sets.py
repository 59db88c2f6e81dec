"""StatefulSet, DaemonSet and ControllerRevision (apps/v1). Pod templates stay as they were written.

``KnownStatefulSet`` and ``KnownDaemonSet`` are what caches keep of them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.meta import LabelSelector, Object, Raw, Struct
from polder.api.nodeaffinity import NodeAffinityTerms
from polder.api.podspec import Toleration
from polder.api.workloads import RollingUpdate, Template

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


class SetUpdate(Struct, frozen=True, kw_only=True):
    """From which ordinal on pods are replaced, and how many may be away meanwhile."""

    partition: int = 0
    max_unavailable: int | str | None = None


class SetStrategy(Struct, frozen=True, kw_only=True):
    """OnDelete, or RollingUpdate."""

    type: str = "RollingUpdate"
    rolling_update: SetUpdate | None = None


class ClaimRetention(Struct, frozen=True, kw_only=True):
    """Retain or Delete."""

    when_deleted: str = "Retain"
    when_scaled: str = "Retain"


class Ordinals(Struct, frozen=True, kw_only=True):
    """Where the numbers of pods begin."""

    start: int = 0


class StatefulSetSpec(Struct, frozen=True, kw_only=True):
    """Pods that keep their names."""

    replicas: int = 1
    selector: LabelSelector | None = None
    template: Template = {}
    volume_claim_templates: list[Raw] | None = None
    service_name: str = ""
    pod_management_policy: str = "OrderedReady"
    update_strategy: SetStrategy = SetStrategy()
    revision_history_limit: int | None = None
    min_ready_seconds: int = 0
    persistent_volume_claim_retention_policy: ClaimRetention | None = None
    ordinals: Ordinals | None = None


class StatefulSetStatus(Struct, frozen=True, kw_only=True):
    """How far it is."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None


class StatefulSet(Object, frozen=True, kw_only=True):
    """Pods with a name and storage of their own."""

    spec: StatefulSetSpec = StatefulSetSpec()
    status: StatefulSetStatus = StatefulSetStatus()


class DaemonStrategy(Struct, frozen=True, kw_only=True):
    """OnDelete, or RollingUpdate."""

    type: str = "RollingUpdate"
    rolling_update: RollingUpdate | None = None


class DaemonSetSpec(Struct, frozen=True, kw_only=True):
    """A pod on each node that the template fits."""

    selector: LabelSelector | None = None
    template: Template = {}
    update_strategy: DaemonStrategy = DaemonStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class DaemonSetStatus(Struct, frozen=True, kw_only=True):
    """On how many nodes its pods are, and ought to be."""

    current_number_scheduled: int = 0
    number_misscheduled: int = 0
    desired_number_scheduled: int = 0
    number_ready: int = 0
    observed_generation: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None


class DaemonSet(Object, frozen=True, kw_only=True):
    """Runs a pod on each node."""

    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()


class ControllerRevision(Object, frozen=True, kw_only=True):
    """A state of a set's template. ``data`` is a patch that restores it."""

    data: Any = None
    revision: int = 0


class _Selecting(Struct, frozen=True, kw_only=True):
    selector: LabelSelector | None = None


class KnownStatefulSet(Object, frozen=True, kw_only=True):
    """Whose pods it takes."""

    spec: _Selecting = _Selecting()


class DaemonAffinity(Struct, frozen=True, kw_only=True):
    """Of an affinity, what is said of nodes."""

    node_affinity: NodeAffinityTerms | None = None


class DaemonPlace(Struct, frozen=True, kw_only=True):
    """Of a template's pod, what decides on which nodes it runs."""

    node_name: str = ""
    node_selector: dict[str, str] | None = None
    affinity: DaemonAffinity | None = None
    tolerations: list[Toleration] | None = None
    host_network: bool = False


class _PlacedTemplate(Struct, frozen=True, kw_only=True):
    spec: DaemonPlace = DaemonPlace()


class _PlacedSpec(Struct, frozen=True, kw_only=True):
    selector: LabelSelector | None = None
    template: _PlacedTemplate = _PlacedTemplate()


class _Misplaced(Struct, frozen=True, kw_only=True):
    number_misscheduled: int = 0


class KnownDaemonSet(Object, frozen=True, kw_only=True):
    """Whose pods it takes, and which nodes concern it."""

    spec: _PlacedSpec = _PlacedSpec()
    status: _Misplaced = _Misplaced()


def place_of(template: Template) -> DaemonPlace:
    """What a template says about nodes. Raises msgspec.ValidationError."""
    return msgspec.convert(template.get("spec") or {}, DaemonPlace)
