"""The pods that a Job makes. Pure."""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from polder.api.batch import TRACKING, Job, Template
from polder.api.meta import OwnerReference
from polder.api.podfacts import ControlledPod
from polder.controllers.jobs_failures import COUNTED, Verdict

INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation and label of an indexed Job's pod."""
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
VARIABLE = "JOB_COMPLETION_INDEX"
_LONGEST = 58
"""Characters of a name's prefix."""


def owner_of(job: Job) -> OwnerReference:
    """What a pod of the Job says of it."""
    return OwnerReference(
        api_version="batch/v1", kind="Job", name=job.metadata.name, uid=job.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip


def count_of(pod: ControlledPod, name: str) -> int:
    """A number that an annotation holds; 0 for what is none."""
    text = (pod.metadata.annotations or {}).get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < 1 << 31 else 0


def pod_of(job: Job) -> Template:
    """A new pod, as it is sent."""
    template = job.spec.template
    meta = template.get("metadata") or {}
    made: dict[str, Any] = {name: meta[name] for name in ("labels", "annotations") if meta.get(name)}
    made["finalizers"] = list(dict.fromkeys([*(meta.get("finalizers") or ()), TRACKING]))
    made["generateName"] = f"{job.metadata.name}-"
    made["ownerReferences"] = [msgspec.to_builtins(owner_of(job))]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template.get("spec") or {}}


def indexed_pod_of(job: Job, index: int, before: ControlledPod | None, verdict: Verdict = COUNTED) -> Template:
    """A new pod of an index, in the place of one that failed ``before``, whose failure meant ``verdict``."""
    body = pod_of(job)
    meta, text = body["metadata"], str(index)
    meta["labels"] = {**(meta.get("labels") or {}), INDEX: text}
    meta["annotations"] = {**(meta.get("annotations") or {}), INDEX: text}
    end = f"-{index}-"
    meta["generateName"] = job.metadata.name[: _LONGEST - len(end)] + end
    if job.spec.backoff_limit_per_index is not None:
        failures, ignored = (count_of(before, FAILURES), count_of(before, IGNORED)) if before is not None else (0, 0)
        failures += before is not None and verdict.counts
        ignored += before is not None and not verdict.counts
        meta["annotations"][FAILURES] = str(failures)
        if ignored:
            meta["annotations"][IGNORED] = str(ignored)
    spec = copy.copy(body["spec"])
    spec["hostname"] = f"{job.metadata.name}-{index}"
    for name in ("initContainers", "containers"):
        if spec.get(name):
            spec[name] = [_told(container) for container in spec[name]]
    return {**body, "spec": spec}


def _told(container: dict[str, Any]) -> dict[str, Any]:
    """The container, told its index in a variable that its own of that name overrides."""
    known = container.get("env") or []
    if any(variable.get("name") == VARIABLE for variable in known):
        return container
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*known, {"name": VARIABLE, "valueFrom": source}]}
