"""Which pods of a Job are counted, and how its status says so. Pure.

A pod that ended is first noted by UID in the status, then let go, then counted: whoever ends between two of these steps leaves a
state that says which one comes next. A pod of an indexed Job that succeeded is counted by its index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from polder.api.batch import COMPLETE, FAILED, SUCCESS_MET, JobCondition, JobStatus, Uncounted
from polder.api.podfacts import ControlledPod
from polder.controllers.jobs_indexes import Indexes
from polder.controllers.jobs_pods import is_tracked
from polder.controllers.jobs_pure import Facts, condition, index_of, is_failed, said

MOST = 500
"""UIDs that a status holds."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """The status to write first, the pods to let go then, the condition that ends the Job when nothing is left, and whether
    there are more pods than one pass counts.
    """

    status: JobStatus
    let_go: tuple[ControlledPod, ...]
    final: JobCondition | None
    more: bool


def track(facts: Facts, status: JobStatus, finished: JobCondition | None) -> Tracked:
    """Notes the pods that ended. ``status`` has all but what is counted."""
    status = counted(status, {pod.metadata.uid for pod in facts.pods if is_tracked(pod)})
    known = status.uncounted_terminated_pods or Uncounted()
    good, bad, indexes = list(known.succeeded or ()), list(known.failed or ()), set[int]()
    let_go: list[ControlledPod] = []
    more = False
    for pod in sorted(facts.pods, key=lambda pod: index_of(facts.job, pod) or 0) if facts.indexed else facts.pods:
        if not is_tracked(pod) or not _may_go(facts, pod, finished):
            continue
        let_go.append(pod)
        _note(facts, pod, finished, (good, bad, indexes))
        if len(good) + len(bad) + len(indexes) >= MOST:
            more = True
            break
    noted = Uncounted(succeeded=good or None, failed=bad or None)
    status = msgspec.structs.replace(status, uncounted_terminated_pods=noted)
    if facts.indexed:
        status = _with_indexes(facts, status, facts.before.with_(indexes))
    return Tracked(_with_interim(status, finished), tuple(let_go), _final(facts, finished), more)


def _may_go(facts: Facts, pod: ControlledPod, finished: JobCondition | None) -> bool:
    if facts.job.metadata.deletion_timestamp is not None or finished is not None or pod.status.phase == "Succeeded":
        return True
    if not is_failed(facts.job, pod):
        return False
    # The pod that takes its place is told how often the index failed before.
    waiting = facts.delayed.get(index) if (index := index_of(facts.job, pod)) is not None else None
    return waiting is None or waiting.metadata.uid != pod.metadata.uid


def _note(
    facts: Facts, pod: ControlledPod, finished: JobCondition | None, noted: tuple[list[str], list[str], set[int]]
) -> None:
    good, bad, indexes = noted
    uid, index = pod.metadata.uid, index_of(facts.job, pod)
    ends_badly = finished is not None and finished.type != SUCCESS_MET
    if pod.status.phase == "Succeeded" and uid not in bad:
        if facts.indexed:
            if index is not None and index not in facts.before:
                indexes.add(index)
        elif uid not in good:
            good.append(uid)
    elif (is_failed(facts.job, pod) or ends_badly) and uid not in bad and not (facts.indexed and index is None):
        bad += [uid] if facts.verdict(pod).counts else []


def _with_indexes(facts: Facts, status: JobStatus, done: Indexes) -> JobStatus:
    failed = str(facts.failed_indexes) if facts.failed_indexes is not None else None
    return msgspec.structs.replace(status, succeeded=len(done), completed_indexes=str(done), failed_indexes=failed)


def _with_interim(status: JobStatus, finished: JobCondition | None) -> JobStatus:
    """That the Job is about to end is said before any pod is let go."""
    known = {c.type for c in status.conditions or () if c.status == "True"}
    if finished is None or finished.type in known:
        return status
    return msgspec.structs.replace(status, conditions=[*(status.conditions or ()), finished])


def _final(facts: Facts, finished: JobCondition | None) -> JobCondition | None:
    if finished is None:
        return None
    kind = COMPLETE if finished.type == SUCCESS_MET else FAILED
    return said(kind, finished.reason, finished.message, facts.now)


def counted(status: JobStatus, held: Iterable[str]) -> JobStatus:
    """The status in which noted pods that are no longer held are numbers."""
    noted, held = status.uncounted_terminated_pods or Uncounted(), set(held)
    good = [uid for uid in noted.succeeded or () if uid in held]
    bad = [uid for uid in noted.failed or () if uid in held]
    return msgspec.structs.replace(
        status,
        succeeded=status.succeeded + len(noted.succeeded or ()) - len(good),
        failed=status.failed + len(noted.failed or ()) - len(bad),
        uncounted_terminated_pods=Uncounted(succeeded=good or None, failed=bad or None),
    )


def ended(facts: Facts, status: JobStatus, tracked: Tracked) -> JobStatus | None:
    """The status of the Job's end, None while something is left to count or to go."""
    noted = status.uncounted_terminated_pods or Uncounted()
    if tracked.final is None or tracked.more or noted.succeeded or noted.failed or status.terminating:
        return None
    if condition(facts.job, tracked.final.type) is not None:
        return None
    final = tracked.final
    at = final.last_transition_time if final.type == COMPLETE else status.completion_time
    return msgspec.structs.replace(status, conditions=[*(status.conditions or ()), final], completion_time=at)
