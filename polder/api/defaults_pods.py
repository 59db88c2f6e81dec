"""Defaults of pods and of what templates of pods hold, as upstream's ``SetDefaults_PodSpec`` and those below it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from polder.api.defaults_table import Table, fill
from polder.api.meta import Raw
from polder.api.podlevel import default_whole, is_sized
from polder.api.quantity import QuantityError, parse

_FILE_MODE: Final = 0o644
_TOKEN_SECONDS: Final = 3600
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_GROUPS: Final = ("initContainers", "containers")
_VOLUME: Final[Table] = (
    ("secret?.defaultMode", _FILE_MODE),
    ("configMap?.defaultMode", _FILE_MODE),
    ("downwardAPI?.defaultMode", _FILE_MODE),
    ("projected?.defaultMode", _FILE_MODE),
    ("projected?.sources[].serviceAccountToken?.expirationSeconds", _TOKEN_SECONDS),
    ("hostPath?.type", ""),
    ("ephemeral?.volumeClaimTemplate?.spec.volumeMode", "Filesystem"),
    ("iscsi?.iscsiInterface", "default"),
    ("rbd?.pool", "rbd"),
    ("rbd?.user", "admin"),
    ("rbd?.keyring", "/etc/ceph/keyring"),
    ("scaleIO?.storageMode", "ThinProvisioned"),
    ("scaleIO?.fsType", "xfs"),
    ("azureDisk?.cachingMode", "ReadWrite"),
    ("azureDisk?.fsType", "ext4"),
    ("azureDisk?.readOnly", False),
    ("azureDisk?.kind", "Shared"),
)


def containers_of(spec: Raw) -> Iterator[Raw]:
    """Init containers, then containers."""
    for group in _GROUPS:
        yield from spec.get(group) or ()


def default_pod(pod: Raw) -> None:
    """A pod: what its template would get, and what only pods get."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    for container in containers_of(spec):
        resources = container["resources"]
        if limits := resources.get("limits"):
            resources["requests"] = {**limits, **(resources.get("requests") or {})}
    default_whole(spec)
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for container in containers_of(spec):
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort", 0)
    pod.setdefault("status", {}).setdefault("phase", "Pending")


def default_template(owner: Raw | None) -> None:
    """The ``template`` of a workload's spec, where it has one."""
    template = (owner or {}).get("template")
    if isinstance(template, dict):
        default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Raw) -> None:
    """What a pod and a template have in common."""
    for name, value in (
        ("restartPolicy", "Always"),
        ("dnsPolicy", "ClusterFirst"),
        ("terminationGracePeriodSeconds", 30),
        ("schedulerName", "default-scheduler"),
    ):
        if spec.get(name) in (None, ""):
            spec[name] = value
    grace = spec["terminationGracePeriodSeconds"]
    if isinstance(grace, int) and grace < 0:
        spec["terminationGracePeriodSeconds"] = 1
    spec.setdefault("securityContext", {})
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or ():
        _volume(volume)
    for container in (*containers_of(spec), *(spec.get("ephemeralContainers") or ())):
        default_container(container)


def default_container(container: Raw) -> None:
    """A container of any group."""
    for name, value in (
        ("terminationMessagePath", "/dev/termination-log"),
        ("terminationMessagePolicy", "File"),
        ("imagePullPolicy", pull_policy(container.get("image", ""))),
    ):
        if not container.get(name):
            container[name] = value
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        _reference(variable.get("valueFrom") or {})
    for name in _PROBES:
        if name in container:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        _http(hook)


def pull_policy(image: str) -> str:
    """Always for ``latest`` or no tag, else IfNotPresent."""
    name, at, _digest = image.partition("@")
    _, colon, tag = name.rpartition("/")[2].partition(":")
    latest = (colon and tag == "latest") or not (colon or at)
    return "Always" if latest else "IfNotPresent"


def _reference(source: Raw) -> None:
    if "fieldRef" in source and not source["fieldRef"].get("apiVersion"):
        source["fieldRef"]["apiVersion"] = "v1"
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")
    if "fileKeyRef" in source:
        source["fileKeyRef"].setdefault("optional", False)


def _probe(probe: Raw) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(name):
            probe[name] = value
    _http(probe)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http(handler: Raw) -> None:
    if isinstance(handler, dict) and "httpGet" in handler:
        for name, value in (("path", "/"), ("scheme", "HTTP")):
            if not handler["httpGet"].get(name):
                handler["httpGet"][name] = value


def _volume(volume: Raw) -> None:
    if volume.keys() <= {"name"}:
        volume["emptyDir"] = {}
    fill(volume, _VOLUME)
    if "image" in volume and not volume["image"].get("pullPolicy"):
        volume["image"]["pullPolicy"] = pull_policy(volume["image"].get("reference", ""))
    sources = (volume.get("projected") or {}).get("sources") or ()
    for downward in (volume.get("downwardAPI"), *(source.get("downwardAPI") for source in sources)):
        for item in (downward or {}).get("items") or ():
            _reference(item)


def qos_class(spec: Raw) -> str:
    """Guaranteed when every container's requests equal its limits for CPU and memory, BestEffort when none asks. A pod that
    names amounts as a whole is judged by these alone.
    """
    asked, guaranteed = False, True
    for judged in [spec] if is_sized(spec) else containers_of(spec):
        resources = judged.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            amounts = [_amount(group.get(name, 0)) for group in (requests, limits)]
            asked |= any(amounts)
            guaranteed &= bool(amounts[1]) and amounts[0] == amounts[1]
    return "BestEffort" if not asked else "Guaranteed" if guaranteed else "Burstable"


def _amount(text: str | int) -> object:
    try:
        return parse(text).value
    except QuantityError:
        return 0
