"""The pure parts of the controllers."""

import pytest

from polder.api.core import Event, Node, NodeCondition, NodeStatus
from polder.api.meta import Condition, Object, ObjectMeta
from polder.api.polder import NetworkSpec
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.controllers.conditions import a_few, merged
from polder.controllers.drain import Found, Remains, conditions
from polder.controllers.event_expiry import last_seen
from polder.controllers.node_health import Heartbeats, unknown_conditions
from polder.controllers.resources import Resource, collection_path, object_path
from polder.controllers.suspects import Suspects
from polder.controllers.vni import END, FIRST, candidates, gateways_of

ACME = TenantName("acme")


def test_candidates_are_the_network_s_own_and_in_range():
    first, again, other = list(candidates("a")), list(candidates("a")), list(candidates("b"))
    assert first == again
    assert len(set(first)) == len(first)
    assert not set(first) & set(other)
    assert all(FIRST <= vni < END for vni in first + other)


def test_gateways_are_the_given_or_the_first_or_none():
    assert gateways_of(NetworkSpec(cidr="10.0.0.0/16")) == ["10.0.0.1"]
    assert gateways_of(NetworkSpec(cidr="10.0.0.0/16", gateway="10.0.0.254")) == ["10.0.0.254"]
    assert gateways_of(NetworkSpec(cidr="10.0.0.0/16", router="")) == []
    both = NetworkSpec(cidr="fd00::/64", cidrs=["fd00::/64", "10.0.0.0/16"], gateway="10.0.0.9", gateways=["10.0.0.9"])
    assert gateways_of(both) == ["fd00::1", "10.0.0.9"]
    with pytest.raises(ValueError, match="99"):
        gateways_of(NetworkSpec(cidr="10.0.0.0/99"))


def test_a_condition_keeps_its_time_while_its_status_stays():
    have = merged(None, [Condition(type="Ready", status="False", reason="A")], "t1")
    assert have == [Condition(type="Ready", status="False", reason="A", last_transition_time="t1")]
    assert merged(have, [Condition(type="Ready", status="False", reason="A")], "t2") is None
    other = merged(have, [Condition(type="Ready", status="False", reason="B")], "t2")
    assert other is not None and other[0].last_transition_time == "t1"
    turned = merged(have, [Condition(type="Ready", status="True", reason="B")], "t2")
    assert turned is not None and turned[0].last_transition_time == "t2"
    more = merged(have, [Condition(type="Other", status="True")], "t2")
    assert more is not None and [c.type for c in more] == ["Ready", "Other"]


def test_a_few_names():
    assert a_few(["b", "a"]) == "a, b"
    assert a_few("edcba") == "a, b, c and 2 more"


def test_silence_is_measured_from_the_last_change_seen():
    beats = Heartbeats(40, 60)
    beats.observe("one", "v1", 0)
    assert not beats.is_late("one", 40)
    assert beats.is_late("one", 41)
    assert not beats.is_late("one", 60, is_new=True), "a node that joins has longer"
    assert beats.is_late("one", 61, is_new=True)
    beats.observe("one", "v1", 41)
    assert beats.is_late("one", 42), "the same version is no sign of life"
    beats.observe("one", "v2", 42)
    assert not beats.is_late("one", 82)
    beats.forget("one")
    assert not beats.is_late("one", 1000)


def _node(ready: str | None) -> Node:
    found = [NodeCondition(type="Ready", status=ready, last_heartbeat_time="h")] if ready else None
    return Node(status=NodeStatus(conditions=found))


def test_a_node_that_said_nothing_yet_becomes_unknown_once():
    assert [c.type for c in unknown_conditions(_node(None), "t")] == ["Ready"]
    found = unknown_conditions(_node("True"), "t")
    assert [(c.type, c.status, c.last_heartbeat_time) for c in found] == [("Ready", "Unknown", "h")]
    assert unknown_conditions(_node("Unknown"), "t") == []


def test_suspicion_needs_time_and_a_thing_that_does_not_change():
    suspects = Suspects(60)
    assert suspects.wait("a", "v1", 0) == 60
    assert suspects.wait("a", "v1", 59) == 1
    assert suspects.wait("a", "v2", 59) == 60
    assert suspects.wait("a", "v2", 119) == 0
    suspects.clear("a")
    assert suspects.wait("a", "v2", 120) == 60


def test_the_words_of_a_namespace_in_deletion():
    remains = Remains()
    maps = Resource("", "v1", "configmaps", "ConfigMap", True)
    remains.add(maps, [Object(metadata=ObjectMeta(finalizers=["a.dev/x"])), Object()])
    found = {c.type: c for c in conditions(Found((), failed=("a.dev/v1",)), remains)}
    assert found["NamespaceDeletionDiscoveryFailure"].reason == "DiscoveryFailed"
    assert found["NamespaceContentRemaining"].message == (
        "Some resources are remaining: configmaps has 2 resource instances"
    )
    assert found["NamespaceFinalizersRemaining"].message == (
        "Some content in the namespace has finalizers remaining: a.dev/x in 1 resource instances"
    )
    clean = conditions(Found(()), Remains())
    assert {c.status for c in clean} == {"False"}
    assert len(clean) == 5
    groups = tuple(f"g{n:02}.dev/v1" for n in range(50))
    said = conditions(Found((), failed=groups), Remains(errors=[f"e{n:02}" for n in range(50)]))
    assert said[0].message.startswith("Discovery failed for some groups, 50 failing: g00.dev/v1, ")
    assert said[0].message.endswith("g09.dev/v1 and 40 more")
    assert said[2].message.endswith("e09 and 40 more")


def test_when_an_event_was_last_seen():
    assert last_seen(Event()) is None
    assert last_seen(Event(last_timestamp="soon")) is None
    seen = last_seen(Event(first_timestamp="2026-01-01T00:00:00Z", last_timestamp="2026-01-02T00:00:00Z"))
    assert seen is not None and seen.day == 2
    micro = last_seen(Event(event_time="2026-01-03T00:00:00.000001Z"))
    assert micro is not None and micro.day == 3


def test_paths_carry_the_tenant():
    shops = Resource("acme.dev", "v1", "shops", "Shop", True)
    assert collection_path(ACME, shops, "a") == "/tenants/acme/apis/acme.dev/v1/namespaces/a/shops"
    assert collection_path(TenantName("*"), shops) == "/tenants/*/apis/acme.dev/v1/shops"
    nodes = Resource("", "v1", "nodes", "Node", False)
    assert object_path(nodes, Ref(ACME, "", "one")) == "/tenants/acme/api/v1/nodes/one"
