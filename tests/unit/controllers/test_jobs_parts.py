"""Indexes, failures, back-off and the pods that are made: the small pure parts of Jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.batch import FailurePolicy, Job, SuccessPolicy
from polder.api.core import Pod
from polder.api.podfacts import ControlledPod
from polder.controllers.jobs_failures import Backoff, Verdict, finished_at, judge, succeeded_by
from polder.controllers.jobs_indexes import Indexes, parse_indexes
from polder.controllers.jobs_making import FAILURES, IGNORED, INDEX, indexed_pod_of, pod_of

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_indexes_are_a_set_however_they_are_written(some, others):
    mine, theirs = Indexes().with_(some), Indexes().with_(others)
    assert {n for n in range(45) if n in mine} == some
    assert len(mine) == len(some)
    assert mine.shared(theirs) == len(some & others)
    assert list(mine.missing(30)) == [n for n in range(30) if n not in some]
    assert mine.merged(theirs.ranges) == Indexes().with_(some | others)
    assert parse_indexes(str(mine), 100) == mine


@pytest.mark.parametrize(
    ("text", "wanted"), [("", ""), ("1,2,3", "1-3"), ("0-1,5", "0,1,5"), ("3-99", "3-9"), ("12", ""), ("x,2,-", "2")]
)
def test_indexes_are_read_below_the_total(text, wanted):
    assert str(parse_indexes(text, 10)) == wanted


def pod(**status: Any) -> Pod:
    meta = {"name": "p", "namespace": "shop", "uid": "u"}
    return msgspec.convert({"metadata": meta, "status": {"phase": "Failed", **status}}, Pod)


def ended(name: str, code: int) -> dict[str, Any]:
    return {"name": name, "state": {"terminated": {"exitCode": code}}}


def policy(*rules: dict[str, Any]) -> FailurePolicy:
    return msgspec.convert({"rules": list(rules)}, FailurePolicy)


def test_the_first_rule_that_fits_decides():
    on_three = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3], "containerName": "main"}}
    others = {"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [3, 4]}}
    moved = {"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    rules = policy(on_three, others, moved)
    failed = judge(rules, pod(containerStatuses=[ended("main", 3)]))
    words = "Container main for pod shop/p failed with exit code 3 matching FailJob rule at index 0"
    assert failed == Verdict("FailJob", True, words)
    assert judge(rules, pod(containerStatuses=[ended("side", 3)])) == Verdict()
    assert judge(rules, pod(containerStatuses=[ended("side", 0), ended("main", 9)])) == Verdict("Ignore", False)
    assert judge(rules, pod(initContainerStatuses=[ended("main", 3)])).action == "FailJob"
    target = [{"type": "DisruptionTarget", "status": "True"}]
    assert judge(rules, pod(conditions=target, containerStatuses=[ended("main", 4)])).action == "FailIndex"
    assert judge(policy({**moved, "action": "FailJob"}), pod(conditions=target)).message == (
        "Pod shop/p has condition DisruptionTarget matching FailJob rule at index 0"
    )
    assert judge(None, pod()) == Verdict()


def test_success_is_met_by_indexes_or_a_number_of_them():
    rules = {"rules": [{"succeededIndexes": "0,4-5", "succeededCount": 2}, {"succeededCount": 4}]}
    wanted = msgspec.convert(rules, SuccessPolicy)
    assert succeeded_by(wanted, 10, Indexes().with_([4])) == ""
    assert succeeded_by(wanted, 10, Indexes().with_([4, 5])) == "Matched rules at index 0"
    assert succeeded_by(wanted, 10, Indexes().with_([1, 2, 3, 6])) == "Matched rules at index 1"
    assert succeeded_by(wanted, 10, Indexes()) == ""


def known(**parts: Any) -> ControlledPod:
    return msgspec.convert(parts, ControlledPod)


def test_a_pod_ended_when_its_last_container_did():
    def state(at: str) -> dict[str, Any]:
        return {"state": {"terminated": {"finishedAt": at}}}

    both = [state("2026-05-01T12:00:00Z"), state("2026-05-01T12:00:09Z")]
    unready = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-05-01T12:00:03Z"}]
    assert finished_at(known(status={"containerStatuses": both})) == AT + timedelta(seconds=9)
    running = [*both, {"state": {"running": {}}}]
    assert finished_at(known(status={"containerStatuses": running, "conditions": unready})) == AT + timedelta(seconds=3)
    going = {"deletionTimestamp": "2026-05-01T12:00:30Z", "deletionGracePeriodSeconds": 30}
    assert finished_at(known(metadata=going)) == AT


def test_a_new_try_waits_twice_as_long_each_time_and_success_ends_that():
    def failed(second: int) -> ControlledPod:
        at = (AT + timedelta(seconds=second)).isoformat()
        return known(status={"containerStatuses": [{"state": {"terminated": {"finishedAt": at}}}]})

    once = Backoff().after([], [failed(0)])
    assert once.wait(AT + timedelta(seconds=4)) == 6
    assert once.wait(AT + timedelta(seconds=11)) == 0
    thrice = once.after([], [failed(1), failed(2)])
    assert thrice.wait(AT + timedelta(seconds=2)) == 40
    assert Backoff(40, AT).wait(AT) == 600
    assert thrice.after([failed(9)], []) == Backoff()
    assert thrice.after([failed(9)], [failed(8), failed(10)]) == Backoff(1, AT + timedelta(seconds=10))


@pytest.mark.parametrize("skew", [-300, 300])
def test_five_minutes_of_skew_make_no_wait_longer(skew):
    assert Backoff(1, AT + timedelta(seconds=skew)).wait(AT) <= 10


def job(**spec: Any) -> Job:
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"x": "y"}},
        "spec": {
            "containers": [
                {"name": "c", "env": [{"name": "E"}]},
                {"name": "d", "env": [{"name": "JOB_COMPLETION_INDEX"}]},
            ]
        },
    }
    meta = {"name": "sum", "namespace": "shop", "uid": "j"}
    return msgspec.convert({"metadata": meta, "spec": {"template": template, **spec}}, Job)


def test_a_pod_is_held_and_owned():
    meta = pod_of(job())["metadata"]
    assert meta["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert (meta["generateName"], meta["ownerReferences"][0]["uid"]) == ("sum-", "j")


def test_an_indexed_pod_knows_its_number():
    made = indexed_pod_of(job(), 7, None)
    meta, spec = made["metadata"], made["spec"]
    assert (meta["labels"], meta["annotations"]) == ({"a": "b", INDEX: "7"}, {"x": "y", INDEX: "7"})
    assert (meta["generateName"], spec["hostname"]) == ("sum-7-", "sum-7")
    told = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}}
    assert [c["env"] for c in spec["containers"]] == [[{"name": "E"}, told], [{"name": "JOB_COMPLETION_INDEX"}]]
    long = msgspec.structs.replace(job(), metadata=msgspec.structs.replace(job().metadata, name="x" * 63))
    assert indexed_pod_of(long, 12, None)["metadata"]["generateName"] == "x" * 54 + "-12-"


def test_the_next_pod_of_an_index_knows_how_often_it_failed():
    per_index = job(backoffLimitPerIndex=3)
    first = indexed_pod_of(per_index, 0, None)["metadata"]["annotations"]
    assert (first[FAILURES], IGNORED in first) == ("0", False)
    before = known(metadata={"annotations": {FAILURES: "1", IGNORED: "2"}})
    again = indexed_pod_of(per_index, 0, before)["metadata"]["annotations"]
    assert (again[FAILURES], again[IGNORED]) == ("2", "2")
    ignored = indexed_pod_of(per_index, 0, before, Verdict("Ignore", False))["metadata"]["annotations"]
    assert (ignored[FAILURES], ignored[IGNORED]) == ("1", "3")
