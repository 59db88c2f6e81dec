"""Nodes that fall silent, and what becomes of their pods."""

from polder.api.core import Node, NodeCondition, NodeSpec, NodeStatus, Taint
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta
from polder.api.podfacts import ControlledPod, ControlledStatus
from polder.api.podspec import Toleration
from polder.base.ids import ROOT, TenantName
from polder.controllers.node_health import is_out_of_service, keeping_off, wanted_taints
from polder.controllers.node_zones import Rates, Zones, zone_of
from polder.controllers.nodeviews import place_for
from polder.controllers.pods import surplus
from polder.controllers.taints_pure import seconds_to_stay

ACME = TenantName("acme")


def node(ready: str | None, *taints: Taint, unschedulable: bool = False, **held: str) -> Node:
    conditions = [NodeCondition(type="Ready", status=ready)] if ready else []
    conditions += [NodeCondition(type=name, status=status) for name, status in held.items()]
    spec = NodeSpec(taints=list(taints) or None, unschedulable=unschedulable)
    return Node(metadata=ObjectMeta(name="one"), spec=spec, status=NodeStatus(conditions=conditions))


def names(taints: list[Taint] | None) -> set[tuple[str, str]]:
    return {(t.key.removeprefix("node.kubernetes.io/"), t.effect) for t in taints or ()}


def test_new_pods_are_kept_off_at_once_and_old_ones_when_it_is_the_node_s_turn():
    own = Taint(key="mine", effect="NoSchedule")
    assert wanted_taints(node("True", own), "t", "never") is None
    held = wanted_taints(node("Unknown", own), "t", "hold")
    assert names(held) == {("mine", "NoSchedule"), ("unreachable", "NoSchedule")}
    gone = wanted_taints(node("Unknown", *(held or ())), "t", "go")
    assert names(gone) == names(held) | {("unreachable", "NoExecute")}
    assert wanted_taints(node("Unknown", *(gone or ())), "later", "hold") is None, "what is there stays"
    changed = wanted_taints(node("False", *(gone or ())), "t", "hold")
    assert names(changed) == {("mine", "NoSchedule"), ("not-ready", "NoSchedule"), ("not-ready", "NoExecute")}
    assert names(wanted_taints(node("Unknown", *(gone or ())), "t", "never")) == names(held)
    assert wanted_taints(node("True", *(gone or ())), "t", "never") == [own]


def test_pressure_and_a_cordon_keep_new_pods_off():
    found = keeping_off(node("True", unschedulable=True, MemoryPressure="True", DiskPressure="False"))
    assert found == {"node.kubernetes.io/unschedulable", "node.kubernetes.io/memory-pressure"}
    left = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    assert wanted_taints(node("True", left), "t", "never") == []


def test_a_node_that_has_said_nothing_yet_has_no_taint_for_it():
    left = Taint(key="node.kubernetes.io/unreachable", effect="NoExecute")
    assert keeping_off(node(None, unschedulable=True)) == {"node.kubernetes.io/unschedulable"}
    assert wanted_taints(node(None), "t", "go") is None
    assert wanted_taints(node(None, left), "t", "hold") == []


def test_out_of_service_counts_only_while_the_node_is_not_ready():
    taint = Taint(key="node.kubernetes.io/out-of-service", value="x", effect="NoExecute")
    assert is_out_of_service(node("Unknown", taint))
    assert not is_out_of_service(node("True", taint))
    assert not is_out_of_service(node("Unknown"))


def test_one_node_after_the_other():
    zones = Zones(Rates(normal=0.1), 40)
    for name in ("c", "d", "a", "b"):
        zones.see(name, "z", name not in "ab", 0)
    assert zones.may_evict("a", 0) == "go"
    assert zones.may_evict("b", 9.9) == "hold"
    assert zones.may_evict("b", 10) == "go"


def test_a_zone_in_trouble_keeps_its_pods_and_a_large_one_goes_slowly():
    zones = Zones(Rates(), 40)
    for number in range(5):
        zones.see(f"s{number}", "small", number < 2, 0)
    for number in range(60):
        zones.see(f"l{number}", "large", number < 20, 0)
    zones.see("n", "normal", False, 0)
    zones.see("m", "normal", True, 0)
    assert (zones.rate("small"), zones.rate("large"), zones.rate("normal")) == (0.0, 0.01, 0.1)
    assert zones.may_evict("s4", 1000) == "hold"
    assert zones.may_evict("l59", 0) == "go"
    assert zones.may_evict("l58", 99) == "hold"
    assert zones.may_evict("n", 0) == "go"


def test_while_no_node_is_ready_none_is_emptied_nor_right_after():
    zones = Zones(Rates(), 40)
    zones.see("a", "", False, 0)
    zones.see("b", "", False, 0)
    assert zones.is_dark
    assert zones.may_evict("a", 100) == "never"
    zones.see("b", "", True, 100)
    assert zones.may_evict("a", 139) == "hold"
    assert zones.may_evict("a", 140) == "go"
    zones.forget("b")
    assert zones.is_dark
    zones.forget("a")
    assert not zones.is_dark


def test_a_zone_s_name_has_its_region():
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
    assert zone_of(Node(metadata=ObjectMeta(labels=labels))) == "r:z"
    assert zone_of(Node(metadata=ObjectMeta())) == ""


def test_a_pod_stays_as_long_as_it_bears_all_taints():
    cut, own = Taint(key="cut", effect="NoExecute"), Taint(key="own", value="x", effect="NoExecute")
    for_ever = Toleration(key="own", value="x")
    a_while = Toleration(key="cut", operator="Exists", toleration_seconds=300)
    assert seconds_to_stay([cut, own], [a_while]) == 0
    assert seconds_to_stay([cut, own], [a_while, for_ever]) == 300
    assert seconds_to_stay([own], [a_while, for_ever]) is None
    assert seconds_to_stay([cut], [Toleration(key="cut", operator="Exists", toleration_seconds=-5)]) == 0
    shorter = Toleration(operator="Exists", toleration_seconds=7)
    assert seconds_to_stay([cut, own], [a_while, shorter]) == 7


def test_a_tenant_finds_labels_that_it_sees_and_taints_of_all():
    root = Node(
        metadata=ObjectMeta(name="one", labels={"kubernetes.io/os": "linux", "rack": "r1"}),
        spec=NodeSpec(taints=[Taint(key="theirs", effect="NoSchedule")]),
    )
    put = Node(
        metadata=ObjectMeta(name="one", labels={"rack": "mine", "kubernetes.io/os": "other"}),
        spec=NodeSpec(taints=[Taint(key="own", effect="NoExecute")]),
    )
    assert place_for(ROOT, root, None).labels == {"kubernetes.io/os": "linux", "rack": "r1"}
    assert place_for(ACME, root, None).labels == {"kubernetes.io/os": "linux"}
    found = place_for(ACME, root, put)
    assert found.labels == {"kubernetes.io/os": "linux", "rack": "mine"}
    assert [taint.key for taint in found.taints] == ["theirs", "own"]


def pod(tenant: str, name: str, phase: str, made: str) -> ControlledPod:
    meta = ObjectMeta(name=name, namespace="n", annotations={TENANT_ANNOTATION: tenant}, creation_timestamp=made)
    return ControlledPod(metadata=meta, status=ControlledStatus(phase=phase))


def test_of_each_tenant_the_oldest_records_beyond_the_number_go():
    pods = [pod("acme", f"a{n}", "Succeeded", f"2026-01-0{n}T00:00:00Z") for n in (3, 1, 2)]
    pods += [
        pod("globex", "g1", "Failed", "2026-01-01T00:00:00Z"),
        pod("acme", "a0", "Running", "2025-01-01T00:00:00Z"),
    ]
    assert [(ref.tenant, ref.name) for ref in surplus(pods, 2)] == [("acme", "a1")]
    assert [ref.name for ref in surplus(pods, 0)] == ["a1", "a2", "a3", "g1"]
