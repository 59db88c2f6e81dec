"""Job and CronJob (batch/v1). Pod templates stay as they were written: a controller that copied only what it knows would
lose the rest. ``KnownJob`` and ``KnownCronJob`` are what caches of all of them hold.
"""

from __future__ import annotations

from typing import Any

from polder.api.core import ObjectReference
from polder.api.meta import LabelSelector, Object, Struct

Template = dict[str, Any]
"""A PodTemplateSpec, or a JobTemplateSpec."""

COMPLETE = "Complete"
FAILED = "Failed"
SUSPENDED = "Suspended"
FAILURE_TARGET = "FailureTarget"
SUCCESS_MET = "SuccessCriteriaMet"
TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer of a pod that is not counted yet."""
OWN_MANAGER = "kubernetes.io/job-controller"
"""The manager of a Job that names none."""


class JobCondition(Struct, frozen=True, kw_only=True):
    """What the controller says of its Job."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_probe_time: str | None = None
    last_transition_time: str | None = None


class ExitCodes(Struct, frozen=True, kw_only=True):
    """Exit codes that a rule is about; of any container if none is named."""

    operator: str
    values: list[int] = []
    container_name: str | None = None


class PodConditionPattern(Struct, frozen=True, kw_only=True):
    """A condition that a rule is about."""

    type: str
    status: str = "True"


class FailureRule(Struct, frozen=True, kw_only=True):
    """What a failure means: Count, FailIndex, FailJob or Ignore."""

    action: str
    on_exit_codes: ExitCodes | None = None
    on_pod_conditions: list[PodConditionPattern] | None = None


class FailurePolicy(Struct, frozen=True, kw_only=True):
    """The first rule that fits decides."""

    rules: list[FailureRule] = []


class SuccessRule(Struct, frozen=True, kw_only=True):
    """How many, or which indexes must have succeeded."""

    succeeded_indexes: str | None = None
    succeeded_count: int | None = None


class SuccessPolicy(Struct, frozen=True, kw_only=True):
    """One rule suffices."""

    rules: list[SuccessRule] = []


class JobSpec(Struct, frozen=True, kw_only=True):
    """What a Job wants. Durations in seconds."""

    parallelism: int = 1
    completions: int | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: FailurePolicy | None = None
    success_policy: SuccessPolicy | None = None
    backoff_limit: int = 6
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    selector: LabelSelector | None = None
    template: Template = {}
    ttl_seconds_after_finished: int | None = None
    completion_mode: str = "NonIndexed"
    suspend: bool = False
    pod_replacement_policy: str = "TerminatingOrFailed"
    managed_by: str = OWN_MANAGER


class Uncounted(Struct, frozen=True, kw_only=True):
    """UIDs of pods that ended and are in no number yet: they count once their finalizer is gone."""

    succeeded: list[str] | None = None
    failed: list[str] | None = None


class JobStatus(Struct, frozen=True, kw_only=True):
    """How far a Job is."""

    conditions: list[JobCondition] | None = None
    start_time: str | None = None
    completion_time: str | None = None
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: Uncounted | None = None
    ready: int | None = None


class Job(Object, frozen=True, kw_only=True):
    """Runs pods to their end."""

    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


class CronJobSpec(Struct, frozen=True, kw_only=True):
    """When which Job is made."""

    schedule: str = ""
    time_zone: str | None = None
    starting_deadline_seconds: int | None = None
    concurrency_policy: str = "Allow"
    suspend: bool = False
    job_template: Template = {}
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJobStatus(Struct, frozen=True, kw_only=True):
    """What runs, and when a Job was last made and last succeeded."""

    active: list[ObjectReference] | None = None
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(Object, frozen=True, kw_only=True):
    """Makes Jobs at times."""

    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()


class ConditionOfJob(Struct, frozen=True, kw_only=True):
    """Of a condition, whether and since when."""

    type: str
    status: str
    last_transition_time: str | None = None


class KnownJobSpec(Struct, frozen=True, kw_only=True):
    """Which pods are a Job's, and how long it stays after its end."""

    selector: LabelSelector | None = None
    ttl_seconds_after_finished: int | None = None
    managed_by: str = OWN_MANAGER


class KnownJobStatus(Struct, frozen=True, kw_only=True):
    """Whether and when a Job ended."""

    conditions: list[ConditionOfJob] | None = None
    start_time: str | None = None
    completion_time: str | None = None


class KnownJob(Object, frozen=True, kw_only=True):
    """A Job as the controllers' cache has it."""

    spec: KnownJobSpec = KnownJobSpec()
    status: KnownJobStatus = KnownJobStatus()


class KnownCronJob(Object, frozen=True, kw_only=True):
    """A CronJob as the controllers' cache has it: that it is there, and that it changed."""


def ending_of(job: Job | KnownJob) -> JobCondition | ConditionOfJob | None:
    """The condition that says how a Job ended, None while it goes on."""
    found = (c for c in job.status.conditions or () if c.type in (COMPLETE, FAILED) and c.status == "True")
    return next(found, None)
