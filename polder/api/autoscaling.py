"""HorizontalPodAutoscaler (autoscaling/v2), the scale of what it sizes, and what it looks at of pods."""

from __future__ import annotations

import msgspec

from polder.api.meta import LabelSelector, Object, Struct
from polder.api.podfacts import ConditionFacts
from polder.api.podspec import Resources

Amount = str | int | float
"""A quantity."""


class CrossReference(Struct, frozen=True, kw_only=True):
    """An object of the same namespace."""

    kind: str = ""
    name: str = ""
    api_version: str = ""


class MetricTarget(Struct, frozen=True, kw_only=True):
    """What a metric ought to be: Utilization (per cent of requests), AverageValue (per pod) or Value."""

    type: str = ""
    value: Amount | None = None
    average_value: Amount | None = None
    average_utilization: int | None = None


class MetricIdentifier(Struct, frozen=True, kw_only=True):
    """A metric by its name, and which of its series."""

    name: str = ""
    selector: LabelSelector | None = None


class ResourceMetric(Struct, frozen=True, kw_only=True):
    """A resource of pods, or of one container of each where it is named."""

    name: str = ""
    container: str = ""
    target: MetricTarget = MetricTarget()


class NamedMetric(Struct, frozen=True, kw_only=True):
    """A metric of pods, of one object, or of nothing in the cluster."""

    metric: MetricIdentifier = MetricIdentifier()
    target: MetricTarget = MetricTarget()
    described_object: CrossReference | None = None


class MetricSpec(Struct, frozen=True, kw_only=True):
    """One metric; ``type`` says which."""

    type: str = ""
    resource: ResourceMetric | None = None
    container_resource: ResourceMetric | None = None
    pods: NamedMetric | None = None
    object: NamedMetric | None = None
    external: NamedMetric | None = None


class ScalingPolicy(Struct, frozen=True, kw_only=True):
    """How much may change in a period: Pods, or Percent of what there was at its beginning. Seconds."""

    type: str = ""
    value: int = 0
    period_seconds: int = 0


class ScalingRules(Struct, frozen=True, kw_only=True):
    """How sizes change in one direction. The window is in seconds."""

    stabilization_window_seconds: int | None = None
    select_policy: str = "Max"
    policies: list[ScalingPolicy] | None = None
    tolerance: Amount | None = None


class ScalingBehavior(Struct, frozen=True, kw_only=True):
    """How sizes change."""

    scale_up: ScalingRules = ScalingRules()
    scale_down: ScalingRules = ScalingRules()


class AutoscalerSpec(Struct, frozen=True, kw_only=True):
    """What is sized, between which bounds, by which metrics."""

    scale_target_ref: CrossReference = CrossReference()
    min_replicas: int | None = None
    max_replicas: int = 1
    metrics: list[MetricSpec] | None = None
    behavior: ScalingBehavior | None = None


class MetricValue(Struct, frozen=True, kw_only=True):
    """What a metric is."""

    value: Amount | None = None
    average_value: Amount | None = None
    average_utilization: int | None = None


class ResourceValue(Struct, frozen=True, kw_only=True):
    """A resource's metric as it is."""

    name: str
    container: str = ""
    current: MetricValue


class NamedValue(Struct, frozen=True, kw_only=True):
    """A named metric as it is."""

    metric: MetricIdentifier
    current: MetricValue
    described_object: CrossReference | None = None


class MetricStatus(Struct, frozen=True, kw_only=True):
    """One metric as it is."""

    type: str
    resource: ResourceValue | None = None
    container_resource: ResourceValue | None = None
    pods: NamedValue | None = None
    object: NamedValue | None = None
    external: NamedValue | None = None


class AutoscalerCondition(Struct, frozen=True, kw_only=True):
    """AbleToScale, ScalingActive or ScalingLimited."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


class AutoscalerStatus(Struct, frozen=True, kw_only=True):
    """What was decided last."""

    observed_generation: int | None = None
    last_scale_time: str | None = None
    current_replicas: int = 0
    desired_replicas: int = 0
    current_metrics: list[MetricStatus] | None = None
    conditions: list[AutoscalerCondition] | None = None


class Autoscaler(Object, frozen=True, kw_only=True):
    """Sizes something by its metrics."""

    spec: AutoscalerSpec = AutoscalerSpec()
    status: AutoscalerStatus = AutoscalerStatus()


class KnownAutoscaler(Object, frozen=True, kw_only=True):
    """An autoscaler as the controllers' cache has it."""

    spec: AutoscalerSpec = AutoscalerSpec()


class ScaleSpec(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """How many are wanted."""

    replicas: int = 0


class ScaleStatus(Struct, frozen=True, kw_only=True):
    """How many there are, and which pods they are."""

    replicas: int = 0
    selector: str = ""


class Scale(Object, frozen=True, kw_only=True):
    """autoscaling/v1 Scale: the size of an object of any kind."""

    spec: ScaleSpec = ScaleSpec()
    status: ScaleStatus = ScaleStatus()


class MeasuredContainer(Struct, frozen=True, kw_only=True):
    """What a container asked for."""

    name: str = ""
    resources: Resources | None = None
    restart_policy: str = ""


class MeasuredSpec(Struct, frozen=True, kw_only=True):
    """What a pod asked for."""

    containers: list[MeasuredContainer] = []
    init_containers: list[MeasuredContainer] | None = None
    resources: Resources | None = None


class MeasuredStatus(Struct, frozen=True, kw_only=True):
    """Whether what a pod uses says anything yet."""

    phase: str = "Pending"
    conditions: list[ConditionFacts] | None = None
    start_time: str | None = None


class MeasuredPod(Object, frozen=True, kw_only=True):
    """A pod as autoscaling looks at it."""

    spec: MeasuredSpec = MeasuredSpec()
    status: MeasuredStatus = MeasuredStatus()


class MetricValueItem(Struct, frozen=True, kw_only=True):
    """One value of custom.metrics.k8s.io or external.metrics.k8s.io. ``window_seconds`` is unknown where None."""

    described_object: CrossReference = msgspec.field(default_factory=CrossReference)
    value: Amount = 0
    timestamp: str = ""
    window_seconds: int | None = None


class MetricValueList(Struct, frozen=True, kw_only=True):
    """What these APIs answer."""

    items: list[MetricValueItem] | None = None
