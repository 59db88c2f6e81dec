"""Short ways to nodes, pods and a cluster of them."""

from __future__ import annotations

from typing import Any

from polder.api.core import Node, NodeCondition, NodeSpec, NodeStatus, Pod, PodStatus, Taint
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta
from polder.api.podspec import Container, PodSpec, Resources
from polder.scheduler.cluster import Cluster, facts_of
from polder.scheduler.demand import Demand, demand_of


def node(name: str, *, ready: str = "True", taints: list[Taint] | None = None, **spec: Any) -> Node:
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", "ephemeral-storage": "10Gi"}
    return Node(
        metadata=ObjectMeta(name=name, labels=spec.pop("labels", None)),
        status=NodeStatus(
            allocatable={**allocatable, **spec.pop("allocatable", {})},
            conditions=[NodeCondition(type="Ready", status=ready)],
        ),
        spec=NodeSpec(taints=taints, **spec),
    )


def container(name: str = "main", **requests: str) -> Container:
    return Container(name=name, resources=Resources(requests=dict(requests)))


def pod(name: str = "web", tenant: str = "acme", *containers: Container, **spec: Any) -> Pod:
    return Pod(
        metadata=ObjectMeta(
            name=name,
            namespace="default",
            uid=f"{tenant}-{name}",
            annotations={TENANT_ANNOTATION: tenant},
            creation_timestamp=spec.pop("created", "2026-01-01T00:00:00Z"),
        ),
        spec=PodSpec(containers=list(containers) or [container()], **spec),
        status=PodStatus(phase=spec.pop("phase", "Pending")),
    )


def demand(name: str = "web", tenant: str = "acme", *containers: Container, **spec: Any) -> Demand:
    return demand_of(pod(name, tenant, *containers, **spec))


def cluster(*nodes: Node) -> Cluster:
    made = Cluster()
    for one in nodes:
        made.set_node(facts_of(one))
    return made
