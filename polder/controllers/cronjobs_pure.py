"""CronJobs: which run is due, what has ended, what goes. Pure; follows upstream's cronjob controller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from polder.api.batch import COMPLETE, CronJob, CronJobStatus, Job, KnownJob, Template, ending_of
from polder.api.core import ObjectReference
from polder.api.cron import CronError, Schedule, parse_schedule
from polder.api.meta import OwnerReference
from polder.base.clock import stamp

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
"""The annotation of a Job that tells for which time it was made."""
MANY = 100
"""Missed runs above which something is wrong."""
_FIRST_YEAR, _LAST_YEAR = 1900, 9000
MARGIN = 0.1
"""Seconds after a run's time at which it is looked at."""


class Told(NamedTuple):
    """An event: type, reason, message."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """The status by the Jobs that are known, what is to be said, and active ones that the cache does not show."""

    status: CronJobStatus
    told: tuple[Told, ...]
    unseen: tuple[ObjectReference, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """The time of the run to start, None for none; whether those that are active go first; seconds until the next look."""

    run: datetime | None = None
    replace: bool = False
    wait: float | None = None
    told: tuple[Told, ...] = ()


def moment(text: str | None) -> datetime | None:
    """A time as the API writes it; None for none, or for one that is none or cannot be reckoned with."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if found is None or not _FIRST_YEAR < found.year < _LAST_YEAR:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def job_name(cron: CronJob, at: datetime) -> str:
    """The same name for the same run, whoever makes it: so it is made once."""
    return f"{cron.metadata.name}-{int(at.timestamp()) // 60}"


def settle(cron: CronJob, jobs: Sequence[KnownJob]) -> Settled:
    """What the Jobs change in the status. A Job that was made just before its maker ended is taken up."""
    status, told = cron.status, []
    active, last = list(status.active or ()), moment(status.last_schedule_time)
    success = moment(status.last_successful_time)
    for job in sorted(jobs, key=lambda j: j.metadata.name):
        listed = any(ref.uid == job.metadata.uid for ref in active)
        ending = ending_of(job)
        made_for = _forgotten(cron, job, moment(status.last_schedule_time))
        if made_for is not None:
            last = max(last, made_for) if last is not None else made_for
        if ending is None and not listed:
            if made_for is not None:
                active.append(reference(job))
            elif job.metadata.deletion_timestamp is None:
                words = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                told.append(Told("Warning", "UnexpectedJob", words))
        if ending is None:
            continue
        if listed:
            active = [ref for ref in active if ref.uid != job.metadata.uid]
            words = f"Saw completed job: {job.metadata.name}, condition: {ending.type}"
            told.append(Told("Normal", "SawCompletedJob", words))
        ended = moment(job.status.completion_time)
        if ending.type == COMPLETE and ended is not None and (success is None or ended > success):
            success = ended
    known = {job.metadata.uid for job in jobs}
    changed = CronJobStatus(
        active=active or None,
        last_schedule_time=stamp(last.astimezone(UTC)) if last is not None else None,
        last_successful_time=stamp(success.astimezone(UTC)) if success is not None else None,
    )
    return Settled(changed, tuple(told), tuple(ref for ref in active if ref.uid not in known))


def _forgotten(cron: CronJob, job: KnownJob, last: datetime | None) -> datetime | None:
    """The run that a Job was made for, if the status does not know of it."""
    at = moment((job.metadata.annotations or {}).get(SCHEDULED))
    if at is None or job.metadata.name != job_name(cron, at) or (last is not None and at <= last):
        return None
    return at


def without(status: CronJobStatus, uid: str) -> CronJobStatus:
    """The status without a Job."""
    left = [ref for ref in status.active or () if ref.uid != uid]
    return msgspec.structs.replace(status, active=left or None)


def with_run(status: CronJobStatus, job: Job | KnownJob, at: datetime) -> CronJobStatus:
    """The status after a run was started."""
    active = [*(status.active or ()), reference(job)]
    return msgspec.structs.replace(status, active=active, last_schedule_time=stamp(at.astimezone(UTC)))


def reference(job: Job | KnownJob) -> ObjectReference:
    """How the status names a Job."""
    meta = job.metadata
    return ObjectReference(
        api_version="batch/v1", kind="Job", namespace=meta.namespace, name=meta.name, uid=meta.uid,
        resource_version=meta.resource_version,
    )  # fmt: skip


def surplus(cron: CronJob, jobs: Iterable[KnownJob]) -> list[KnownJob]:
    """Jobs that ended and are more than the history keeps, the oldest first."""
    found: list[KnownJob] = []
    ended = [job for job in jobs if ending_of(job) is not None and job.metadata.deletion_timestamp is None]
    for limit, good in (
        (cron.spec.successful_jobs_history_limit, True),
        (cron.spec.failed_jobs_history_limit, False),
    ):
        if limit is None:
            continue
        same = [job for job in ended if ((told := ending_of(job)) is not None and told.type == COMPLETE) is good]
        same.sort(key=lambda j: (j.status.start_time is None, j.status.start_time or "", j.metadata.name))
        found += same[: max(0, len(same) - limit)]
    return found


def decide(cron: CronJob, now: datetime) -> Decision:
    """What is to be done now. ``cron`` has the status that the Jobs gave it."""
    spec = cron.spec
    try:
        zone = ZoneInfo(spec.time_zone) if spec.time_zone else UTC
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = f'invalid timeZone: "{spec.time_zone}": unknown time zone {spec.time_zone}'
        return Decision(told=(Told("Warning", "UnknownTimeZone", words),))
    if spec.suspend:
        return Decision()
    try:
        schedule = parse_schedule(spec.schedule)
        if schedule.zone and not spec.time_zone:
            zone = ZoneInfo(schedule.zone)
    except (CronError, ZoneInfoNotFoundError, ValueError, OSError) as error:
        words = f'unparseable schedule: "{spec.schedule}" : {error}'
        return Decision(told=(Told("Warning", "UnparseableSchedule", words),))
    if schedule.after(now, zone) is None:
        words = f"invalid schedule: {spec.schedule} : no time fits it"
        return Decision(told=(Told("Warning", "InvalidSchedule", words),))
    return _due(cron, schedule, zone, now)


def _due(cron: CronJob, schedule: Schedule, zone: tzinfo, now: datetime) -> Decision:
    spec, active = cron.spec, cron.status.active or ()
    wait = until_next(cron, schedule, zone, now)
    run, many = last_due(cron, schedule, zone, now)
    told: tuple[Told, ...] = ()
    if run is None:
        return Decision(wait=wait)
    if many:
        words = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        told = (Told("Warning", "TooManyMissedTimes", words),)
    deadline = spec.starting_deadline_seconds
    if deadline is not None and (now - run).total_seconds() > deadline:
        words = f"Missed scheduled time to start a job: {format_datetime(run.astimezone(UTC))}"
        return Decision(wait=wait, told=(*told, Told("Warning", "MissSchedule", words)))
    name = job_name(cron, run)
    if any(ref.name == name for ref in active) or moment(cron.status.last_schedule_time) == run:
        return Decision(wait=wait, told=told)
    if spec.concurrency_policy == "Forbid" and active:
        words = "Not starting job because prior execution is running and concurrency policy is Forbid"
        return Decision(wait=wait, told=(*told, Told("Normal", "JobAlreadyActive", words)))
    return Decision(run, spec.concurrency_policy == "Replace", wait, told)


def _since(cron: CronJob) -> datetime | None:
    """The last run, or when the CronJob was made."""
    return moment(cron.status.last_schedule_time) or moment(cron.metadata.creation_timestamp)


def last_due(cron: CronJob, schedule: Schedule, zone: tzinfo, now: datetime) -> tuple[datetime | None, bool]:
    """The latest time since the last run that is not ahead, None for none; whether very many were missed."""
    since = _since(cron) or now
    if cron.spec.starting_deadline_seconds is not None:
        with suppress(OverflowError):  # longer than there has been time
            since = max(since, now - timedelta(seconds=cron.spec.starting_deadline_seconds))
    first = schedule.after(since, zone)
    if first is None or first > now:
        return None, False
    second = schedule.after(first, zone)
    gap = (second - first).total_seconds() if second is not None else 0.0
    many = bool(gap) and (now - first).total_seconds() / gap + 1 > MANY
    if schedule.period:
        whole = int((now - first).total_seconds() // schedule.period)
        return first + timedelta(seconds=whole * schedule.period), many
    return _latest(schedule, zone, since, now), many


def _latest(schedule: Schedule, zone: tzinfo, low: datetime, high: datetime) -> datetime | None:
    """The last time up to ``high``; one comes after ``low``. Halves what lies between: there may be a million of them."""
    end = high
    while (high - low).total_seconds() > 60:
        middle = low + (high - low) / 2
        found = schedule.after(middle, zone)
        if found is not None and found <= end:
            low = middle
        else:
            high = middle
    found = latest = schedule.after(low, zone)
    while found is not None and found <= end:
        latest, found = found, schedule.after(found, zone)
    return latest


def until_next(cron: CronJob, schedule: Schedule, zone: tzinfo, now: datetime) -> float:
    """Seconds until the next run is due."""
    since = _since(cron) or now
    if schedule.period and since < now:
        whole = int((now - since).total_seconds() // schedule.period)
        since += timedelta(seconds=whole * schedule.period)
        found = since.replace(microsecond=0) + timedelta(seconds=schedule.period)
    else:
        found = schedule.after(max(since, now), zone) or now
    return max(0.0, (found - now).total_seconds()) + MARGIN


def job_of(cron: CronJob, at: datetime) -> Template:
    """The Job of a run, as it is sent."""
    template = cron.spec.job_template
    meta = template.get("metadata") or {}
    zone = ZoneInfo(cron.spec.time_zone) if cron.spec.time_zone else UTC
    local = at.astimezone(zone).isoformat(timespec="seconds")
    owner = OwnerReference(
        api_version="batch/v1", kind="CronJob", name=cron.metadata.name, uid=cron.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    made: dict[str, Any] = {
        "name": job_name(cron, at),
        "annotations": {**(meta.get("annotations") or {}), SCHEDULED: local.replace("+00:00", "Z")},
        "ownerReferences": [msgspec.to_builtins(owner)],
    }
    if meta.get("labels"):
        made["labels"] = meta["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": template.get("spec") or {}}
