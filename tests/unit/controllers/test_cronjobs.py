"""What is due, what is taken up, what goes: the pure part of CronJobs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from polder.api.batch import CronJob, KnownJob
from polder.controllers import cronjobs_pure as pure

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
MADE = "2026-05-01T10:59:10Z"


def cron(schedule: str = "*/10 * * * *", status: Any = None, **spec: Any) -> CronJob:
    meta = {"name": "backup", "namespace": "shop", "uid": "c", "creationTimestamp": MADE}
    return msgspec.convert({"metadata": meta, "spec": {"schedule": schedule, **spec}, "status": status or {}}, CronJob)


def job(name: str, uid: str, ended: str = "", at: str = "", **status: Any) -> KnownJob:
    meta = {"name": name, "namespace": "shop", "uid": uid, "annotations": {pure.SCHEDULED: at} if at else {}}
    conditions = [{"type": ended, "status": "True"}] if ended else []
    return msgspec.convert({"metadata": meta, "status": {"conditions": conditions, **status}}, KnownJob)


def active(*names: str) -> dict[str, Any]:
    return {"active": [{"name": name, "uid": name} for name in names]}


def test_the_latest_missed_run_is_the_one():
    found = pure.decide(cron(), NOW)
    assert found.run == datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert found.wait == pytest.approx(9.5 * 60 + pure.MARGIN)
    assert not found.told


def test_nothing_is_due_before_its_time_and_after_its_run():
    early = pure.decide(cron("0 13 * * *"), NOW)
    assert (early.run, early.wait) == (None, pytest.approx(59.5 * 60 + pure.MARGIN))
    assert pure.decide(cron(status={"lastScheduleTime": "2026-05-01T12:00:00Z"}), NOW).run is None


def test_a_zone_moves_the_run():
    found = pure.decide(cron("0 14 * * *", timeZone="Europe/Berlin"), NOW)
    assert found.run == datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    body = pure.job_of(cron(timeZone="Europe/Berlin"), NOW.replace(second=0))
    assert body["metadata"]["annotations"][pure.SCHEDULED] == "2026-05-01T14:00:00+02:00"
    assert body["metadata"]["name"] == f"backup-{int(NOW.timestamp()) // 60}"
    assert "UnknownTimeZone" in [told.reason for told in pure.decide(cron(timeZone="Mars/Base"), NOW).told]


def test_a_suspended_one_waits_for_a_change():
    assert pure.decide(cron(suspend=True), NOW) == pure.Decision()


def test_a_run_that_is_too_late_is_told_and_left_out():
    late = pure.decide(cron("0 * * * *", startingDeadlineSeconds=20), NOW)
    assert late.run is None
    on_time = pure.decide(cron("0 * * * *", startingDeadlineSeconds=60), NOW)
    assert on_time.run is not None
    nothing = pure.decide(cron("0 * * * *", startingDeadlineSeconds=10**18), NOW)
    assert nothing.run is not None


def test_very_many_missed_runs_are_told_and_one_is_made():
    found = pure.decide(cron("* * * * *", status={"lastScheduleTime": "2020-01-01T00:00:00Z"}), NOW)
    assert found.run == datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
    assert [told.reason for told in found.told] == ["TooManyMissedTimes"]


def test_every_counts_from_the_last_run():
    found = pure.decide(cron("@every 7m", status={"lastScheduleTime": "2026-05-01T11:00:00Z"}), NOW)
    assert found.run == datetime(2026, 5, 1, 11, 56, tzinfo=UTC)
    assert found.wait == pytest.approx(2.5 * 60 + pure.MARGIN)


def test_forbid_waits_and_replace_ends_what_runs():
    assert pure.decide(cron(status=active("old"), concurrencyPolicy="Forbid"), NOW).run is None
    assert pure.decide(cron(concurrencyPolicy="Forbid"), NOW).run is not None
    replaced = pure.decide(cron(status=active("old"), concurrencyPolicy="Replace"), NOW)
    assert (replaced.run is not None, replaced.replace) == (True, True)
    allowed = pure.decide(cron(status=active("old")), NOW)
    assert (allowed.run is not None, allowed.replace) == (True, False)


def test_a_time_that_never_comes_is_told():
    assert [told.reason for told in pure.decide(cron("0 0 31 2 *"), NOW).told] == ["InvalidSchedule"]
    assert [told.reason for told in pure.decide(cron("* * *"), NOW).told] == ["UnparseableSchedule"]


@pytest.mark.parametrize("minutes", [-5, 5])
def test_a_clock_that_is_five_minutes_off_makes_no_run_twice_and_leaves_none_out(minutes):
    """A run was made by a server whose clock is ahead; the next one's is right, or behind."""
    here = NOW + timedelta(minutes=minutes)
    first = pure.decide(cron(), here)
    assert first.run is not None
    after = cron(status={"lastScheduleTime": first.run.isoformat()})
    assert pure.decide(after, here).run is None
    assert pure.decide(after, here - timedelta(minutes=5)).run is None
    later = pure.decide(after, here + timedelta(minutes=10))
    assert later.run == first.run + timedelta(minutes=10)


def test_ended_jobs_leave_the_status_and_the_last_success_is_kept():
    known = cron(status={**active("a", "b", "gone"), "lastScheduleTime": "2026-05-01T12:00:00Z"})
    done = job("a", "a", "Complete", completionTime="2026-05-01T11:30:00Z")
    found = pure.settle(known, [done, job("b", "b")])
    assert [ref.uid for ref in found.status.active or ()] == ["b", "gone"]
    assert [ref.uid for ref in found.unseen] == ["gone"]
    assert found.status.last_successful_time == "2026-05-01T11:30:00Z"
    assert [told.message for told in found.told] == ["Saw completed job: a, condition: Complete"]


def test_a_job_whose_maker_ended_before_the_status_was_written_is_taken_up():
    at = "2026-05-01T12:00:00Z"
    name = pure.job_name(cron(), datetime(2026, 5, 1, 12, 0, tzinfo=UTC))
    running = pure.settle(cron(), [job(name, "x", at=at)])
    assert ([ref.uid for ref in running.status.active or ()], running.status.last_schedule_time) == (["x"], at)
    ended = pure.settle(cron(), [job(name, "x", "Complete", at=at)])
    assert (ended.status.active, ended.status.last_schedule_time) == (None, at)
    assert not ended.told


def test_somebody_else_s_job_is_told_and_not_counted():
    found = pure.settle(cron(), [job("by-hand", "x")])
    assert found.status.active is None
    assert [told.reason for told in found.told] == ["UnexpectedJob"]


def test_the_oldest_go_first_beyond_the_history():
    jobs = [job(f"g{n}", f"g{n}", "Complete", startTime=f"2026-05-01T1{n}:00:00Z") for n in range(3)]
    jobs += [job(f"f{n}", f"f{n}", "Failed") for n in range(2)] + [job("on", "on")]
    found = pure.surplus(cron(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0), jobs)
    assert [one.metadata.name for one in found] == ["g0", "g1", "f0", "f1"]
    assert pure.surplus(cron(), jobs) == []
