"""The APIServices of the groups that this server serves itself: every tenant has them, always available; and what those of
custom kinds say.

Source of the priorities: upstream's registration of its own groups (facts).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polder.api.kinds import BUILT_IN
from polder.api.meta import Raw

API_SERVICES: Final = "apiservices.apiregistration.k8s.io"
_GROUPS: Final[Mapping[str, int]] = {
    "": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600,
    "autoscaling": 17500, "batch": 17400, "certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100,
    "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800, "apiextensions.k8s.io": 16700,
    "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500,
    "node.k8s.io": 16300, "discovery.k8s.io": 16200, "resource.k8s.io": 16200,
    "flowcontrol.apiserver.k8s.io": 16100, "metrics.k8s.io": 100,
}  # fmt: skip
_VERSIONS: Final[Mapping[tuple[str, str], int]] = {
    ("", "v1"): 1,
    ("autoscaling", "v2"): 30,
    ("flowcontrol.apiserver.k8s.io", "v1"): 21,
    ("metrics.k8s.io", "v1beta1"): 100,
    ("resource.k8s.io", "v1"): 21,
}
_UNLISTED: Final = frozenset({"apiregistration.k8s.io"})
"""Served by what reads the list."""
KEPT: Final = "kube-aggregator.kubernetes.io/automanaged"
"""The label of those that the server looks after."""
_KEPT: Final = f'"{KEPT}":"true"'.encode()
_OTHER_GROUP, _OTHER_VERSION = 15000, 15


def api_service(name: str, created: str) -> Raw:
    """One, by its name; ``created`` is RFC 3339."""
    version, _, group = name.partition(".")
    spec: Raw = {
        "groupPriorityMinimum": _GROUPS.get(group, _OTHER_GROUP),
        "version": version,
        "versionPriority": _VERSIONS.get((group, version), _OTHER_VERSION),
    }
    if group:
        spec["group"] = group
    condition = {
        "type": "Available",
        "status": "True",
        "lastTransitionTime": created,
        "reason": "Local",
        "message": "Local APIServices are always available",
    }
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name, "labels": {KEPT: "onstart"}},
        "spec": spec,
        "status": {"conditions": [condition]},
    }


def is_kept(value: bytes | None) -> bool:
    """Whether a stored APIService is the server's own: marked so, and not for another server."""
    return value is not None and _KEPT in value and b'"service":' not in value


def local_api(group: str, version: str) -> Raw:
    """The spec of an APIService for a group version of custom kinds."""
    return {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 100}


def names() -> list[str]:
    """Of all of them: ``VERSION.GROUP``."""
    return sorted({f"{kind.version}.{kind.group}" for kind in BUILT_IN if kind.group not in _UNLISTED})
