"""What a pod's failure means to its Job, when its Job has succeeded, and how long a new try waits. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from polder.api.batch import ExitCodes, FailurePolicy, PodConditionPattern, SuccessPolicy
from polder.api.core import ContainerStatus, Pod
from polder.api.podfacts import ControlledPod
from polder.controllers.cronjobs_pure import moment
from polder.controllers.jobs_indexes import Indexes, parse_indexes

FIRST_BACKOFF = 10.0
LONGEST_BACKOFF = 600.0
FAIL_INDEX = "FailIndex"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure means: the action of the rule that fits, whether it counts, and why the whole Job fails."""

    action: str = ""
    counts: bool = True
    message: str = ""


COUNTED = Verdict()


def judge(policy: FailurePolicy | None, pod: Pod) -> Verdict:
    """The first rule that fits decides; if none does, the failure counts."""
    for number, rule in enumerate(policy.rules if policy is not None else ()):
        why = ""
        if rule.on_exit_codes is not None:
            status = pod.status
            ended = _fitting([*(status.container_statuses or ())], rule.on_exit_codes)
            ended = ended or _fitting([*(status.init_container_statuses or ())], rule.on_exit_codes)
            if ended is not None:
                why = f"Container {ended[0]} for pod {_name(pod)} failed with exit code {ended[1]}"
        elif kind := _condition(pod, rule.on_pod_conditions or ()):
            why = f"Pod {_name(pod)} has condition {kind}"
        if why:
            words = f"{why} matching {rule.action} rule at index {number}" if rule.action == "FailJob" else ""
            return Verdict(rule.action, rule.action != "Ignore", words)
    return COUNTED


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def _fitting(statuses: Sequence[ContainerStatus], rule: ExitCodes) -> tuple[str, int] | None:
    for status in statuses:
        ended = status.state.terminated if status.state is not None else None
        if ended is None or ended.exit_code == 0 or rule.container_name not in (None, status.name):
            continue
        if (ended.exit_code in rule.values) is (rule.operator == "In"):
            return status.name, ended.exit_code
    return None


def _condition(pod: Pod, patterns: Iterable[PodConditionPattern]) -> str:
    wanted = {(pattern.type, pattern.status) for pattern in patterns}
    return next((c.type for c in pod.status.conditions or () if (c.type, c.status) in wanted), "")


def succeeded_by(policy: SuccessPolicy | None, completions: int, succeeded: Indexes) -> str:
    """Which rule is met, in words; empty for none."""
    if not succeeded.ranges:
        return ""
    for number, rule in enumerate(policy.rules if policy is not None else ()):
        met = False
        if rule.succeeded_indexes is not None:
            wanted = parse_indexes(rule.succeeded_indexes, completions)
            have = wanted.shared(succeeded)
            enough = rule.succeeded_count is not None and have >= rule.succeeded_count
            met = bool(wanted.ranges) and (have == len(wanted) or enough)
        elif rule.succeeded_count is not None:
            met = len(succeeded) >= rule.succeeded_count
        if met:
            return f"Matched rules at index {number}"
    return ""


def finished_at(pod: ControlledPod) -> datetime | None:
    """When a pod ended: by its containers, else since when it is not ready, else when it was deleted."""
    statuses = pod.status.container_statuses or ()
    ends = [moment(s.state.terminated.finished_at) if s.state and s.state.terminated else None for s in statuses]
    known = [end for end in ends if end is not None]
    if known and len(known) == len(ends):
        return max(known)
    unready = [c for c in pod.status.conditions or () if c.type == "Ready" and c.status == "False"]
    since = moment(unready[0].last_transition_time) if unready else None
    if since is not None:
        return since
    gone = moment(pod.metadata.deletion_timestamp)
    if gone is not None:
        return gone - timedelta(seconds=pod.metadata.deletion_grace_period_seconds or 0)
    return moment(pod.metadata.creation_timestamp)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Failures since the last success, and when the last one was."""

    failures: int = 0
    last: datetime | None = None

    def after(self, succeeded: Iterable[ControlledPod], failed: Iterable[ControlledPod]) -> Backoff:
        """With what ended since."""
        good = [at for pod in succeeded if (at := finished_at(pod)) is not None]
        bad = [at for pod in failed if (at := finished_at(pod)) is not None]
        if not good:
            return Backoff(self.failures + len(bad), max(bad)) if bad else self
        later = [at for at in bad if at > max(good)]
        return Backoff(len(later), max(later)) if later else Backoff()

    def wait(self, now: datetime) -> float:
        """Seconds until the next try."""
        if not self.failures or self.last is None:
            return 0.0
        whole = min(FIRST_BACKOFF * 2.0 ** min(self.failures - 1, 30), LONGEST_BACKOFF)
        # A time ahead of this clock must not lengthen the wait.
        return max(0.0, whole - max(0.0, (now - self.last).total_seconds()))
