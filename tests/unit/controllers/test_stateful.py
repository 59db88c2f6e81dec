"""Which pod of a StatefulSet comes, goes or waits next."""

import time
from datetime import UTC, datetime
from typing import Any

from polder.api.meta import LabelSelector, ObjectMeta, OwnerReference
from polder.api.podfacts import ConditionFacts, ControlledPod, ControlledStatus
from polder.api.sets import ClaimRetention, Ordinals, SetStrategy, SetUpdate, StatefulSet, StatefulSetSpec
from polder.controllers.stateful_pure import (
    Owners,
    View,
    claims_of,
    most_away,
    ordinal_of,
    plan,
    pod_of,
    status_of,
)

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
SET = OwnerReference(api_version="apps/v1", kind="StatefulSet", name="db", uid="s", controller=True)


def pod(
    number: int, revision: str = "new", phase: str = "Running", ready: bool = True, going: bool = False
) -> ControlledPod:
    name = f"db-{number}"
    labels = {"statefulset.kubernetes.io/pod-name": name, "controller-revision-hash": revision}
    meta = ObjectMeta(name=name, uid=name, labels=labels, deletion_timestamp="2026-01-01T00:00:00Z" if going else None)
    said = ConditionFacts(type="Ready", status=str(ready), last_transition_time="2026-01-01T00:00:30Z")
    return ControlledPod(metadata=meta, status=ControlledStatus(phase=phase, conditions=[said]))


def view(replicas: int, *pods: ControlledPod, **spec: Any) -> View:
    found = {int(p.metadata.name.rpartition("-")[2]): p for p in pods}
    stateful = StatefulSet(metadata=ObjectMeta(name="db", uid="s"), spec=StatefulSetSpec(replicas=replicas, **spec))
    return View(stateful, "old", "new", found, NOW)


def steps(found: View) -> list[list[str]]:
    kinds = ("create", "delete", "claims", "identity")
    stages = ([f"{s.kind} {s.ordinal}" for s in stage if s.kind in kinds] for stage in plan(found))
    return [stage for stage in stages if stage]


PARALLEL = {"pod_management_policy": "Parallel"}


def test_names_of_pods():
    assert ordinal_of("db", "db-0") == 0
    assert ordinal_of("db", "db-10") == 10
    assert ordinal_of("a-b", "a-b-3") == 3
    for name in ("db", "db-", "db-x", "db-01", "db--1", "other-1", "db-1-2", "db-99999999999", "db-\u0661"):
        assert ordinal_of("db", name) is None


def test_in_order_each_waits_for_the_one_before():
    assert steps(view(3)) == [["create 0"]]
    assert steps(view(3, pod(0))) == [["create 1"]]
    assert steps(view(3, pod(0), pod(1, ready=False))) == []
    assert steps(view(3, pod(0, phase="Pending", ready=False))) == [["claims 0"]]
    assert steps(view(3, pod(0), pod(1, going=True))) == [], "a name is free when its pod is gone, not before"
    assert steps(view(3, pod(0), pod(2))) == [["create 1"]]


def test_what_failed_goes_before_it_comes_again():
    assert steps(view(2, pod(0, phase="Failed", ready=False))) == [["delete 0"]]
    assert steps(view(2, pod(0, phase="Succeeded", ready=False, going=True))) == []


def test_in_parallel_nobody_waits():
    assert steps(view(3, pod(1, ready=False), **PARALLEL)) == [["create 0", "create 2"]]
    assert steps(view(1, pod(0), pod(1), pod(2, going=True), **PARALLEL)) == [["delete 1"]]


def test_the_highest_goes_first_and_only_while_the_others_are_well():
    assert steps(view(1, pod(0), pod(1), pod(2))) == [["delete 2"]]
    assert steps(view(1, pod(0, ready=False), pod(1))) == []
    assert steps(view(1, pod(0), pod(1), pod(2, going=True))) == []
    assert steps(view(1, pod(0), pod(1), pod(2, ready=False))) == [["delete 2"]]
    assert steps(view(1, pod(0), pod(1, ready=False), pod(2, ready=False))) == [], (
        "the lowest that is not well comes first"
    )


def test_ordinals_may_begin_higher():
    from_three = {"ordinals": Ordinals(start=3)}
    assert steps(view(2, pod(3), **from_three)) == [["create 4"]]
    assert steps(view(2, pod(3), pod(4), pod(0), **from_three)) == [["delete 0"]]


def test_a_pod_counts_when_it_was_ready_for_long_enough():
    assert steps(view(2, pod(0), min_ready_seconds=31)) == []
    assert steps(view(2, pod(0), min_ready_seconds=30)) == [["create 1"]]


def rolling(partition: int = 0, most: int | str | None = None) -> dict[str, Any]:
    return {"update_strategy": SetStrategy(rolling_update=SetUpdate(partition=partition, max_unavailable=most))}


def test_an_update_goes_down_one_by_one_to_the_partition():
    old = [pod(number, "old") for number in range(3)]
    assert steps(view(3, *old, **rolling())) == [["delete 2"]]
    assert steps(view(3, *old[:2], pod(2), **rolling())) == [["delete 1"]]
    assert steps(view(3, *old[:2], pod(2), **rolling(2))) == []
    assert steps(view(3, *old, update_strategy=SetStrategy(type="OnDelete"))) == []
    waiting = view(3, *old[:2], pod(2, ready=False), **rolling(), **PARALLEL)
    assert steps(waiting) == []


def test_several_may_be_away_where_that_is_wanted():
    old = [pod(number, "old") for number in range(4)]
    assert steps(view(4, *old, **rolling(0, 2))) == [["delete 3", "delete 2"]]
    assert steps(view(4, *old[:3], pod(3, ready=False), **rolling(0, 2), **PARALLEL)) == [["delete 2"]]
    assert (most_away("30%", 10), most_away("1%", 10), most_away(4, 10)) == (3, 1, 4)


def test_below_the_partition_pods_are_made_of_the_former_revision():
    made = {s.ordinal: s.revision for s in plan(view(3, **rolling(2), **PARALLEL))[0]}
    assert made == {0: "old", 1: "old", 2: "new"}
    whole = {s.ordinal: s.revision for s in plan(view(2, **rolling(), **PARALLEL))[0]}
    assert set(whole.values()) == {"new"}


def test_the_status_counts_and_ends_an_update():
    found = status_of(view(3, pod(0, "old"), pod(1, ready=False), pod(2, going=True), **rolling()), 0)
    assert (found.replicas, found.ready_replicas, found.current_replicas, found.updated_replicas) == (3, 2, 1, 1)
    assert found.current_revision == "old"
    done = status_of(view(2, pod(0), pod(1), **rolling()), 0)
    assert (done.current_revision, done.current_replicas, done.updated_replicas) == ("new", 2, 2)


CLAIM = {"metadata": {"name": "data", "labels": {"tier": "db"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}


def test_a_pod_has_its_identity_and_its_claims():
    found = view(
        1, service_name="db", volume_claim_templates=[CLAIM], selector=LabelSelector(match_labels={"app": "db"})
    )
    template = {"metadata": {"labels": {"app": "db"}}, "spec": {"volumes": [{"name": "data"}, {"name": "other"}]}}
    made = pod_of(found.stateful, SET, template, 4, "new")
    assert (made["spec"]["hostname"], made["spec"]["subdomain"], made["metadata"]["name"]) == ("db-4", "db", "db-4")
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-4"}}
    assert made["spec"]["volumes"] == [claim, {"name": "other"}]
    (body,) = [c.body for c in claims_of(found.stateful, 4)]
    assert body["metadata"] == {"name": "data-db-4", "labels": {"tier": "db", "app": "db"}}


POD = OwnerReference(api_version="v1", kind="Pod", name="db-0", uid="p")


def owners(deleted: str, scaled: str, in_range: bool = True) -> Owners:
    return Owners(SET, POD, ClaimRetention(when_deleted=deleted, when_scaled=scaled), in_range)


def kinds(found: list[OwnerReference] | None) -> list[str] | None:
    return None if found is None else [ref.kind for ref in found]


def test_claims_are_owned_as_the_policy_says():
    assert owners("Retain", "Retain").wanted([]) is None
    assert kinds(owners("Delete", "Retain").wanted([])) == ["StatefulSet"]
    assert kinds(owners("Delete", "Delete").wanted([])) == ["StatefulSet"]
    assert kinds(owners("Delete", "Delete", False).wanted([])) == ["Pod"]
    assert owners("Retain", "Delete").wanted([]) is None
    (made,) = owners("Delete", "Retain").wanted([]) or []
    assert owners("Delete", "Retain").wanted([made]) is None
    assert owners("Retain", "Retain").wanted([made]) == []
    other = OwnerReference(api_version="v1", kind="ConfigMap", name="c", uid="c", controller=True)
    assert owners("Delete", "Retain").wanted([other]) is None, "somebody else manages it"
    earlier = OwnerReference(api_version="v1", kind="Pod", name="db-0", uid="earlier")
    assert owners("Delete", "Delete").wanted([earlier]) is None
    assert owners("Retain", "Delete").is_stale([earlier])
    assert not owners("Retain", "Retain").is_stale([earlier])


def test_a_set_of_a_billion_is_planned_a_few_at_a_time():
    begun = time.monotonic()
    assert len(plan(view(10**9, **PARALLEL))[0]) == 500
    assert steps(view(10**9, pod(0, "old"), **rolling(0, "50%"))) == [["create 1"]]
    assert most_away("50%", 10**9) == 5 * 10**8
    assert time.monotonic() - begun < 1
