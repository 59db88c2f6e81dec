"""Sets of equal pods: which pods are whose, which go first, what the status says. Pure; follows upstream's replicaset
controller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from polder.api.labelselector import matcher_of
from polder.api.meta import OwnerReference
from polder.api.podfacts import ControlledPod
from polder.api.selectors import LabelMatcher
from polder.api.workloads import ReplicaSet, ReplicaSetStatus, ReplicationController, Template, WorkloadCondition
from polder.controllers.disruption import controller_of
from polder.controllers.endpoints_pure import is_ready

COST = "controller.kubernetes.io/pod-deletion-cost"
FAILURE = "ReplicaFailure"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
Owner = ReplicaSet | ReplicationController


@dataclass(frozen=True, slots=True)
class SetOfPods:
    """A ReplicaSet or a ReplicationController, as far as they are the same."""

    owner: OwnerReference
    replicas: int
    selector: LabelMatcher
    template: Template
    min_ready: int
    going: bool


def set_of(obj: Owner, api_version: str, kind: str) -> SetOfPods:
    """The common view."""
    spec = obj.spec
    selector = {"matchLabels": spec.selector or {}} if isinstance(obj, ReplicationController) else None
    if isinstance(obj, ReplicaSet) and obj.spec.selector is not None:
        selector = msgspec.to_builtins(obj.spec.selector)
    owner = OwnerReference(
        api_version=api_version, kind=kind, name=obj.metadata.name, uid=obj.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    going = obj.metadata.deletion_timestamp is not None
    return SetOfPods(owner, spec.replicas, matcher_of(selector), spec.template or {}, spec.min_ready_seconds, going)


@dataclass(frozen=True, slots=True)
class Claims:
    """The set's pods, those that it should take, and those that it should let go."""

    own: list[ControlledPod]
    adopt: list[ControlledPod]
    release: list[ControlledPod]


def claim(wanted: SetOfPods, pods: Iterable[ControlledPod]) -> Claims:
    """Who owns what in a namespace."""
    found = Claims([], [], [])
    for pod in pods:
        owner, fits = controller_of(pod), wanted.selector.matches_labels(pod.metadata.labels or {})
        if owner is not None and owner.uid == wanted.owner.uid:
            (found.own if fits or wanted.going else found.release).append(pod)
        elif owner is None and fits and not wanted.going and is_active(pod):
            found.adopt.append(pod)
    return found


def is_active(pod: ControlledPod) -> bool:
    """Whether a pod counts: it has not ended, and is not asked to."""
    return pod.status.phase not in ("Succeeded", "Failed") and pod.metadata.deletion_timestamp is None


def is_leaving(pod: ControlledPod) -> bool:
    """Whether a pod is asked to end, and has not."""
    return pod.status.phase not in ("Succeeded", "Failed") and pod.metadata.deletion_timestamp is not None


def leaving(sets: Iterable[ReplicaSet]) -> int | None:
    """How many pods of all sets are asked to end; None while one that was looked at does not say it."""
    known = [
        s.status.terminating_replicas for s in sets if s.status.observed_generation or s.status.terminating_replicas
    ]
    counts = [count for count in known if count is not None]
    return sum(counts) if len(counts) == len(known) else None


def ready_since(pod: ControlledPod) -> str:
    """When the pod became ready, empty if it is not."""
    found = (
        c.last_transition_time or "" for c in pod.status.conditions or () if c.type == "Ready" and c.status == "True"
    )
    return next(found, "")


def is_available(pod: ControlledPod, min_ready: int, now: datetime) -> bool:
    """Whether the pod has been ready for long enough."""
    if not is_ready(pod):
        return False
    since = ready_since(pod)
    return min_ready == 0 or (bool(since) and (now - datetime.fromisoformat(since)).total_seconds() >= min_ready)


def first_to_go(pods: Sequence[ControlledPod], count: int) -> list[ControlledPod]:
    """The pods to delete: not placed, not running, not ready, cheap, crowded and young ones first."""
    crowd = Counter(pod.spec.node_name for pod in pods if is_ready(pod))

    def age(text: str | None) -> float:
        return -datetime.fromisoformat(text).timestamp() if text else float("-inf")

    def order(pod: ControlledPod) -> tuple[object, ...]:
        ready = is_ready(pod)
        restarts = max((s.restart_count for s in pod.status.container_statuses or ()), default=0)
        return (
            bool(pod.spec.node_name),
            _PHASES.get(pod.status.phase, 0),
            ready,
            _cost(pod),
            -crowd[pod.spec.node_name],
            age(ready_since(pod)) if ready else 0.0,
            -restarts,
            age(pod.metadata.creation_timestamp),
            pod.metadata.uid,
        )

    return sorted(pods, key=order)[:count]


def _cost(pod: ControlledPod) -> int:
    text = (pod.metadata.annotations or {}).get(COST, "0")
    return int(text) if text.removeprefix("-").isdigit() else 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What managing the pods came to: the reason and message of a failure, empty for none."""

    reason: str = ""
    message: str = ""


def status_of(
    obj: Owner, wanted: SetOfPods, pods: Sequence[ControlledPod], outcome: Outcome, now: datetime
) -> ReplicaSetStatus:
    """The set's status by its pods."""
    active = [pod for pod in pods if is_active(pod)]
    labels = ((wanted.template.get("metadata") or {}).get("labels") or {}).items()
    others = [c for c in obj.status.conditions or () if c.type != FAILURE]
    known = [c for c in obj.status.conditions or () if c.type == FAILURE]
    if outcome.reason and not known:
        at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        known = [
            WorkloadCondition(
                type=FAILURE, status="True", reason=outcome.reason, message=outcome.message, last_transition_time=at
            )
        ]
    elif not outcome.reason:
        known = []
    return ReplicaSetStatus(
        replicas=len(active),
        fully_labeled_replicas=sum(labels <= (pod.metadata.labels or {}).items() for pod in active),
        ready_replicas=sum(is_ready(pod) for pod in active),
        available_replicas=sum(is_available(pod, wanted.min_ready, now) for pod in active),
        terminating_replicas=sum(is_leaving(pod) for pod in pods) if isinstance(obj, ReplicaSet) else None,
        observed_generation=obj.metadata.generation,
        conditions=[*others, *known] or None,
    )


def pod_of(wanted: SetOfPods) -> Template:
    """A new pod of the set, as it is sent."""
    meta = wanted.template.get("metadata") or {}
    kept = {name: meta[name] for name in ("labels", "annotations", "finalizers") if meta.get(name)}
    owners = [msgspec.to_builtins(wanted.owner)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**kept, "generateName": f"{wanted.owner.name}-", "ownerReferences": owners},
        "spec": wanted.template.get("spec") or {},
    }
