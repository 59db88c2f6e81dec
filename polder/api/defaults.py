"""Defaults of built-in kinds, as upstream's ``SetDefaults_*``; they work on an object that ``conform`` made."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Final

from polder.api import polder
from polder.api.crd_defaults import default_crd
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.quantity import parse

_FILE_MODE: Final = 0o644
_TOKEN_SECONDS: Final = 3600


def default(kind: Kind, obj: Raw) -> Raw:
    """Fills in what the object leaves open, in place, and returns it."""
    if (fill := _BY_RESOURCE.get(kind.resource)) is not None:
        fill(obj)
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
        case "services":
            return {"loadBalancer": {}}
        case "networks.polder.dev" | "ports.polder.dev":
            return {}
    return None


def qos_class(spec: Raw) -> str:
    """Guaranteed when every container's requests equal its limits for CPU and memory, BestEffort when none asks."""
    asked, guaranteed = False, True
    for container in containers_of(spec):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            amounts = [parse(group.get(name, 0)).value for group in (requests, limits)]
            asked |= any(amounts)
            guaranteed &= bool(amounts[1]) and amounts[0] == amounts[1]
    return "BestEffort" if not asked else "Guaranteed" if guaranteed else "Burstable"


def containers_of(spec: Raw) -> Iterator[Raw]:
    """Init containers, then containers."""
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def _pod(pod: Raw) -> None:
    spec = pod.setdefault("spec", {})
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    spec.setdefault("enableServiceLinks", True)
    if name := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = name
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for container in containers_of(spec):
        _container(container)
    pod.setdefault("status", {}).setdefault("phase", "Pending")


def _container(container: Raw) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image", ""))
    resources = container.setdefault("resources", {})
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **(resources.get("requests") or {})}
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        _reference(variable.get("valueFrom") or {})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _probe(container[name])


def pull_policy(image: str) -> str:
    """Always for ``latest`` or no tag, else IfNotPresent."""
    name, at, _digest = image.partition("@")
    _, colon, tag = name.rpartition("/")[2].partition(":")
    latest = (colon and tag == "latest") or not (colon or at)
    return "Always" if latest else "IfNotPresent"


def _reference(source: Raw) -> None:
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")


def _probe(probe: Raw) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _volume(volume: Raw) -> None:
    if volume.keys() <= {"name"}:
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if name in volume:
            volume[name].setdefault("defaultMode", _FILE_MODE)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    sources = (volume.get("projected") or {}).get("sources") or ()
    for source in sources:
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)
    for downward in (volume.get("downwardAPI"), *(source.get("downwardAPI") for source in sources)):
        for item in (downward or {}).get("items") or ():
            _reference(item)


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
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if not port.get("targetPort"):
            port["targetPort"] = port.get("port", 0)
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        if spec.get("clusterIP"):
            spec.setdefault("clusterIPs", [spec["clusterIP"]])
        elif spec.get("clusterIPs"):
            spec["clusterIP"] = spec["clusterIPs"][0]
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    service.setdefault("status", {}).setdefault("loadBalancer", {})


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
    given = polder.TenantSpec()
    spec = tenant.setdefault("spec", {})
    spec.setdefault("podCidr", given.pod_cidr)
    spec.setdefault("serviceCidr", given.service_cidr)


def _network(network: Raw) -> None:
    network.setdefault("spec", {}).setdefault("router", polder.DEFAULT_ROUTER)


_BY_RESOURCE: Final[dict[str, Callable[[Raw], None]]] = {
    "pods": _pod,
    "namespaces": _namespace,
    "nodes": _node,
    "services": _service,
    "secrets": _secret,
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "customresourcedefinitions.apiextensions.k8s.io": default_crd,
    "tenants.polder.dev": _tenant,
    "networks.polder.dev": _network,
}
