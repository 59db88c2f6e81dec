"""What happens wakes those whom it may help, and nobody else."""

from __future__ import annotations

from typing import Any

import msgspec

from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.scheduler.backlog import Backlog
from polder.scheduler.cluster import AROUND, PODS, PORTS, Cluster
from polder.scheduler.intake import Intake
from polder.scheduler.nodes import facts_of
from tests.unit.scheduler.make import cluster, container, demand, node, place, pod


def wakes(state: Cluster) -> set[Any]:
    found, state.wakes = state.wakes, set()
    return found


def test_a_node_wakes_for_what_it_has_more_of() -> None:
    state = cluster(node("one"))
    state.set_node(facts_of(node("one")))
    assert wakes(state) == set()
    state.set_node(facts_of(node("one", allocatable={"cpu": "8"})))
    assert wakes(state) == {("cpu", None)}
    state.set_node(facts_of(node("one", allocatable={"cpu": "2"})))
    assert wakes(state) == set(), "less is no news for those who wait"
    for changed in (node("one", labels={"a": "b"}), node("one", unschedulable=True), node("two")):
        state.set_node(facts_of(changed))
        assert wakes(state) == {("", None)}


def test_a_pod_that_goes_wakes_for_what_it_had() -> None:
    state = cluster(node("one"))
    port = {"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}], "resources": {"requests": {"x.dev/y": "1"}}}
    place(state, demand("a", "acme", container("c", cpu="1")), "one")
    place(state, demand("b", "root", port), "one")
    assert wakes(state) == {(AROUND, "acme"), (AROUND, "root")}
    state.free_pod("acme-a")
    assert (PODS, None) in state.wakes and ("cpu", None) in state.wakes and (PORTS, None) not in wakes(state)
    state.free_pod("root-b")
    assert {(PORTS, None), ("x.dev/y", None)} <= wakes(state)
    state.free_pod("root-b")
    assert wakes(state) == set()


def test_intake_follows_a_pod_through_its_life() -> None:
    state, backlog = cluster(node("one")), Backlog()
    intake = Intake(state, backlog)
    pending = pod("web", "acme", container("a", cpu="1"))
    assert intake.on_pod(None, pending) is not None and len(backlog) == 1
    gated = pod("web", "acme", schedulingGates=[{"name": "g"}])
    assert intake.on_pod(pending, gated) is None and len(backlog) == 0
    bound = pod("web", "acme", container("a", cpu="1"), nodeName="one", status={"phase": "Running"})
    intake.on_pod(gated, bound)
    assert state.usage("one").requests["cpu"] == 1000
    before = state.moves
    intake.on_pod(bound, pod("web", "acme", container("a", cpu="1"), nodeName="one", status={"phase": "Pending"}))
    assert state.moves == before, "nothing that counts has changed"
    held = [{"name": "a", "resources": {"requests": {"cpu": "2"}}}]
    resized = pod("web", "acme", container("a", cpu="1"), nodeName="one", status={"containerStatuses": held})
    intake.on_pod(bound, resized)
    assert state.usage("one").requests["cpu"] == 2000
    ended = pod("web", "acme", container("a", cpu="1"), nodeName="one", status={"phase": "Succeeded"})
    intake.on_pod(resized, ended)
    assert state.usage("one").pods == 0
    intake.on_pod(ended, None)
    assert state.placement("acme-web") is None


def test_a_pod_of_the_same_name_is_another_pod() -> None:
    state, backlog = cluster(node("one")), Backlog()
    intake = Intake(state, backlog)
    old = pod("web", nodeName="one", status={"phase": "Running"})
    intake.on_pod(None, old)
    new = pod("web", "acme", labels={"new": "yes"})
    new = msgspec.structs.replace(new, metadata=msgspec.structs.replace(new.metadata, uid="other"))
    intake.on_pod(old, new)
    assert state.usage("one").pods == 0 and "other" in backlog


def test_a_node_whose_status_cannot_be_read_takes_no_pods() -> None:
    state = cluster()
    intake = Intake(state, Backlog())
    intake.on_node(Ref(ROOT, "", "one"), None, node("one"))
    assert len(state) == 1
    intake.on_node(Ref(ROOT, "", "one"), None, node("one", allocatable={"cpu": "much"}))
    assert len(state) == 0


def test_what_a_status_names_is_a_nomination_of_the_tenant_s_own() -> None:
    state = cluster(node("one"))
    intake = Intake(state, Backlog())
    intake.on_pod(None, pod("web", status={"nominatedNodeName": "one"}))
    known = state.nomination("acme-web")
    assert known is not None and (known.node, known.earned) == ("one", False)
