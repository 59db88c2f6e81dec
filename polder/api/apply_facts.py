"""What the published definitions do not say: which structs Go holds by value, and defaults of lists' keys.

A struct that is held by value is there even where nothing of it was sent, so nobody owns its being there. ``metadata``
everywhere, and ``spec`` and ``status`` of kinds, are by value and not listed. Source: the defaults in the published OpenAPI v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BY_VALUE: Final = """
v1.MutatingWebhook clientConfig
v1.ValidatingWebhook clientConfig
v1.DaemonSetSpec template updateStrategy
v1.DeploymentSpec strategy template
v1.ReplicaSetSpec template
v1.StatefulSetSpec template updateStrategy
v1.SelfSubjectReviewStatus userInfo
v1.TokenReviewStatus user
v1.HorizontalPodAutoscalerSpec scaleTargetRef
v2.ContainerResourceMetricSource target
v2.ContainerResourceMetricStatus current
v2.ExternalMetricSource metric target
v2.ExternalMetricStatus current metric
v2.HorizontalPodAutoscalerSpec scaleTargetRef
v2.ObjectMetricSource describedObject metric target
v2.ObjectMetricStatus current describedObject metric
v2.PodsMetricSource metric target
v2.PodsMetricStatus current metric
v2.ResourceMetricSource target
v2.ResourceMetricStatus current
v1.CronJobSpec jobTemplate
v1.JobSpec template
v1.JobTemplateSpec spec
v1.Binding target
v1.Container resources
v1.ContainerStatus lastState state
v1.EphemeralContainer resources
v1.Event involvedObject source regarding deprecatedSource
v1.NodeDaemonEndpoints kubeletEndpoint
v1.NodeStatus daemonEndpoints nodeInfo
v1.PersistentVolumeClaimSpec resources
v1.PersistentVolumeClaimTemplate spec
v1.PodTemplate template
v1.PodTemplateSpec spec
v1.PreferredSchedulingTerm preference
v1.ServiceStatus loadBalancer
v1.WeightedPodAffinityTerm podAffinityTerm
v1.Endpoint conditions
v1.FlowSchemaSpec priorityLevelConfiguration
v1.LimitedPriorityLevelConfiguration limitResponse
v1.HTTPIngressPath backend
v1.IngressServiceBackend port
v1.IngressStatus loadBalancer
v1.NetworkPolicySpec podSelector
v1.ClusterRoleBinding roleRef
v1.RoleBinding roleRef
v1.AllocationResult devices
v1.ResourceClaimSpec devices
v1.ResourceClaimTemplateSpec spec
v1.ResourceSliceSpec pool
v1.VolumeAttachmentSpec source
v1.CustomResourceDefinitionSpec names
v1.CustomResourceDefinitionStatus acceptedNames
"""


def _table(text: str) -> Mapping[str, tuple[str, ...]]:
    rows = (line.split() for line in text.split("\n") if line)
    return {name: tuple(fields) for name, *fields in rows}


BY_VALUE: Final = _table(_BY_VALUE)
"""By the struct's name; a name that two groups share (Event) lists the fields of both."""
KEY_DEFAULTS: Final[Mapping[str, Mapping[str, str | int]]] = {
    "v1.ContainerPort": {"containerPort": 0, "protocol": "TCP"},
    "v1.ServicePort": {"port": 0, "protocol": "TCP"},
    "v1.LocalObjectReference": {"name": ""},
}
"""Defaults of fields that are keys of lists; texts that are required default to the empty one."""
