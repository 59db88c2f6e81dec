"""Defaults that are plain: a path and the value that it gets where nothing stands.

A path's steps: ``name`` (made where it is missing), ``name?`` (only where it is there), ``name[]`` (each of a list),
``name{}`` (each value of a map). The last step is filled where it is missing or empty text; with ``!`` where it is 0 too.
Source: upstream's ``SetDefaults_*`` and declared defaults, API reference of release 1.36.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable
from typing import Any, Final

from polder.api.meta import Raw

Table = tuple[tuple[str, Any], ...]

_RBAC: Final = "rbac.authorization.k8s.io"
_WEBHOOK: Final[Table] = (
    ("webhooks[].clientConfig.service?.port", 443),
    ("webhooks[].rules[].scope", "*"),
    ("webhooks[].failurePolicy", "Fail"),
    ("webhooks[].matchPolicy", "Equivalent"),
    ("webhooks[].namespaceSelector", {}),
    ("webhooks[].objectSelector", {}),
    ("webhooks[].timeoutSeconds", 10),
)


def _matching(path: str) -> Table:
    """Defaults of admissionregistration's MatchResources."""
    return (
        (f"{path}?.matchPolicy", "Equivalent"),
        (f"{path}?.namespaceSelector", {}),
        (f"{path}?.objectSelector", {}),
        (f"{path}?.resourceRules[].scope", "*"),
        (f"{path}?.excludeResourceRules[].scope", "*"),
    )


def _devices(path: str) -> Table:
    """Defaults of the requests of a ResourceClaimSpec."""
    exactly, first = f"{path}.devices?.requests[].exactly?", f"{path}.devices?.requests[].firstAvailable[]"
    return ((f"{exactly}.allocationMode", "ExactCount"), (f"{first}.allocationMode", "ExactCount"))


_POLICY: Final[Table] = (("spec.failurePolicy", "Fail"), *_matching("spec.matchConstraints"))

PLAIN: Final[dict[str, Table]] = {
    "deployments.apps": (
        ("spec.replicas", 1),
        ("spec.strategy.type", "RollingUpdate"),
        ("spec.revisionHistoryLimit", 10),
        ("spec.progressDeadlineSeconds", 600),
    ),
    "daemonsets.apps": (("spec.updateStrategy.type", "RollingUpdate"), ("spec.revisionHistoryLimit", 10)),
    "statefulsets.apps": (
        ("spec.podManagementPolicy", "OrderedReady"),
        ("spec.persistentVolumeClaimRetentionPolicy.whenDeleted", "Retain"),
        ("spec.persistentVolumeClaimRetentionPolicy.whenScaled", "Retain"),
        ("spec.replicas", 1),
        ("spec.revisionHistoryLimit", 10),
        ("spec.volumeClaimTemplates[].apiVersion", "v1"),
        ("spec.volumeClaimTemplates[].kind", "PersistentVolumeClaim"),
        ("spec.volumeClaimTemplates[].spec.volumeMode", "Filesystem"),
        ("spec.volumeClaimTemplates[].status.phase", "Pending"),
    ),
    "replicasets.apps": (("spec.replicas", 1),),
    "replicationcontrollers": (("spec.replicas", 1),),
    "cronjobs.batch": (
        ("spec.concurrencyPolicy", "Allow"),
        ("spec.suspend", False),
        ("spec.successfulJobsHistoryLimit", 3),
        ("spec.failedJobsHistoryLimit", 1),
    ),
    "horizontalpodautoscalers.autoscaling": (("spec.minReplicas", 1),),
    "persistentvolumes": (
        ("spec.persistentVolumeReclaimPolicy", "Retain"),
        ("spec.volumeMode", "Filesystem"),
        ("spec.hostPath?.type", ""),
        ("spec.iscsi?.iscsiInterface", "default"),
        ("spec.rbd?.pool", "rbd"),
        ("spec.rbd?.user", "admin"),
        ("spec.rbd?.keyring", "/etc/ceph/keyring"),
        ("status.phase", "Pending"),
    ),
    "persistentvolumeclaims": (("spec.volumeMode", "Filesystem"), ("status.phase", "Pending")),
    "endpoints": (("subsets[].ports[].protocol", "TCP"),),
    "networkpolicies.networking.k8s.io": (
        ("spec.ingress[].ports[].protocol", "TCP"),
        ("spec.egress[].ports[].protocol", "TCP"),
    ),
    "ingressclasses.networking.k8s.io": (("spec.parameters?.scope", "Cluster"),),
    "storageclasses.storage.k8s.io": (("reclaimPolicy", "Delete"), ("volumeBindingMode", "Immediate")),
    "csidrivers.storage.k8s.io": (
        ("spec.attachRequired", True),
        ("spec.podInfoOnMount", False),
        ("spec.storageCapacity", False),
        ("spec.fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("spec.volumeLifecycleModes", ["Persistent"]),
        ("spec.requiresRepublish", False),
        ("spec.seLinuxMount", False),
    ),
    "priorityclasses.scheduling.k8s.io": (("preemptionPolicy", "PreemptLowerPriority"),),
    "clusterrolebindings.rbac.authorization.k8s.io": (("roleRef.apiGroup", _RBAC),),
    "rolebindings.rbac.authorization.k8s.io": (("roleRef.apiGroup", _RBAC),),
    "apiservices.apiregistration.k8s.io": (("spec.service?.port", 443),),
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": (
        *_WEBHOOK,
        ("webhooks[].reinvocationPolicy", "Never"),
    ),
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOK,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": _POLICY,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _POLICY,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _matching("spec.matchResources"),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _matching("spec.matchResources"),
    "flowschemas.flowcontrol.apiserver.k8s.io": (("spec.matchingPrecedence!", 1000),),
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": (
        ("spec.exempt?.nominalConcurrencyShares", 0),
        ("spec.exempt?.lendablePercent", 0),
        ("spec.limited?.nominalConcurrencyShares", 30),
        ("spec.limited?.lendablePercent", 0),
        ("spec.limited?.limitResponse.queuing?.handSize!", 8),
        ("spec.limited?.limitResponse.queuing?.queues!", 64),
        ("spec.limited?.limitResponse.queuing?.queueLengthLimit!", 50),
    ),
    "resourceclaims.resource.k8s.io": _devices("spec"),
    "resourceclaimtemplates.resource.k8s.io": _devices("spec.spec"),
}


@functools.cache
def _steps(path: str) -> tuple[tuple[str, str], ...]:
    """The names of a path with the mark of each."""
    found = []
    for step in path.split("."):
        name = step.rstrip("?![]{}")
        found.append((name, step[len(name) :]))
    return tuple(found)


def fill(obj: Raw, table: Iterable[tuple[str, Any]]) -> None:
    """Fills what the table says into the object, in place."""
    for path, value in table:
        _fill(obj, _steps(path), value)


def _fill(at: Raw, steps: tuple[tuple[str, str], ...], value: Any) -> None:
    (name, mark), rest = steps[0], steps[1:]
    if not rest:
        found = at.get(name)
        if found is None or found == "" or (mark == "!" and found == 0):
            at[name] = copy.copy(value) if isinstance(value, dict | list) else value
        return
    if mark == "[]":
        for item in at.get(name) or ():
            _fill(item, rest, value)
    elif mark == "{}":
        for item in (at.get(name) or {}).values():
            _fill(item, rest, value)
    elif mark == "?":
        if isinstance(at.get(name), dict):
            _fill(at[name], rest, value)
    else:
        _fill(at.setdefault(name, {}), rest, value)
