"""On which nodes a daemon ought to be, and how a template is rolled out over them."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from polder.api.core import Taint
from polder.api.meta import ObjectMeta, OwnerReference
from polder.api.podfacts import ConditionFacts, ControlledPod, ControlledSpec, ControlledStatus, TargetAffinity
from polder.api.podspec import Toleration
from polder.api.sets import DaemonPlace, DaemonSet, DaemonSetSpec, DaemonStrategy
from polder.api.workloads import RollingUpdate
from polder.controllers.daemons_pure import Fitting, Place, View, by_node, manage, pod_of, roll, status_of, target_of

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
OWNER = OwnerReference(api_version="apps/v1", kind="DaemonSet", name="every", uid="d")
ALL = (True, True)


def pod(
    node: str, mark: str = "new", ready: bool = True, phase: str = "Running", going: bool = False, name: str = ""
) -> ControlledPod:
    meta = ObjectMeta(
        name=name or f"{node}-{mark}", uid=name or f"{node}-{mark}", labels={"controller-revision-hash": mark},
        deletion_timestamp="2026-01-01T00:00:00Z" if going else None, creation_timestamp="2026-01-01T00:00:00Z",
    )  # fmt: skip
    said = ConditionFacts(type="Ready", status=str(ready), last_transition_time="2026-01-01T00:00:30Z")
    spec = ControlledSpec(node_name=node)
    return ControlledPod(metadata=meta, spec=spec, status=ControlledStatus(phase=phase, conditions=[said]))


def view(nodes: dict[str, tuple[bool, bool]], *pods: ControlledPod, surge: Any = 0, away: Any = 1, **spec: Any) -> View:
    strategy = DaemonStrategy(rolling_update=RollingUpdate(max_surge=surge, max_unavailable=away))
    daemons = DaemonSet(metadata=ObjectMeta(name="every"), spec=DaemonSetSpec(**{"update_strategy": strategy, **spec}))
    wanted = frozenset(name for name, (should, _) in nodes.items() if should)
    return View(daemons, "new", nodes, by_node(pods), NOW, wanted)


def names(pods: list[ControlledPod]) -> list[str]:
    return sorted(p.metadata.name for p in pods)


def three(mark: str, **more: Any) -> list[ControlledPod]:
    return [pod(name, mark, **more) for name in "abc"]


THREE = dict.fromkeys("abc", ALL)


def test_a_node_fits_by_name_labels_affinity_and_taints():
    node = Place("a", {"color": "blue"})
    assert Fitting(DaemonPlace())(node) == (True, True)
    assert Fitting(DaemonPlace(node_name="b"))(node) == (False, False)
    assert Fitting(DaemonPlace(node_selector={"color": "red"}))(node) == (False, False)
    term = {"matchExpressions": [{"key": "color", "operator": "NotIn", "values": ["blue"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert Fitting(msgspec.convert({"affinity": {"nodeAffinity": required}}, DaemonPlace))(node) == (False, False)
    off = Place("a", {}, (Taint(key="own", effect="NoSchedule"),))
    out = Place("a", {}, (Taint(key="own", effect="NoExecute"),))
    assert Fitting(DaemonPlace())(off) == (False, True), "a pod that is there stays"
    assert Fitting(DaemonPlace())(out) == (False, False)
    assert Fitting(DaemonPlace(tolerations=[Toleration(operator="Exists")]))(out) == (True, True)
    cut = Place("a", {}, tuple(Taint(key=f"node.kubernetes.io/{key}", effect=effect) for key, effect in (
        ("unreachable", "NoExecute"), ("unschedulable", "NoSchedule"), ("memory-pressure", "NoSchedule"))))  # fmt: skip
    assert Fitting(DaemonPlace())(cut) == (True, True), "daemons bear what is wrong with a node"
    network = Place("a", {}, (Taint(key="node.kubernetes.io/network-unavailable", effect="NoSchedule"),))
    assert Fitting(DaemonPlace())(network) == (False, True)
    assert Fitting(DaemonPlace(host_network=True))(network) == (True, True)


def test_missing_pods_come_and_misplaced_ones_go():
    work = manage(view({"a": ALL, "b": (False, True), "c": (False, False)}, pod("b"), pod("c")), lambda _: True)
    assert (work.create, names(work.delete)) == (["a"], ["c-new"])
    assert not manage(view({"a": ALL}, pod("a", going=True)), lambda _: True), "it waits until the pod is gone"


def test_of_several_the_oldest_stays_and_the_failed_go_when_they_may():
    work = manage(view({"a": ALL}, pod("a", name="y"), pod("a", name="x")), lambda _: True)
    assert names(work.delete) == ["y"]
    failed = view({"a": ALL}, pod("a", phase="Failed", ready=False))
    assert names(manage(failed, lambda _: True).delete) == ["a-new"]
    assert not manage(failed, lambda _: False)


def test_a_pod_for_a_node_that_is_gone_goes():
    field = {"key": "metadata.name", "operator": "In", "values": ["gone"]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    raw = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    waiting = ControlledPod(spec=ControlledSpec(affinity=msgspec.convert(raw, TargetAffinity)))
    assert target_of(waiting) == "gone"
    assert manage(view({}, waiting), lambda _: True).delete == [waiting]


def test_a_template_replaces_pods_within_the_number_that_may_be_away():
    old = three("old")
    assert len(roll(view(THREE, *old)).delete) == 1
    assert len(roll(view(THREE, *old, away="50%")).delete) == 2
    assert not roll(view(THREE, pod("a", ready=False), *old[1:])), "the new one is not there yet"
    bad = [pod("a", "old", ready=False), *old[1:]]
    assert names(roll(view(THREE, *bad)).delete) == ["a-old"], "what is away anyway goes first"
    assert not roll(view(THREE, *old, update_strategy=DaemonStrategy(type="OnDelete")))
    assert not roll(view(THREE, *three("new")))


def test_with_surge_the_new_comes_first():
    old = three("old")
    first = roll(view(THREE, *old, surge=1, away=0))
    assert (len(first.create), first.delete) == (1, [])
    waiting = view(THREE, *old, pod("a", ready=False), surge=1, away=0)
    assert not roll(waiting)
    assert not manage(waiting, lambda _: True)
    there = view(THREE, *old, pod("a"), surge=1, away=0)
    assert names(manage(there, lambda _: True).delete) == ["a-old"]
    gone_bad = view(THREE, pod("a", "old", ready=False), *old[1:], surge=1, away=0)
    assert sorted(roll(gone_bad).create) == ["a", *sorted(set(roll(gone_bad).create) - {"a"})]


def test_a_pod_counts_when_it_was_ready_for_long_enough():
    found = status_of(view(THREE, *three("new"), min_ready_seconds=31), None)
    assert (found.number_ready, found.number_available, found.number_unavailable) == (3, 0, 3)
    assert not roll(view(THREE, *three("old")[:2], pod("c"), min_ready_seconds=31)).create


def test_the_status_counts_nodes():
    nodes = {"a": ALL, "b": ALL, "c": (False, True)}
    found = status_of(view(nodes, pod("a", "old"), pod("c")), 2)
    assert (found.desired_number_scheduled, found.current_number_scheduled, found.number_misscheduled) == (2, 1, 1)
    assert (found.updated_number_scheduled, found.number_ready, found.collision_count) == (0, 1, 2)


def test_a_pod_is_made_for_its_node_and_keeps_its_other_wishes():
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {}}]}
    spec = {"affinity": {"nodeAffinity": {**preferred, "requiredDuringSchedulingIgnoredDuringExecution": {}}},
            "tolerations": [{"key": "mine", "operator": "Exists"}]}  # fmt: skip
    found = view(THREE, template={"metadata": {"labels": {"app": "x"}}, "spec": spec})
    made = pod_of(found, msgspec.convert(spec, DaemonPlace), OWNER, "b")
    affinity = made["spec"]["affinity"]["nodeAffinity"]
    field = {"key": "metadata.name", "operator": "In", "values": ["b"]}
    assert affinity == {
        **preferred,
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [field]}]},
    }
    assert made["spec"]["tolerations"][0] == {"operator": "Exists", "key": "mine"}
    assert made["metadata"]["labels"] == {"app": "x", "controller-revision-hash": "new"}
