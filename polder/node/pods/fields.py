"""The downward API: fields of a pod and resources of its containers as text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from polder.api.core import Pod
from polder.api.meta import TENANT_ANNOTATION
from polder.api.podspec import Container
from polder.api.podvolumes import FieldRef, ResourceFieldRef
from polder.api.quantity import parse, whole
from polder.base.errors import PermanentError
from polder.node.pods import resources

_SIZES = frozenset({"cpu", "memory", "ephemeral-storage"})
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a pod's fields say beyond its own object: addresses (the first is the main one) and what the node has for pods."""

    host_ip: str
    pod_ips: tuple[str, ...]
    node_cpu: int
    node_memory: int
    node_disk: int = 0


def own_annotations(pod: Pod) -> dict[str, str]:
    """The pod's annotations as its tenant wrote them."""
    return {k: v for k, v in (pod.metadata.annotations or {}).items() if k != TENANT_ANNOTATION}


def _lines(pairs: Mapping[str, str]) -> str:
    return "\n".join(f'{key}="{_quoted(value)}"' for key, value in sorted(pairs.items()))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")


def field(pod: Pod, ref: FieldRef, around: Surroundings) -> str:
    """The text of one field. Raises PermanentError for a path that does not exist."""
    meta, path = pod.metadata, ref.field_path
    keyed = _KEYED.fullmatch(path)
    if keyed is not None:
        pairs = (meta.labels or {}) if keyed[1] == "labels" else own_annotations(pod)
        return pairs.get(keyed[2], "")
    plain = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace,
        "metadata.uid": meta.uid,
        "metadata.labels": _lines(meta.labels or {}),
        "metadata.annotations": _lines(own_annotations(pod)),
        "spec.nodeName": pod.spec.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name,
        "status.hostIP": around.host_ip,
        "status.hostIPs": around.host_ip,
        "status.podIP": around.pod_ips[0] if around.pod_ips else "",
        "status.podIPs": ",".join(around.pod_ips),
    }
    if path not in plain:
        raise PermanentError(f"fieldPath {path!r} is not a field that pods can show")
    return plain[path]


def resource(pod: Pod, ref: ResourceFieldRef, own: Container | None, around: Surroundings) -> str:
    """A request or limit in units of its divisor, rounded up; a limit not given is the pod's, else what the node has for pods."""
    container = own
    if ref.container_name:
        every = [*pod.spec.containers, *(pod.spec.init_containers or [])]
        container = next((c for c in every if c.name == ref.container_name), None)
    if container is None:
        raise PermanentError(f"resourceFieldRef names container {ref.container_name!r}, which the pod does not have")
    side, _, name = ref.resource.partition(".")
    if side not in {"limits", "requests"} or not (name in _SIZES or name.startswith("hugepages-")):
        raise PermanentError(f"resourceFieldRef {ref.resource!r} is not a limit or request that pods can show")
    divisor = parse(ref.divisor).value or 1
    sizes = {"cpu": around.node_cpu, "memory": around.node_memory, "ephemeral-storage": around.node_disk}
    most = resources.shared_limit(pod, name) or sizes.get(name, 0) if side == "limits" else 0
    if name == "cpu":
        return str(math.ceil((resources.cpu(container, side) or most) / (divisor * 1000)))
    return str(math.ceil((_bytes(container, side, name) or most) / divisor))


def _bytes(container: Container, side: str, name: str) -> int:
    """Bytes requested or allowed; a request not given is the limit. 0: none."""
    held = container.resources
    limits, requests = (held.limits or {}, held.requests or {}) if held is not None else ({}, {})
    found = requests.get(name, limits.get(name)) if side == "requests" else limits.get(name)
    return 0 if found is None else whole(found)
