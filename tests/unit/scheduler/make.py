"""Short ways to nodes, pods and a cluster of them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from polder.api.meta import TENANT_ANNOTATION
from polder.api.nodefacts import ScheduledNode
from polder.api.podfacts import ScheduledPod
from polder.scheduler.cluster import Cluster, Placement
from polder.scheduler.core import Decision, decide
from polder.scheduler.demand import Demand, demand_of
from polder.scheduler.nodes import facts_of

Raw = dict[str, Any]


def node(name: str, *, ready: str = "True", **more: Any) -> ScheduledNode:
    """``more``: labels, allocatable, images, and fields of the spec."""
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", "ephemeral-storage": "10Gi"}
    raw = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(more.pop("labels", None) or {})}},
        "status": {
            "allocatable": {**allocatable, **more.pop("allocatable", {})},
            "conditions": [{"type": "Ready", "status": ready}],
            "images": more.pop("images", None),
        },
        "spec": more,
    }
    return msgspec.convert(raw, ScheduledNode)


def container(name: str = "main", **requests: str) -> Raw:
    return {"name": name, "resources": {"requests": requests}}


def pod(name: str = "web", tenant: str = "acme", *containers: Raw, **more: Any) -> ScheduledPod:
    """``more``: labels, namespace, created, owner, status, and fields of the spec."""
    owner = more.pop("owner", "")
    meta = {
        "name": name,
        "namespace": more.pop("namespace", "default"),
        "uid": f"{tenant}-{name}",
        "annotations": {TENANT_ANNOTATION: tenant},
        "labels": more.pop("labels", None),
        "creationTimestamp": more.pop("created", "2026-01-01T00:00:00Z"),
        "deletionTimestamp": more.pop("deleted", None),
    }
    if owner:
        owned = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}
        meta["ownerReferences"] = [owned]
    status = {"phase": "Pending", **more.pop("status", {})}
    raw = {"metadata": meta, "spec": {"containers": list(containers) or [container()], **more}, "status": status}
    return msgspec.json.decode(json.dumps(raw), type=ScheduledPod)


def demand(name: str = "web", tenant: str = "acme", *containers: Raw, **more: Any) -> Demand:
    return demand_of(pod(name, tenant, *containers, **more))


def cluster(*nodes: ScheduledNode) -> Cluster:
    made = Cluster()
    for one in nodes:
        made.set_node(facts_of(one))
    made.wakes.clear()
    return made


def place(state: Cluster, wanted: Demand, where: str, **more: Any) -> Placement:
    """Has the cluster know a pod on a node."""
    placement = Placement(where, wanted, **more)
    state.place(placement)
    return placement


def refused(wanted: Demand, state: Cluster) -> str:
    """Why there is no node; there must be none."""
    decision: Decision = decide(wanted, state)
    assert not decision.node, decision
    return decision.message


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


def term(key: str = HOST, **more: Any) -> Raw:
    """A pod affinity term; ``app`` is short for a selector of that label."""
    app = more.pop("app", None)
    if app is not None:
        more["labelSelector"] = {"matchLabels": {"app": app}}
    return {"topologyKey": key, **more}


def near(*terms: Raw) -> Raw:
    return {"podAffinity": {REQUIRED: list(terms)}}


def apart(*terms: Raw) -> Raw:
    return {"podAntiAffinity": {REQUIRED: list(terms)}}


def spread(key: str = HOST, skew: int = 1, app: str = "web", **more: Any) -> Raw:
    selector = {"labelSelector": {"matchLabels": {"app": app}}}
    return {"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": "DoNotSchedule", **selector, **more}
