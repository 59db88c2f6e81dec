"""Jobs: what their pods come to, how they end, which pods are made and go. Pure; follows upstream's job controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from polder.api.batch import FAILURE_TARGET, SUCCESS_MET, SUSPENDED, Job, JobCondition, Uncounted
from polder.api.labelselector import matcher_of
from polder.api.podfacts import ControlledPod
from polder.base.clock import stamp
from polder.controllers.cronjobs_pure import moment
from polder.controllers.disruption import controller_of
from polder.controllers.endpoints_pure import is_ready
from polder.controllers.jobs_failures import COUNTED, FAIL_INDEX, Backoff, Verdict, finished_at, succeeded_by
from polder.controllers.jobs_indexes import Indexes, parse_indexes
from polder.controllers.jobs_making import FAILURES, IGNORED, INDEX, count_of
from polder.controllers.jobs_pods import is_tracked
from polder.controllers.replicas_pure import first_to_go, is_active

NONE = Indexes()
LARGE = 500
"""Pods that are looked at on the event loop: about a millisecond."""
BURST = 500
"""Pods that one pass makes or deletes."""


@dataclass(frozen=True, slots=True)
class JobClaims:
    """The Job's pods, those that it should take, and those that it should let go."""

    own: list[ControlledPod] = field(default_factory=list)
    adopt: list[ControlledPod] = field(default_factory=list)
    release: list[ControlledPod] = field(default_factory=list)


def claim(job: Job, pods: Iterable[ControlledPod]) -> JobClaims:
    """Who owns what in a namespace."""
    selector = msgspec.to_builtins(job.spec.selector) if job.spec.selector is not None else None
    fits, found, going = matcher_of(selector), JobClaims(), job.metadata.deletion_timestamp is not None
    for pod in pods:
        owner = controller_of(pod)
        if owner is None and (going or pod.metadata.deletion_timestamp is not None):
            continue
        matches = fits.matches_labels(pod.metadata.labels or {})
        if owner is not None and owner.uid == job.metadata.uid:
            (found.own if matches or going else found.release).append(pod)
        elif owner is None and matches:
            found.adopt.append(pod)
    return found


def only_failed(job: Job) -> bool:
    """Whether a pod is replaced only when it has wholly ended."""
    return job.spec.pod_replacement_policy == "Failed" or job.spec.pod_failure_policy is not None


def is_failed(job: Job, pod: ControlledPod) -> bool:
    """Whether the pod counts as failed."""
    if pod.status.phase == "Failed":
        return True
    return not only_failed(job) and pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"


def is_terminating(pod: ControlledPod) -> bool:
    """Whether the pod has been asked to end and has not."""
    return pod.metadata.deletion_timestamp is not None and pod.status.phase not in ("Succeeded", "Failed")


def index_of(job: Job, pod: ControlledPod) -> int | None:
    """The pod's index, None if it has none that the Job knows."""
    text = (pod.metadata.annotations or {}).get(INDEX, "")
    known = text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < (job.spec.completions or 0)
    return int(text) if known else None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pass goes by. ``failed_indexes`` is None for a Job that does not count failures of each index."""

    job: Job
    pods: Sequence[ControlledPod]
    verdicts: Mapping[str, Verdict]
    now: datetime
    active: list[ControlledPod]
    succeeded: int
    failed: int
    backoff: Backoff
    before: Indexes = NONE
    succeeded_indexes: Indexes = NONE
    failed_indexes: Indexes | None = None
    delayed: Mapping[int, ControlledPod] = field(default_factory=dict)

    @property
    def indexed(self) -> bool:
        """Whether each pod has a number."""
        return self.job.spec.completion_mode == "Indexed"

    @property
    def terminating(self) -> int:
        """How many pods are on their way out."""
        return sum(is_terminating(pod) for pod in self.pods)

    @property
    def ready(self) -> int:
        """How many active pods are ready."""
        return sum(is_ready(pod) for pod in self.active)

    def verdict(self, pod: ControlledPod) -> Verdict:
        """What the pod's failure means."""
        return self.verdicts.get(pod.metadata.uid, COUNTED)


def facts_of(
    job: Job, pods: Sequence[ControlledPod], verdicts: Mapping[str, Verdict], backoff: Backoff, now: datetime
) -> Facts:
    """What the pods come to."""
    uncounted = job.status.uncounted_terminated_pods or Uncounted()
    good, bad = set(uncounted.succeeded or ()), set(uncounted.failed or ())
    indexed = job.spec.completion_mode == "Indexed"
    fresh = [pod for pod in pods if is_tracked(pod) and not (indexed and index_of(job, pod) is None)]
    new_good = [pod for pod in fresh if pod.status.phase == "Succeeded" and pod.metadata.uid not in good]
    new_bad = [pod for pod in fresh if is_failed(job, pod) and pod.metadata.uid not in bad]
    counted = sum(verdicts.get(pod.metadata.uid, COUNTED).counts for pod in new_bad)
    facts = Facts(
        job=job, pods=pods, verdicts=verdicts, now=now,
        active=[pod for pod in pods if is_active(pod)],
        succeeded=job.status.succeeded + len(new_good) + len(good),
        failed=job.status.failed + counted + len(bad),
        backoff=backoff.after(new_good, new_bad),
    )  # fmt: skip
    return _with_indexes(facts) if indexed else facts


def _with_indexes(facts: Facts) -> Facts:
    job = facts.job
    total = job.spec.completions or 0
    before = parse_indexes(job.status.completed_indexes, total)
    numbered = [(index, pod) for pod in facts.pods if (index := index_of(job, pod)) is not None and is_tracked(pod)]
    done = before.with_({index for index, pod in numbered if pod.status.phase == "Succeeded"})
    found = replace(facts, succeeded=len(done), before=before, succeeded_indexes=done)
    if job.spec.backoff_limit_per_index is None:
        return found
    known = parse_indexes(job.status.failed_indexes or "", total)
    failed = known.with_({index for index, pod in numbered if _fails_index(facts, pod)})
    busy = {index_of(job, pod) for pod in facts.active}
    delayed: dict[int, ControlledPod] = {}
    for index, pod in numbered:
        if not is_failed(job, pod) or index in done or index in failed or index in busy:
            continue
        if index not in delayed or _later(pod) >= _later(delayed[index]):
            delayed[index] = pod
    return replace(found, failed_indexes=failed, delayed=delayed)


def _later(pod: ControlledPod) -> tuple[int, datetime]:
    """The last of an index's pods that failed has the most failures before it."""
    return count_of(pod, FAILURES) + count_of(pod, IGNORED), finished_at(pod) or datetime.min.replace(tzinfo=UTC)


def _fails_index(facts: Facts, pod: ControlledPod) -> bool:
    if not is_failed(facts.job, pod):
        return False
    verdict = facts.verdict(pod)
    limit = facts.job.spec.backoff_limit_per_index or 0
    return verdict.action == FAIL_INDEX or (verdict.counts and count_of(pod, FAILURES) >= limit)


def is_large(job: Job, pods: Sequence[ControlledPod]) -> bool:
    """Whether deciding takes so long that it leaves the event loop."""
    rules = job.spec.success_policy.rules if job.spec.success_policy is not None else []
    status = job.status
    text = len(status.completed_indexes) + len(status.failed_indexes or "")
    return len(pods) > LARGE or text + sum(len(rule.succeeded_indexes or "") for rule in rules) > LARGE * 8


def decide(
    job: Job, pods: Sequence[ControlledPod], verdicts: Mapping[str, Verdict], backoff: Backoff, now: datetime
) -> tuple[Facts, JobCondition | None, Work]:
    """What the pods come to, why the Job ends if it does, and else what is to be done with pods."""
    facts = facts_of(job, pods, verdicts, backoff, now)
    finished = ending(facts)
    goes_on = finished is None and job.metadata.deletion_timestamp is None
    return facts, finished, work(facts) if goes_on else Work()


def condition(job: Job, kind: str) -> JobCondition | None:
    """The condition of a type, if it holds."""
    return next((c for c in job.status.conditions or () if c.type == kind and c.status == "True"), None)


def said(kind: str, reason: str, message: str, now: datetime, status: str = "True") -> JobCondition:
    """A new condition."""
    at = stamp(now)
    return JobCondition(
        type=kind, status=status, reason=reason, message=message, last_probe_time=at, last_transition_time=at
    )


def ending(facts: Facts) -> JobCondition | None:
    """Why the Job ends, before its pods are managed: what was decided before, failures, then success."""
    job, now = facts.job, facts.now
    decided = condition(job, SUCCESS_MET) or condition(job, FAILURE_TARGET)
    if decided is not None:
        return decided
    failing = (v.message for pod in facts.pods if is_failed(job, pod) and (v := facts.verdict(pod)).message)
    if message := next(failing, ""):
        return said(FAILURE_TARGET, "PodFailurePolicy", message, now)
    if facts.failed > job.spec.backoff_limit or _restarted_too_often(facts):
        words = "Job has reached the specified backoff limit"
        return said(FAILURE_TARGET, "BackoffLimitExceeded", words, now)
    left = time_left(job, now)
    if left is not None and left <= 0:
        return said(FAILURE_TARGET, "DeadlineExceeded", "Job was active longer than specified deadline", now)
    return _ending_by_indexes(facts) if facts.indexed else None


def _ending_by_indexes(facts: Facts) -> JobCondition | None:
    spec, failed = facts.job.spec, facts.failed_indexes
    if failed is not None:
        if spec.max_failed_indexes is not None and len(failed) > spec.max_failed_indexes:
            words = "Job has exceeded the specified maximal number of failed indexes"
            return said(FAILURE_TARGET, "MaxFailedIndexesExceeded", words, facts.now)
        if failed.ranges and len(failed) + len(facts.succeeded_indexes) >= (spec.completions or 0):
            return said(FAILURE_TARGET, "FailedIndexes", "Job has failed indexes", facts.now)
    words = succeeded_by(spec.success_policy, spec.completions or 0, facts.succeeded_indexes)
    return said(SUCCESS_MET, "SuccessPolicy", words, facts.now) if words else None


def _restarted_too_often(facts: Facts) -> bool:
    """Pods that are restarted in their place never fail: their restarts count."""
    spec = facts.job.spec
    if (spec.template.get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    going = [pod.status for pod in facts.pods if pod.status.phase in ("Running", "Pending")]
    statuses = [s for at in going for s in (*(at.init_container_statuses or ()), *(at.container_statuses or ()))]
    restarts = sum(status.restart_count for status in statuses)
    return bool(restarts >= max(1, spec.backoff_limit))


def time_left(job: Job, now: datetime) -> float | None:
    """Seconds that the Job may still run; None if that is not bounded."""
    began = moment(job.status.start_time)
    if job.spec.active_deadline_seconds is None or job.spec.suspend or began is None:
        return None
    return job.spec.active_deadline_seconds - (now - began).total_seconds()


@dataclass(frozen=True, slots=True)
class Work:
    """Pods to delete, how many to make or for which indexes, and the seconds until more may be made."""

    delete: tuple[ControlledPod, ...] = ()
    create: int = 0
    indexes: tuple[int, ...] = ()
    wait: float | None = None


def work(facts: Facts) -> Work:
    """What is to be done with pods while the Job goes on: some go, or else some are made."""
    job, active = facts.job, len(facts.active)
    if job.spec.suspend:
        return Work(delete=tuple(facts.active))
    if job.spec.completions is None:
        wanted = active if facts.succeeded else job.spec.parallelism
    else:
        wanted = max(0, min(job.spec.completions - facts.succeeded, job.spec.parallelism))
    surplus = _surplus(facts, max(0, active - wanted))
    if surplus:
        return Work(delete=tuple(surplus[:BURST]))
    missing = wanted - active - (facts.terminating if only_failed(job) else 0)
    if missing <= 0:
        return Work()
    each = job.spec.backoff_limit_per_index is not None
    wait = 0.0 if each else facts.backoff.wait(facts.now)
    if wait > 0:
        return Work(wait=wait)
    return _pending(facts, min(missing, BURST)) if facts.indexed else Work(create=min(missing, BURST))


def _surplus(facts: Facts, least: int) -> list[ControlledPod]:
    """Pods with an index that is none or somebody else's, then as many more as must go."""
    if not facts.indexed:
        return first_to_go(facts.active, least)
    by_index: dict[int | None, list[ControlledPod]] = {}
    for pod in facts.active:
        by_index.setdefault(index_of(facts.job, pod), []).append(pod)
    going = by_index.pop(None, [])
    left = []
    for pods in by_index.values():
        going += first_to_go(pods, len(pods) - 1)
        kept = {pod.metadata.uid for pod in going}
        left += [pod for pod in pods if pod.metadata.uid not in kept]
    return going + first_to_go(left, max(0, least - len(going)))


def _pending(facts: Facts, count: int) -> Work:
    """The first indexes that have no pod, and when those that wait are due."""
    job = facts.job
    busy = {index_of(job, pod) for pod in facts.active}
    if only_failed(job):
        busy |= {index_of(job, pod) for pod in facts.pods if is_terminating(pod)}
    taken = facts.succeeded_indexes.with_(index for index in busy if index is not None)
    if facts.failed_indexes is not None:
        taken = taken.merged(facts.failed_indexes.ranges)
    found: list[int] = []
    for index in taken.missing(job.spec.completions or 0):
        if len(found) == count:
            break
        found.append(index)
    waits = {index: _wait_of(facts, index) for index in found}
    due = tuple(index for index in found if not waits[index])
    later = [wait for wait in waits.values() if wait]
    return Work(create=len(due), indexes=due, wait=min(later) if later else None)


def _wait_of(facts: Facts, index: int) -> float:
    pod = facts.delayed.get(index)
    if pod is None:
        return 0.0
    return Backoff(count_of(pod, FAILURES) + count_of(pod, IGNORED) + 1, finished_at(pod)).wait(facts.now)


def is_complete(facts: Facts, active: int) -> bool:
    """Whether all that was wanted has succeeded, with ``active`` pods left."""
    enough = (
        facts.succeeded > 0 if facts.job.spec.completions is None else facts.succeeded >= facts.job.spec.completions
    )
    return enough and active == 0


def suspension(job: Job, now: datetime) -> JobCondition | None:
    """What is to be said of a Job that was suspended, or goes on; None for nothing new."""
    known = next((c for c in job.status.conditions or () if c.type == SUSPENDED), None)
    if job.spec.suspend and (known is None or known.status != "True"):
        return said(SUSPENDED, "JobSuspended", "Job suspended", now)
    if not job.spec.suspend and known is not None and known.status == "True":
        return said(SUSPENDED, "JobResumed", "Job resumed", now, "False")
    return None
