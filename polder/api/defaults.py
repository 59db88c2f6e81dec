"""Defaults of built-in kinds, as upstream's ``SetDefaults_*``; they work on an object that ``conform`` made.

Plain ones are rows of ``defaults_table``; pods and workloads have modules of their own.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

from polder.api import cidr, defaults_pods, polder
from polder.api import defaults_workloads as workloads
from polder.api.crd_defaults import default_crd
from polder.api.defaults_pods import containers_of, pull_policy, qos_class
from polder.api.defaults_table import PLAIN, fill
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.schemas import Shape, schema_of

__all__ = ["containers_of", "default", "initial_status", "pull_policy", "qos_class"]

_AFFINITY_SECONDS: Final = 10800
_KEPT_STATUS: Final = frozenset({"nodes", "certificatesigningrequests.certificates.k8s.io", "servicecidrs"})
_NUMBERS: Final = frozenset({Shape.INT32, Shape.INT64})


def default(kind: Kind, obj: Raw) -> Raw:
    """Fills in what the object leaves open, in place, and returns it. The object has the form in which it is stored."""
    if (table := PLAIN.get(kind.resource)) is not None:
        fill(obj, table)
    if (more := _BY_RESOURCE.get(kind.resource)) is not None:
        more(obj)
    return obj


def initial_status(kind: Kind, obj: Raw) -> Raw | None:
    """The status that a new object begins with, whatever the caller sent (upstream's ``PrepareForCreate``); None where
    the kind has none, or where the caller's counts (nodes register with theirs).
    """
    match kind.resource:
        case "pods":
            return {"phase": "Pending", "qosClass": qos_class(obj.get("spec") or {})}
        case "namespaces" | "tenants.polder.dev":
            return {"phase": "Active"}
        case "persistentvolumes" | "persistentvolumeclaims":
            return {"phase": "Pending"}
        case "services":
            return {"loadBalancer": {}}
        case "customresourcedefinitions.apiextensions.k8s.io":
            return None  # admission sets it
        case name if name in _KEPT_STATUS or "status" not in kind.subresources:
            return None
    return _zero_status(kind)


def _zero_status(kind: Kind) -> Raw:
    """Counts that Go writes even where they are 0."""
    schema = schema_of(kind)
    status = schema.fields.get("status") if schema else None
    fields = status.schema.fields if status else {}
    return {name: 0 for name, prop in fields.items() if prop.required and prop.schema.shape in _NUMBERS}


def _namespace(namespace: Raw) -> None:
    meta = namespace.setdefault("metadata", {})
    if name := meta.get("name"):
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = name
    namespace.setdefault("spec", {})
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def _node(node: Raw) -> None:
    node.setdefault("spec", {})
    status = node.setdefault("status", {})
    if "capacity" in status:
        status.setdefault("allocatable", dict(status["capacity"]))


def _service(service: Raw) -> None:
    spec = service.setdefault("spec", {})
    fill(spec, [("type", "ClusterIP"), ("sessionAffinity", "None"), ("ports[].protocol", "TCP")])
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        fill(spec, [("sessionAffinityConfig.clientIP.timeoutSeconds", _AFFINITY_SECONDS)])
    for port in spec.get("ports") or ():
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port", 0)
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    external = spec["type"] in ("NodePort", "LoadBalancer")
    if external or (spec["type"] == "ClusterIP" and spec.get("externalIPs")):
        fill(spec, [("externalTrafficPolicy", "Cluster")])
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    balancer = service.setdefault("status", {}).setdefault("loadBalancer", {})
    for point in balancer.get("ingress") or () if spec["type"] == "LoadBalancer" else ():
        if point.get("ip"):
            point.setdefault("ipMode", "VIP")


def _endpoint_slice(piece: Raw) -> None:
    piece.setdefault("endpoints", [])
    piece.setdefault("ports", [])
    for port in piece["ports"]:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _secret(secret: Raw) -> None:
    secret.setdefault("type", "Opaque")
    for key, text in secret.pop("stringData", {}).items():
        secret.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()


def _tenant(tenant: Raw) -> None:
    """The services have the families of the pods, in their order."""
    given = polder.TenantSpec()
    spec = tenant.setdefault("spec", {})
    if not spec.get("podCidrs"):
        spec.setdefault("podCidr", given.pod_cidr)
    cidr.fill(spec, "podCidr", "podCidrs")
    if not cidr.listed(spec, "serviceCidr", "serviceCidrs"):
        known = {False: given.service_cidr, True: polder.SERVICE_CIDR6}
        spec["serviceCidrs"] = [
            known[six] for six in dict.fromkeys(":" in pods for pods in spec.get("podCidrs") or [""])
        ]
    cidr.fill(spec, "serviceCidr", "serviceCidrs")


def _network(network: Raw) -> None:
    spec = network.setdefault("spec", {})
    spec.setdefault("router", polder.DEFAULT_ROUTER)
    cidr.fill(spec, "cidr", "cidrs")
    cidr.fill(spec, "gateway", "gateways")


def _router(router: Raw) -> None:
    cidr.fill(router.setdefault("spec", {}), "serviceCidr", "serviceCidrs")


def _network_policy(policy: Raw) -> None:
    spec = policy["spec"]
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _subjects(binding: Raw) -> None:
    for subject in binding.get("subjects") or ():
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = "rbac.authorization.k8s.io"


def _limit_range(ranges: Raw) -> None:
    """A container's default is its maximum, its default request the default or the minimum."""
    for item in (ranges.get("spec") or {}).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits = {**(item.get("max") or {}), **(item.get("default") or {})}
        requests = {**(item.get("min") or {}), **limits, **(item.get("defaultRequest") or {})}
        if limits:
            item["default"] = limits
        if requests:
            item["defaultRequest"] = requests


def _claim(claim: Raw) -> None:
    _counted((claim.get("spec") or {}).get("devices") or {})


def _claim_template(template: Raw) -> None:
    _claim(template.get("spec") or {})


def _counted(devices: Raw) -> None:
    """A request for exactly so many devices asks for one."""
    for request in devices.get("requests") or ():
        for asked in (request.get("exactly"), *(request.get("firstAvailable") or ())):
            if asked and asked.get("allocationMode") == "ExactCount" and not asked.get("count"):
                asked["count"] = 1


_BY_RESOURCE: Final[dict[str, Callable[[Raw], None]]] = {
    "pods": defaults_pods.default_pod,
    "podtemplates": workloads.default_pod_template,
    "replicationcontrollers": workloads.default_replication_controller,
    "namespaces": _namespace,
    "nodes": _node,
    "services": _service,
    "secrets": _secret,
    "limitranges": _limit_range,
    "deployments.apps": workloads.default_deployment,
    "daemonsets.apps": workloads.default_daemon_set,
    "statefulsets.apps": workloads.default_stateful_set,
    "replicasets.apps": workloads.default_replicas,
    "jobs.batch": workloads.default_job,
    "cronjobs.batch": workloads.default_cron_job,
    "horizontalpodautoscalers.autoscaling": workloads.default_autoscaler,
    "networkpolicies.networking.k8s.io": _network_policy,
    "clusterrolebindings.rbac.authorization.k8s.io": _subjects,
    "rolebindings.rbac.authorization.k8s.io": _subjects,
    "resourceclaims.resource.k8s.io": _claim,
    "resourceclaimtemplates.resource.k8s.io": _claim_template,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "customresourcedefinitions.apiextensions.k8s.io": default_crd,
    "tenants.polder.dev": _tenant,
    "networks.polder.dev": _network,
    "routers.polder.dev": _router,
}
