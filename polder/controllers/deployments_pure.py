"""Rolling a template out over ReplicaSets: sizes, names, annotations and conditions. Pure; follows upstream's deployment
controller.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from polder.api.meta import TENANT_ANNOTATION
from polder.api.workloads import Deployment, DeploymentStatus, ReplicaSet, Template, WorkloadCondition
from polder.base.clock import stamp
from polder.controllers.replicas_pure import leaving

HASH = "pod-template-hash"
PREFIX = "deployment.kubernetes.io/"
REVISION, HISTORY = f"{PREFIX}revision", f"{PREFIX}revision-history"
DESIRED, MOST = f"{PREFIX}desired-replicas", f"{PREFIX}max-replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NOT_COPIED = frozenset(
    {LAST_APPLIED, REVISION, HISTORY, DESIRED, MOST, "deprecated.deployment.rollback.to", TENANT_ANNOTATION}
)
HISTORY_LIMIT = 2000
"""Characters of the list of a set's former revisions."""
PROGRESSING, AVAILABLE, FAILURE = "Progressing", "Available", "ReplicaFailure"
DONE, TIMED_OUT, PAUSED, RESUMED = (
    "NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused", "DeploymentResumed",
)  # fmt: skip
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_NO_DEADLINE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Rollout:
    """A Deployment with its ReplicaSets: the one of its template, if there is one, and the others, oldest first."""

    deployment: Deployment
    new: ReplicaSet | None
    old: tuple[ReplicaSet, ...]

    @property
    def sets(self) -> list[ReplicaSet]:
        """All of them."""
        return [*self.old, *([self.new] if self.new is not None else [])]

    @property
    def wanted(self) -> int:
        """Replicas that the Deployment wants."""
        return self.deployment.spec.replicas

    @property
    def surge(self) -> int:
        """Replicas that may be there on top of those."""
        return fenceposts(self.deployment)[0]

    @property
    def least(self) -> int:
        """Replicas that must stay available."""
        return self.wanted - min(fenceposts(self.deployment)[1], self.wanted)

    @property
    def total(self) -> int:
        """Replicas that all sets want."""
        return sum(s.spec.replicas for s in self.sets)

    @property
    def available(self) -> int:
        """Replicas that are available."""
        return sum(s.status.available_replicas for s in self.sets)


def template_hash(template: Template, collisions: int) -> str:
    """What the ReplicaSet of a template is named by."""
    text = json.dumps([template, collisions], sort_keys=True, separators=(",", ":")).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
    found = ""
    for _ in range(10):
        number, index = divmod(number, len(_ALPHABET))
        found += _ALPHABET[index]
    return found


def plain(template: Template) -> Template:
    """A template without the label that only ReplicaSets of Deployments have."""
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
    return {**template, "metadata": {k: v for k, v in meta.items() if v}}


def rollout_of(deployment: Deployment, sets: Sequence[ReplicaSet]) -> Rollout:
    """Which set is the one of the Deployment's template: of several the oldest."""
    ordered = sorted(sets, key=lambda s: (s.metadata.creation_timestamp or "", s.metadata.name))
    wanted = plain(deployment.spec.template)
    new = next((s for s in ordered if plain(s.spec.template) == wanted), None)
    return Rollout(deployment, new, tuple(s for s in ordered if s is not new))


def _scaled(value: int | str | None, of: int, up: bool) -> int:
    if value is None or isinstance(value, int):
        return value or 0
    part = int(value.removesuffix("%")) * of / 100
    return math.ceil(part) if up else math.floor(part)


def fenceposts(deployment: Deployment) -> tuple[int, int]:
    """How many replicas may be too many and too few while a template is rolled out."""
    strategy, wanted = deployment.spec.strategy, deployment.spec.replicas
    rolling = strategy.rolling_update
    if strategy.type != "RollingUpdate" or rolling is None or not wanted:
        surge = (
            _scaled(rolling.max_surge, wanted, True) if rolling is not None and strategy.type == "RollingUpdate" else 0
        )
        return surge, 0
    surge = _scaled(rolling.max_surge, wanted, True)
    away = _scaled(rolling.max_unavailable, wanted, False)
    return surge, 1 if surge == 0 and away == 0 else away


def new_size(rollout: Rollout, present: int) -> int:
    """How large the new set, which has ``present`` replicas, may be now."""
    wanted = rollout.wanted
    if rollout.deployment.spec.strategy.type == "Recreate" or present >= wanted:
        return wanted
    room = wanted + rollout.surge - rollout.total
    return present if room <= 0 else present + min(room, wanted - present)


def unhealthy_cuts(rollout: Rollout, limit: int) -> dict[str, int]:
    """Sizes of old sets without replicas that are not available anyway, at most ``limit`` of them."""
    sizes: dict[str, int] = {}
    for old in rollout.old:
        away = min(limit, old.spec.replicas - old.status.available_replicas)
        if away > 0:
            sizes[old.metadata.name] = old.spec.replicas - away
            limit -= away
    return sizes


def old_cuts(rollout: Rollout) -> dict[str, int]:
    """Sizes of the old sets as far as they can shrink now. Empty: they must stay."""
    if rollout.new is None or not any(s.spec.replicas for s in rollout.old):
        return {}
    starting = rollout.new.spec.replicas - rollout.new.status.available_replicas
    limit = rollout.total - rollout.least - starting
    if limit <= 0:
        return {}
    sizes = unhealthy_cuts(rollout, limit)
    spare = rollout.available - rollout.least
    for old in rollout.old:
        now = sizes.get(old.metadata.name, old.spec.replicas)
        cut = min(now, spare)
        if cut > 0:
            sizes[old.metadata.name] = now - cut
            spare -= cut
    return sizes


def annotation(found: ReplicaSet | Deployment, name: str) -> int | None:
    """A number that an annotation holds."""
    text = (found.metadata.annotations or {}).get(name, "")
    return int(text) if text.isdecimal() else None


def is_scaled(rollout: Rollout) -> bool:
    """Whether the Deployment was scaled since its sets were sized."""
    active = [s for s in rollout.sets if s.spec.replicas]
    known = [annotation(s, DESIRED) for s in active]
    return any(desired is not None and desired != rollout.wanted for desired in known)


def scaled_sizes(rollout: Rollout) -> dict[str, int]:
    """Sizes of the sets after the Deployment was scaled: those in the middle of a rollout grow and shrink alike."""
    active = [s for s in rollout.sets if s.spec.replicas]
    if len(active) <= 1:
        latest = active[0] if active else rollout.new or (rollout.old[-1] if rollout.old else None)
        return {latest.metadata.name: rollout.wanted} if latest is not None else {}
    new = rollout.new
    if (
        new is not None
        and new.spec.replicas == rollout.wanted == annotation(new, DESIRED) == new.status.available_replicas
    ):
        return {s.metadata.name: 0 for s in active if s is not new}
    if rollout.deployment.spec.strategy.type != "RollingUpdate":
        return {}
    return _proportional(rollout, active)


def _proportional(rollout: Rollout, active: Sequence[ReplicaSet]) -> dict[str, int]:
    allowed = rollout.wanted + rollout.surge if rollout.wanted else 0
    more = allowed - sum(s.spec.replicas for s in active)
    names = [s.metadata.name for s in sorted(active, key=lambda s: s.metadata.creation_timestamp or "")]
    age = {name: (number if more < 0 else -number) for number, name in enumerate(names)}
    ordered = sorted(active, key=lambda s: (-s.spec.replicas, age[s.metadata.name]))
    sizes, added = {}, 0
    for found in ordered:
        share = _share(rollout, found) if more != added else 0
        share = min(share, more - added) if more > 0 else max(share, more - added)
        sizes[found.metadata.name] = found.spec.replicas + (share if more else 0)
        added += share if more else 0
    first = ordered[0].metadata.name
    sizes[first] = max(0, sizes[first] + more - added)
    return sizes


def _share(rollout: Rollout, found: ReplicaSet) -> int:
    if not rollout.wanted:
        return -found.spec.replicas
    before = annotation(found, MOST) or rollout.deployment.status.replicas
    if not before:
        return 0
    exact = found.spec.replicas * (rollout.wanted + rollout.surge) / before
    return math.floor(exact + 0.5) - found.spec.replicas


def size_annotations(rollout: Rollout) -> dict[str, str]:
    """What a set is told of the Deployment's size."""
    return {DESIRED: str(rollout.wanted), MOST: str(rollout.wanted + rollout.surge)}


def next_revision(rollout: Rollout) -> int:
    """The number of the new set's revision."""
    return max((annotation(s, REVISION) or 0 for s in rollout.old), default=0) + 1


def set_annotations(rollout: Rollout, present: Mapping[str, str], revision: int) -> dict[str, str]:
    """Annotations of the new set: the Deployment's own, and its revision with those that it had before."""
    copied = {k: v for k, v in (rollout.deployment.metadata.annotations or {}).items() if k not in NOT_COPIED}
    found = {**present, **copied}
    had = present.get(REVISION, "")
    if had.isdecimal() and int(had) >= revision:
        return found
    if had and not had.isdecimal():
        return found
    found[REVISION] = str(revision)
    if had:
        before = [part for part in present.get(HISTORY, "").split(",") if part]
        while before and len(",".join([*before, had])) > HISTORY_LIMIT:
            before.pop(0)
        found[HISTORY] = ",".join([*before, had])
    return found


def condition(conditions: Sequence[WorkloadCondition] | None, kind: str) -> WorkloadCondition | None:
    """The condition of a type."""
    return next((c for c in conditions or () if c.type == kind), None)


def with_condition(
    conditions: Sequence[WorkloadCondition] | None, new: WorkloadCondition, now: datetime, *, touch: bool = False
) -> list[WorkloadCondition]:
    """Puts a condition in; nothing changes if status and reason are the same, unless ``touch`` says to note the time."""
    known, at = condition(conditions, new.type), stamp(now)
    if known is not None and (known.status, known.reason) == (new.status, new.reason) and not touch:
        return list(conditions or ())
    since = known.last_transition_time if known is not None and known.status == new.status else at
    stamped = msgspec.structs.replace(new, last_update_time=at, last_transition_time=since)
    return [*(c for c in conditions or () if c.type != new.type), stamped]


def without(conditions: Sequence[WorkloadCondition] | None, kind: str) -> list[WorkloadCondition]:
    """The conditions of other types."""
    return [c for c in conditions or () if c.type != kind]


def has_deadline(deployment: Deployment) -> bool:
    """Whether progress is expected in a time."""
    return deployment.spec.progress_deadline_seconds not in (None, _NO_DEADLINE)


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Whether everything is as wanted."""
    wanted = deployment.spec.replicas
    return (status.updated_replicas, status.replicas, status.available_replicas) == (wanted, wanted, wanted) and (
        status.observed_generation >= deployment.metadata.generation
    )


def status_of(rollout: Rollout, now: datetime) -> DeploymentStatus:
    """The status by the sets, with the condition of availability; progress is judged by ``judge``."""
    deployment, sets = rollout.deployment, rollout.sets
    if rollout.available >= rollout.least:
        said = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        said = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    told = WorkloadCondition(type=AVAILABLE, status=said[0], reason=said[1], message=said[2])
    return DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(s.status.replicas for s in sets),
        updated_replicas=rollout.new.status.replicas if rollout.new is not None else 0,
        ready_replicas=sum(s.status.ready_replicas for s in sets),
        available_replicas=rollout.available,
        unavailable_replicas=max(0, rollout.total - rollout.available),
        terminating_replicas=leaving(rollout.sets),
        conditions=with_condition(deployment.status.conditions, told, now),
        collision_count=deployment.status.collision_count,
    )


def judge(rollout: Rollout, status: DeploymentStatus, now: datetime) -> DeploymentStatus:
    """The status with what is to be said of progress and of failures."""
    deployment = rollout.deployment
    conditions = list(status.conditions or ())
    if not has_deadline(deployment):
        conditions = without(conditions, PROGRESSING)
    else:
        current = condition(conditions, PROGRESSING)
        done = status.replicas == status.updated_replicas and current is not None and current.reason == DONE
        if not done:
            conditions = _progress(rollout, status, conditions, now)
    failures = [c for s in ([rollout.new] if rollout.new else rollout.old) for c in s.status.conditions or ()]
    failed = condition(failures, FAILURE)
    conditions = with_condition(conditions, failed, now) if failed is not None else without(conditions, FAILURE)
    return msgspec.structs.replace(status, conditions=conditions or None)


def _progress(
    rollout: Rollout, status: DeploymentStatus, conditions: list[WorkloadCondition], now: datetime
) -> list[WorkloadCondition]:
    deployment, before = rollout.deployment, rollout.deployment.status
    what = f'ReplicaSet "{rollout.new.metadata.name}"' if rollout.new else f'Deployment "{deployment.metadata.name}"'

    def said(kind: str, reason: str, words: str) -> WorkloadCondition:
        return WorkloadCondition(type=PROGRESSING, status=kind, reason=reason, message=f"{what} {words}.")

    if is_complete(deployment, status):
        return with_condition(conditions, said("True", DONE, "has successfully progressed"), now)
    fewer = status.replicas - status.updated_replicas < before.replicas - before.updated_replicas
    more = (
        status.updated_replicas > before.updated_replicas
        or status.ready_replicas > before.ready_replicas
        or status.available_replicas > before.available_replicas
    )
    if fewer or more:
        return with_condition(conditions, said("True", "ReplicaSetUpdated", "is progressing"), now, touch=True)
    if is_late(deployment, conditions, now):
        return with_condition(conditions, said("False", TIMED_OUT, "has timed out progressing"), now)
    return conditions


def is_late(deployment: Deployment, conditions: Sequence[WorkloadCondition], now: datetime) -> bool:
    """Whether the time for progress is over."""
    left = time_left(deployment, conditions, now)
    current = condition(conditions, PROGRESSING)
    return (current is not None and current.reason == TIMED_OUT) or (left is not None and left < 0)


def time_left(deployment: Deployment, conditions: Sequence[WorkloadCondition], now: datetime) -> float | None:
    """Seconds until progress is late; None if it is not measured."""
    current = condition(conditions, PROGRESSING)
    if not has_deadline(deployment) or current is None or current.reason in (DONE, TIMED_OUT):
        return None
    if current.last_update_time is None:
        return None
    deadline = timedelta(seconds=deployment.spec.progress_deadline_seconds or 0)
    return (datetime.fromisoformat(current.last_update_time) + deadline - now).total_seconds()


def paused_condition(deployment: Deployment) -> WorkloadCondition | None:
    """What is to be said when a Deployment is paused or goes on; None for nothing new."""
    current = condition(deployment.status.conditions, PROGRESSING)
    if not has_deadline(deployment) or (current is not None and current.reason == TIMED_OUT):
        return None
    was = current is not None and current.reason == PAUSED
    if deployment.spec.paused == was:
        return None
    reason, word = (PAUSED, "paused") if deployment.spec.paused else (RESUMED, "resumed")
    return WorkloadCondition(type=PROGRESSING, status="Unknown", reason=reason, message=f"Deployment is {word}")


def new_set(rollout: Rollout, owner: Mapping[str, Any]) -> tuple[str, Template]:
    """Name and body of the set that is missing."""
    deployment = rollout.deployment
    spec, meta = deployment.spec, deployment.metadata
    mark = template_hash(spec.template, deployment.status.collision_count or 0)
    template = dict(spec.template)
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH: mark}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = msgspec.to_builtins(spec.selector) if spec.selector is not None else {}
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: mark}
    annotations = {**set_annotations(rollout, {}, next_revision(rollout)), **size_annotations(rollout)}
    name = f"{meta.name}-{mark}"
    body = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": [dict(owner)]},
        "spec": {
            "replicas": new_size(rollout, 0),
            "minReadySeconds": spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    }
    return name, body
