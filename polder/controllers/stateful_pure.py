"""StatefulSets: which pod comes, goes or waits next, and what the status says. Pure; follows upstream's statefulset
controller. A pod is replaced only when the API has it no more, so that no identity ever runs twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from polder.api.meta import OwnerReference
from polder.api.podfacts import ControlledPod
from polder.api.sets import ClaimRetention, StatefulSet, StatefulSetStatus
from polder.api.workloads import Template
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.history_pure import POD_HASH
from polder.controllers.replicas_pure import is_available

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
RETAIN = "Retain"
BURST = 500
"""Pods that one pass makes."""
Pods = Mapping[int, ControlledPod]
"""By ordinal."""


@dataclass(frozen=True, slots=True)
class Step:
    """create (a pod of ``revision``, after its claims), delete (``update``: to replace it), claims (those that a waiting pod
    lacks), identity (labels), retention (who owns the claims).
    """

    kind: Literal["create", "delete", "claims", "identity", "retention"]
    ordinal: int
    pod: ControlledPod | None = None
    revision: str = ""
    update: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A set, the names of its revisions, and its pods."""

    stateful: StatefulSet
    current: str
    update: str
    pods: Pods
    now: datetime

    @property
    def ordinals(self) -> range:
        """Those that ought to be there."""
        start = self.stateful.spec.ordinals.start if self.stateful.spec.ordinals is not None else 0
        return range(start, start + self.stateful.spec.replicas)

    @property
    def condemned(self) -> list[int]:
        """Those that are there and ought not to, highest first."""
        wanted = self.ordinals
        return sorted((number for number in self.pods if number not in wanted), reverse=True)

    @property
    def is_parallel(self) -> bool:
        """Whether pods do not wait for each other."""
        return self.stateful.spec.pod_management_policy == "Parallel"

    def is_available(self, pod: ControlledPod) -> bool:
        """Whether the pod has been ready for long enough."""
        return is_available(pod, self.stateful.spec.min_ready_seconds, self.now)

    def is_away(self, pod: ControlledPod | None) -> bool:
        """Whether there is nothing to be had from the pod, or soon will not."""
        return pod is None or is_going(pod) or not self.is_available(pod)

    def revision_for(self, ordinal: int) -> str:
        """The revision that a new pod is made of."""
        spec, start = self.stateful.spec, self.ordinals.start
        rolling = spec.update_strategy.rolling_update
        if rolling is not None:
            before = ordinal < start + rolling.partition
        else:
            count = self.stateful.status.current_replicas
            before = spec.update_strategy.type == "RollingUpdate" and ordinal < start + count
        return self.current if before else self.update


def ordinal_of(parent: str, name: str) -> int | None:
    """The number of a pod of the set, None for a name that is not one of its."""
    found, _, number = name.rpartition("-")
    if (
        found != parent
        or not number.isdecimal()
        or not number.isascii()
        or len(number) > 10
        or str(int(number)) != number
    ):
        return None
    return int(number)


def is_going(pod: ControlledPod) -> bool:
    """Whether the pod is in deletion."""
    return pod.metadata.deletion_timestamp is not None


def revision_of(pod: ControlledPod) -> str:
    """The name of the revision that the pod is of."""
    return (pod.metadata.labels or {}).get(POD_HASH, "")


def plan(view: View) -> list[list[Step]]:
    """What to do now, in stages: the next one is for when the one before went well. Of a set in order, steps of a stage are
    taken one by one.
    """
    replicas, blocked = _replicas(view)
    if blocked:
        return [replicas]
    claims = [Step("retention", number, view.pods[number]) for number in view.condemned]
    surplus, blocked = _surplus(view)
    stages = [replicas, claims, surplus]
    return stages if blocked else [*stages, _outdated(view)]


def _replicas(view: View) -> tuple[list[Step], bool]:
    """Steps for the pods that ought to be there; whether everything else waits for them."""
    steps: list[Step] = []
    missing = 0
    for number in view.ordinals:
        pod = view.pods.get(number)
        found, ready = _replica(view, number, pod)
        steps += found
        missing += pod is None
        if (not ready and not view.is_parallel) or missing >= BURST:
            return steps, True
    return steps, False


def _replica(view: View, number: int, pod: ControlledPod | None) -> tuple[list[Step], bool]:
    if pod is None:
        return [Step("create", number, revision=view.revision_for(number))], False
    if pod.status.phase in ("Failed", "Succeeded"):
        return ([] if is_going(pod) else [Step("delete", number, pod)]), False
    steps = [Step("claims", number, pod)] if pod.status.phase == "Pending" else []
    ready = pod.status.phase == "Running" and not is_going(pod) and view.is_available(pod)
    if not ready and not view.is_parallel:
        return steps, False
    if (pod.metadata.labels or {}).get(POD_NAME) != pod.metadata.name:
        steps.append(Step("identity", number, pod))
    return [*steps, Step("retention", number, pod)], ready


def _surplus(view: View) -> tuple[list[Step], bool]:
    """Deletions of pods beyond the number that is wanted; whether updates wait for them."""
    if view.is_parallel:
        staying = [number for number in view.condemned if not is_going(view.pods[number])]
        return [Step("delete", number, view.pods[number]) for number in staying], False
    if not view.condemned:
        return [], False
    highest = view.condemned[0]
    pod = view.pods[highest]
    first = next((number for number in reversed(view.condemned) if view.is_away(view.pods[number])), highest)
    well = pod.status.phase == "Running" and view.is_available(pod)
    if is_going(pod) or (not well and highest != first):
        return [], True
    return [Step("delete", highest, pod)], True


def _outdated(view: View) -> list[Step]:
    """Deletions of pods of another revision."""
    strategy = view.stateful.spec.update_strategy
    if strategy.type == "OnDelete":
        return []
    rolling, numbers = strategy.rolling_update, view.ordinals
    targets = numbers[rolling.partition if rolling is not None else 0 :][::-1]
    if rolling is not None and rolling.max_unavailable is not None:
        return _several(view, targets, most_away(rolling.max_unavailable, view.stateful.spec.replicas))
    for number in targets:
        pod = view.pods.get(number)
        if pod is not None and revision_of(pod) != view.update and not is_going(pod):
            return [Step("delete", number, pod, update=True)]
        if view.is_away(pod):
            return []
    return []


def _several(view: View, targets: Sequence[int], most: int) -> list[Step]:
    wanted = view.ordinals
    there = sum(number in wanted and not view.is_away(pod) for number, pod in view.pods.items())
    left = most - (len(wanted) - there)
    if left <= 0:
        return []
    old = [(number, pod) for number in targets if (pod := view.pods.get(number)) is not None
           and revision_of(pod) != view.update and not is_going(pod)]  # fmt: skip
    return [Step("delete", number, pod, update=True) for number, pod in old[:left]]


def most_away(value: int | str, replicas: int) -> int:
    """A number, or per cent of the replicas rounded down; one at least."""
    number = value if isinstance(value, int) else int(value.removesuffix("%")) * replicas // 100
    return max(1, number)


def status_of(view: View, collisions: int, replaced: int = 0) -> StatefulSetStatus:
    """The status by the pods; ``replaced`` of them were just deleted for an update."""
    pods, spec = list(view.pods.values()), view.stateful.spec
    staying = [revision_of(pod) for pod in pods if not is_going(pod)]
    ready = [pod for pod in pods if pod.status.phase == "Running" and is_ready(pod)]
    found = StatefulSetStatus(
        observed_generation=view.stateful.metadata.generation,
        replicas=len(pods),
        ready_replicas=len(ready),
        available_replicas=sum(view.is_available(pod) for pod in ready),
        current_replicas=max(0, staying.count(view.current) - replaced),
        updated_replicas=staying.count(view.update),
        current_revision=view.current,
        update_revision=view.update,
        collision_count=collisions,
    )
    counts = (found.updated_replicas, found.ready_replicas, found.replicas)
    if spec.update_strategy.type == "RollingUpdate" and counts == (spec.replicas,) * 3:
        return msgspec.structs.replace(
            found, current_replicas=found.updated_replicas, current_revision=found.update_revision
        )
    return found


def pod_of(stateful: StatefulSet, owner: OwnerReference, template: Template, ordinal: int, revision: str) -> Template:
    """A new pod, as it is sent."""
    meta, name = template.get("metadata") or {}, f"{stateful.metadata.name}-{ordinal}"
    labels = {**(meta.get("labels") or {}), POD_NAME: name, POD_INDEX: str(ordinal), POD_HASH: revision}
    kept = {key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)}
    spec = {**(template.get("spec") or {}), "hostname": name, "volumes": _volumes(stateful, template, ordinal)}
    if stateful.spec.service_name:
        spec["subdomain"] = stateful.spec.service_name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**kept, "name": name, "labels": labels, "ownerReferences": [msgspec.to_builtins(owner)]},
        "spec": spec if spec["volumes"] else {key: value for key, value in spec.items() if key != "volumes"},
    }


def _volumes(stateful: StatefulSet, template: Template, ordinal: int) -> list[Template]:
    claims = {found.template: found.name for found in claims_of(stateful, ordinal)}
    made: list[Template] = [
        {"name": volume, "persistentVolumeClaim": {"claimName": name}} for volume, name in claims.items()
    ]
    own = (template.get("spec") or {}).get("volumes") or ()
    return [*made, *(volume for volume in own if volume.get("name") not in claims)]


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim of a pod: its volume in the template, its name, and the body that it is made of."""

    template: str
    name: str
    body: Template


def claims_of(stateful: StatefulSet, ordinal: int) -> list[Claim]:
    """The claims of the pod of an ordinal."""
    found, selector = [], stateful.spec.selector
    chosen = (selector.match_labels if selector is not None else None) or {}
    for template in stateful.spec.volume_claim_templates or ():
        meta = dict(template.get("metadata") or {})
        volume = str(meta.get("name", ""))
        name = f"{volume}-{stateful.metadata.name}-{ordinal}"
        kept = {key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)}
        labels = {**(meta.get("labels") or {}), **chosen}
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {**kept, "name": name, "labels": labels},
            "spec": template.get("spec") or {},
        }
        found.append(Claim(volume, name, body))
    return found


@dataclass(frozen=True, slots=True)
class Owners:
    """Who may own a claim: the set, and the pod (its UID empty while it is not made)."""

    stateful: OwnerReference
    pod: OwnerReference
    policy: ClaimRetention
    in_range: bool

    def is_stale(self, refs: Iterable[OwnerReference]) -> bool:
        """Whether the claim belongs to an earlier pod of the name and goes with it."""
        return self.policy.when_scaled != RETAIN and any(
            _same(ref, self.pod) and ref.uid != self.pod.uid for ref in refs
        )

    def wanted(self, refs: Sequence[OwnerReference]) -> list[OwnerReference] | None:
        """The claim's owners as the policy has them; None: they are right, or not ours to say."""
        ours = [ref for ref in refs if _same(ref, self.stateful) or _same(ref, self.pod)]
        if any(ref.uid not in (self.stateful.uid, self.pod.uid) for ref in ours):
            return None  # an earlier set or pod of the name: the garbage collector's
        others = [ref for ref in refs if ref not in ours]
        keeps = (self.policy.when_scaled, self.policy.when_deleted) == (RETAIN, RETAIN)
        if not keeps and any(ref.controller for ref in others):
            made: list[OwnerReference] = []  # somebody else manages it
        else:
            made = self._made()
        return None if ours == made else [*others, *made]

    def _made(self) -> list[OwnerReference]:
        scaled, deleted = self.policy.when_scaled != RETAIN, self.policy.when_deleted != RETAIN
        if scaled and not self.in_range:
            return [_managing(self.pod)]
        return [_managing(self.stateful)] if deleted else []


def _managing(ref: OwnerReference) -> OwnerReference:
    return msgspec.structs.replace(ref, controller=True, block_owner_deletion=True)


def _same(ref: OwnerReference, other: OwnerReference) -> bool:
    return (ref.api_version, ref.kind, ref.name) == (other.api_version, other.kind, other.name)
