"""What a pass of a Job decides, and how its status counts pods: pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from polder.api.batch import TRACKING, Job, JobStatus
from polder.api.podfacts import ControlledPod
from polder.controllers import jobs_pure as pure
from polder.controllers import jobs_tracking as tracking
from polder.controllers.jobs_failures import Backoff, Verdict
from polder.controllers.jobs_making import FAILURES, INDEX

NOW = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": "j", "controller": True}


def job(status: Any = None, meta: Any = None, **spec: Any) -> Job:
    wanted = {"completions": 3, "parallelism": 2, "selector": {"matchLabels": {"job": "sum"}}, **spec}
    known = {"name": "sum", "namespace": "shop", "uid": "j", **(meta or {})}
    return msgspec.convert({"metadata": known, "spec": wanted, "status": status or {}}, Job)


def pod(uid: str, phase: str = "Running", *, index: int | None = None, held: bool = True, **more: Any) -> ControlledPod:
    notes = {INDEX: str(index)} if index is not None else {}
    notes |= {FAILURES: str(more.pop("failures"))} if "failures" in more else {}
    meta = {"name": uid, "namespace": "shop", "uid": uid, "labels": {"job": "sum"}, "annotations": notes}
    meta |= {"ownerReferences": [OWNER], "finalizers": [TRACKING] if held else [], **more.pop("meta", {})}
    return msgspec.convert({"metadata": meta, "status": {"phase": phase, **more}}, ControlledPod)


def facts(found: Job, *pods: ControlledPod, verdicts: Any = None, backoff: Backoff | None = None) -> pure.Facts:
    return pure.facts_of(found, pods, verdicts or {}, backoff or Backoff(), NOW)


def names(pods: Any) -> list[str]:
    return sorted(one.metadata.uid for one in pods)


GOING = {"deletionTimestamp": "2026-05-01T12:00:00Z"}


def test_pods_are_claimed_by_selector_and_owner():
    lost = {"labels": {"job": "other"}}
    free = {"ownerReferences": []}
    found = pure.claim(
        job(),
        [
            pod("a"),
            pod("b", meta=lost),
            pod("c", meta=free),
            pod("d", meta={**free, **lost}),
            pod("e", meta={**free, **GOING}),
        ],
    )
    assert (names(found.own), names(found.adopt), names(found.release)) == (["a"], ["c"], ["b"])
    ending = pure.claim(job(meta=GOING), [pod("b", meta=lost), pod("c", meta=free)])
    assert (names(ending.own), ending.adopt, ending.release) == (["b"], [], [])


def test_no_more_pods_are_made_than_are_left_to_succeed():
    assert pure.work(facts(job())).create == 2
    assert pure.work(facts(job(), pod("a"))).create == 1
    assert pure.work(facts(job(status={"succeeded": 2}), pod("a"))) == pure.Work()
    assert pure.work(facts(job(), pod("a", "Succeeded"), pod("b", "Succeeded"))).create == 1


def test_a_queue_of_work_makes_no_pods_after_the_first_success():
    found = job(completions=None)
    assert pure.work(facts(found)).create == 2
    assert pure.work(facts(found, pod("a", "Succeeded"))) == pure.Work()
    assert pure.is_complete(facts(found, pod("a", "Succeeded")), 0)
    assert not pure.is_complete(facts(found, pod("a", "Succeeded"), pod("b")), 1)


def test_too_many_go_and_a_suspended_job_has_none():
    some = [pod("a"), pod("b"), pod("c")]
    assert len(pure.work(facts(job(), *some)).delete) == 1
    assert names(pure.work(facts(job(suspend=True), *some)).delete) == ["a", "b", "c"]


def test_a_failed_pod_is_replaced_after_its_back_off():
    at = {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-05-01T12:00:28Z"}]}
    found = facts(job(), pod("a", "Failed", **at))
    assert pure.work(found).wait == 8
    assert pure.ending(found) is None
    over = facts(job(backoffLimit=0), pod("a", "Failed", **at))
    told = pure.ending(over)
    assert told is not None
    assert (told.type, told.reason) == ("FailureTarget", "BackoffLimitExceeded")


def test_what_is_going_counts_as_failed_unless_only_ended_pods_are_replaced():
    going = pod("a", meta=GOING)
    assert facts(job(), going).failed == 1
    waiting = facts(job(podReplacementPolicy="Failed"), going)
    assert (waiting.failed, waiting.terminating, pure.work(waiting).create) == (0, 1, 1)


def test_restarts_in_place_count():
    found = job(template={"spec": {"restartPolicy": "OnFailure"}}, backoffLimit=2)
    one = facts(found, pod("a", containerStatuses=[{"restartCount": 1}]))
    assert pure.ending(one) is None
    two = facts(found, pod("a", containerStatuses=[{"restartCount": 1}], initContainerStatuses=[{"restartCount": 1}]))
    assert pure.ending(two) is not None


def test_a_deadline_ends_the_job():
    found = job(activeDeadlineSeconds=30, status={"startTime": "2026-05-01T12:00:10Z"})
    assert pure.time_left(found, NOW) == 10
    late = pure.facts_of(found, [], {}, Backoff(), NOW + timedelta(seconds=10))
    told = pure.ending(late)
    assert told is not None
    assert told.reason == "DeadlineExceeded"
    assert pure.time_left(job(activeDeadlineSeconds=30, suspend=True), NOW) is None


def indexed(**more: Any) -> Job:
    return job(completionMode="Indexed", **{"completions": 4, "parallelism": 3, **more})


def test_the_first_indexes_without_a_pod_are_next():
    found = facts(indexed(status={"completedIndexes": "1", "succeeded": 1}), pod("a", index=0))
    assert pure.work(found).indexes == (2, 3)
    done = facts(indexed(status={"completedIndexes": "1", "succeeded": 1}), pod("a", "Succeeded", index=0))
    assert (done.succeeded, str(done.succeeded_indexes)) == (2, "0,1")


def test_pods_with_one_index_or_none_go():
    found = facts(indexed(), pod("a", index=0), pod("b", index=0), pod("c", index=9), pod("d"))
    assert len(pure.work(found).delete) == 3
    assert {"c", "d"} < {one.metadata.uid for one in pure.work(found).delete}


def test_an_index_that_failed_too_often_is_left_and_its_pod_held_until_there_is_another():
    each = indexed(backoffLimitPerIndex=1, maxFailedIndexes=1)
    first = facts(each, pod("a", "Failed", index=0, failures=0))
    assert str(first.failed_indexes) == ""
    assert names(first.delayed.values()) == ["a"]
    assert not tracking.track(first, first.job.status, None).let_go
    again = facts(each, pod("a", "Failed", index=0, failures=0), pod("b", index=0, failures=1))
    assert names(tracking.track(again, again.job.status, None).let_go) == ["a"]
    failed = facts(each, pod("b", "Failed", index=0, failures=1))
    assert str(failed.failed_indexes) == "0"
    assert 0 not in pure.work(failed).indexes
    noted = tracking.track(failed, failed.job.status, None).status
    assert (noted.failed_indexes, noted.uncounted_terminated_pods) == ("0", tracking.Uncounted(failed=["b"]))
    both = facts(each, pod("b", "Failed", index=0, failures=1), pod("c", "Failed", index=1, failures=1))
    told = pure.ending(both)
    assert told is not None
    assert told.reason == "MaxFailedIndexesExceeded"


def test_an_index_fails_at_once_where_the_policy_says_so():
    rule = {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3]}}]}
    each = indexed(backoffLimitPerIndex=5, podFailurePolicy=rule, completions=1)
    found = facts(each, pod("a", "Failed", index=0, failures=0), verdicts={"a": Verdict("FailIndex")})
    told = pure.ending(found)
    assert told is not None
    assert told.reason == "FailedIndexes"


def test_failures_that_are_ignored_count_for_nothing():
    found = facts(job(backoffLimit=0), pod("a", "Failed"), verdicts={"a": Verdict("Ignore", counts=False)})
    assert (found.failed, pure.ending(found)) == (0, None)
    tracked = tracking.track(found, found.job.status, None)
    assert (names(tracked.let_go), tracked.status.uncounted_terminated_pods) == (["a"], tracking.Uncounted())
    ends = facts(job(), pod("a", "Failed"), verdicts={"a": Verdict("FailJob", message="why")})
    told = pure.ending(ends)
    assert told is not None
    assert (told.reason, told.message) == ("PodFailurePolicy", "why")


def test_success_may_be_met_by_some_indexes():
    found = facts(
        indexed(successPolicy={"rules": [{"succeededIndexes": "0"}]}), pod("a", "Succeeded", index=0), pod("b", index=1)
    )
    told = pure.ending(found)
    assert told is not None
    assert (told.type, told.reason) == ("SuccessCriteriaMet", "SuccessPolicy")
    tracked = tracking.track(found, found.job.status, told)
    assert (tracked.status.succeeded, tracked.status.uncounted_terminated_pods) == (1, tracking.Uncounted())
    assert names(tracked.let_go) == ["a", "b"]


@pytest.mark.parametrize("stop", range(4))
def test_each_pod_is_counted_once_wherever_the_controller_ends(stop):
    """The steps: note, let go, count. It ends after each of them, and another begins with what stands."""
    status, gone = JobStatus(), set[str]()
    for turn in range(6):
        cut = stop if turn == 0 else 9
        pods = [pod(uid, phase, held=uid not in gone) for uid, phase in (("a", "Succeeded"), ("b", "Failed"))]
        found = pure.facts_of(job(status=msgspec.to_builtins(status)), pods, {}, Backoff(), NOW)
        tracked = tracking.track(found, found.job.status, None)
        if cut < 1:
            continue
        status = tracked.status
        if cut < 2:
            continue
        gone |= {one.metadata.uid for one in tracked.let_go[: 1 if cut == 2 else None]}
        if cut == 2:
            continue
        status = tracking.counted(status, {"a", "b"} - gone)
    assert (status.succeeded, status.failed) == (1, 1)
    assert status.uncounted_terminated_pods == tracking.Uncounted()


def test_a_job_ends_when_nothing_is_left_to_count_or_to_go():
    found = facts(job(completions=1), pod("a", "Succeeded"))
    met = pure.said("SuccessCriteriaMet", "CompletionsReached", "m", NOW)
    tracked = tracking.track(found, found.job.status, met)
    assert [c.type for c in tracked.status.conditions or ()] == ["SuccessCriteriaMet"]
    assert tracking.ended(found, tracked.status, tracked) is None
    done = tracking.counted(tracked.status, set())
    waiting = msgspec.structs.replace(done, terminating=1)
    assert tracking.ended(found, waiting, tracked) is None
    end = tracking.ended(found, done, tracked)
    assert end is not None
    assert [c.type for c in end.conditions or ()] == ["SuccessCriteriaMet", "Complete"]
    assert end.completion_time == "2026-05-01T12:00:30Z"


def test_no_status_grows_without_bound():
    found = facts(job(completions=None), *(pod(f"p{n}", "Failed") for n in range(700)))
    tracked = tracking.track(found, found.job.status, None)
    assert (len(tracked.let_go), tracked.more) == (tracking.MOST, True)


def test_what_takes_long_is_decided_beside_the_loop():
    assert not pure.is_large(job(), [pod("a")])
    assert pure.is_large(job(), [pod(f"p{n}") for n in range(501)])
    assert pure.is_large(indexed(status={"completedIndexes": ",".join(str(n) for n in range(0, 4000, 2))}), [])
    rules = {"rules": [{"succeededIndexes": "0-1," * 2000}]}
    assert pure.is_large(indexed(successPolicy=rules), [])


def test_suspension_is_told_once():
    told = pure.suspension(job(suspend=True), NOW)
    assert told is not None
    assert (told.status, told.reason) == ("True", "JobSuspended")
    known = {"conditions": [{"type": "Suspended", "status": "True"}]}
    assert pure.suspension(job(suspend=True, status=known), NOW) is None
    again = pure.suspension(job(status=known), NOW)
    assert again is not None
    assert again.reason == "JobResumed"
    assert pure.suspension(job(), NOW) is None
