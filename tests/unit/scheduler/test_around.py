"""Affinity and anti-affinity between pods; spreading."""

import pytest

from polder.base.ids import TenantName
from polder.scheduler.core import decide
from tests.unit.scheduler.make import (
    HOST,
    PREFERRED,
    ZONE,
    apart,
    cluster,
    container,
    demand,
    near,
    node,
    place,
    refused,
    spread,
    term,
)

ACME = TenantName("acme")


def zones(**names: str):
    return cluster(*(node(name, labels={ZONE: zone}) for name, zone in names.items()))


def test_a_pod_is_near_another_in_the_place_that_the_label_says():
    state = zones(a1="a", a2="a", b1="b")
    wanted = demand("web", affinity=near(term(ZONE, app="db")))
    assert refused(wanted, state) == "0/3 nodes are available: 3 node(s) didn't match pod affinity rules."
    place(state, demand("db", labels={"app": "db"}), "a1")
    assert decide(wanted, state).node in ("a1", "a2")
    place(state, demand("full", "globex", container("x", cpu="4")), "a1")
    place(state, demand("full2", "globex", container("x", cpu="4")), "a2")
    assert decide(demand("w", "acme", container("x", cpu="1"), affinity=near(term(ZONE, app="db"))), state).node == ""


def test_another_tenant_s_pods_are_nobody_to_be_near_of_or_away_from():
    state = zones(a1="a")
    place(state, demand("db", "globex", labels={"app": "db"}, affinity=apart(term(app="web"))), "a1")
    assert decide(demand("web", labels={"app": "web"}, affinity=apart(term(app="db"))), state).node == "a1"
    assert "affinity rules" in refused(demand("web", affinity=near(term(app="db"))), state)
    every = near(term(app="db", namespaceSelector={}))
    assert "affinity rules" in refused(demand("web", affinity=every), state)


def test_the_first_of_pods_that_want_to_be_together_goes_anywhere():
    state = zones(a1="a", b1="b")
    together = {"labels": {"app": "web"}, "affinity": near(term(ZONE, app="web"))}
    first = demand("w1", **together)
    chosen = decide(first, state).node
    assert chosen
    place(state, first, chosen)
    assert decide(demand("w2", **together), state).node == chosen
    bare = cluster(node("x", labels={HOST: ""}))
    assert "didn't match pod affinity rules" in refused(demand("w3", **together), bare), "the node lacks the label"


def test_all_terms_have_to_mean_the_same_pod():
    state = zones(a1="a")
    place(state, demand("x", labels={"app": "db"}), "a1")
    place(state, demand("y", labels={"tier": "back"}), "a1")
    both = near(term(app="db"), term(ZONE, labelSelector={"matchLabels": {"tier": "back"}}))
    assert "affinity rules" in refused(demand("web", affinity=both), state)
    place(state, demand("z", labels={"app": "db", "tier": "back"}), "a1")
    assert decide(demand("web", affinity=both), state).node == "a1"


def test_anti_affinity_holds_both_ways():
    state = zones(a1="a", b1="b")
    shy = {"labels": {"app": "web"}, "affinity": apart(term(ZONE, app="web"))}
    place(state, demand("w1", **shy), "a1")
    assert decide(demand("w2", **shy), state).node == "b1"
    place(state, demand("w2", **shy), "b1")
    assert refused(demand("w3", **shy), state) == (
        "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    )
    plain = demand("plain", labels={"app": "web"})
    assert refused(plain, state) == (
        "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules."
    )
    assert decide(demand("other", labels={"app": "db"}), state).node
    state.free_pod("acme-w1")
    assert decide(plain, state).node == "a1"


def test_namespaces_of_a_term():
    state = zones(a1="a")
    place(state, demand("db", labels={"app": "db"}, namespace="data"), "a1")
    assert "affinity rules" in refused(demand("web", affinity=near(term(app="db"))), state)
    assert decide(demand("web", affinity=near(term(app="db", namespaces=["data"]))), state).node == "a1"
    by_label = near(term(app="db", namespaceSelector={"matchLabels": {"team": "x"}}))
    assert "affinity rules" in refused(demand("web", affinity=by_label), state)
    state.set_namespace(ACME, "data", {"team": "x"})
    assert decide(demand("web", affinity=by_label), state).node == "a1"
    state.set_namespace(ACME, "data", {"team": "y"})
    assert "affinity rules" in refused(demand("web", affinity=by_label), state)
    assert decide(demand("web", affinity=near(term(app="db", namespaceSelector={}))), state).node == "a1"


def test_keys_of_labels_narrow_a_term_to_the_pod_s_own_values():
    state = zones(a1="a", b1="b")
    place(state, demand("old", labels={"app": "web", "hash": "1"}), "a1")
    same = near(term(ZONE, app="web", matchLabelKeys=["hash"]))
    new = {"labels": {"app": "web", "hash": "2"}}
    assert decide(demand("w", labels={"app": "web", "hash": "1"}, affinity=same), state).node == "a1"
    place(state, demand("new", **new), "b1")
    assert decide(demand("w", **new, affinity=same), state).node == "b1"
    other = apart(term(ZONE, app="web", mismatchLabelKeys=["hash"]))
    assert decide(demand("w", **new, affinity=other), state).node == "b1"


@pytest.mark.parametrize(("kind", "chosen"), [("podAffinity", "a1"), ("podAntiAffinity", "b1")])
def test_preferences_between_pods(kind, chosen):
    wish = {kind: {PREFERRED: [{"weight": 100, "podAffinityTerm": term(app="db")}]}}
    state = zones(a1="a", b1="b")
    place(state, demand("db", labels={"app": "db"}), "a1")
    assert decide(demand("web", affinity=wish), state).node == chosen
    state = zones(a1="a", b1="b")
    place(state, demand("web", affinity=wish), "a1")
    assert decide(demand("db", labels={"app": "db"}), state).node == chosen, "placed pods prefer, too"


def test_spreading_is_even_within_the_skew():
    state = zones(a1="a", a2="a", b1="b", c1="c")
    wish = {"labels": {"app": "web"}, "topologySpreadConstraints": [spread(ZONE)]}
    used = []
    for number in range(9):
        wanted = demand(f"w{number}", **wish)
        chosen = decide(wanted, state).node
        place(state, wanted, chosen)
        used.append(chosen[0])
    assert {zone: used.count(zone) for zone in "abc"} == {"a": 3, "b": 3, "c": 3}


def test_what_does_not_count_for_spreading():
    state = zones(a1="a", b1="b")
    wish = {"labels": {"app": "web"}, "topologySpreadConstraints": [spread(ZONE)]}
    place(state, demand("w0", **wish), "a1")
    assert decide(demand("w1", **wish), state).node == "b1"
    place(state, demand("else", labels={"app": "web"}, namespace="other"), "b1")
    place(state, demand("theirs", "globex", labels={"app": "web"}), "b1")
    assert decide(demand("w1", **wish), state).node == "b1"
    place(state, demand("going", labels={"app": "web"}, deleted="2026-01-01T00:00:00Z"), "b1", leaving=True)
    assert decide(demand("w1", **wish), state).node == "b1"
    place(state, demand("w1", **wish), "b1")
    assert decide(demand("w2", **wish), state).node


def test_nodes_that_cannot_have_the_pod_count_as_the_policies_say():
    nodes = [
        node("a1", labels={ZONE: "a"}),
        node("b1", labels={ZONE: "b"}, taints=[{"key": "x", "effect": "NoSchedule"}]),
    ]

    def answer(**policies: str) -> str:
        state = cluster(*nodes)
        place(state, demand("w0", labels={"app": "web"}), "a1")
        wanted = demand("w1", labels={"app": "web"}, topologySpreadConstraints=[spread(ZONE, **policies)])
        return decide(wanted, state).node

    assert answer() == "", "zone b has none, and taints are ignored unless said otherwise"
    assert answer(nodeTaintsPolicy="Honor") == "a1"
    selective = {"labels": {"app": "web"}, "nodeSelector": {ZONE: "a"}}
    for policy, chosen in (("Honor", "a1"), ("Ignore", "")):
        state = cluster(nodes[0], node("b1", labels={ZONE: "b"}))
        place(state, demand("w0", labels={"app": "web"}), "a1")
        constraint = spread(ZONE, nodeAffinityPolicy=policy)
        assert decide(demand("w1", **selective, topologySpreadConstraints=[constraint]), state).node == chosen


def test_fewer_places_than_wanted_count_as_empty_ones():
    state = zones(a1="a", b1="b")
    wish = {"labels": {"app": "web"}, "topologySpreadConstraints": [spread(ZONE, minDomains=3)]}
    for number, where in enumerate(("a1", "b1")):
        assert decide(demand(f"w{number}", **wish), state).node
        place(state, demand(f"w{number}", **wish), where)
    assert refused(demand("w2", **wish), state) == (
        "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints."
    )


def test_a_node_without_the_label_will_not_do():
    state = cluster(node("a1"))
    wanted = demand("w", labels={"app": "web"}, topologySpreadConstraints=[spread(ZONE)])
    assert refused(wanted, state) == (
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."
    )


def test_a_rolled_out_revision_spreads_by_itself():
    state = zones(a1="a", b1="b")
    keys = [spread(ZONE, matchLabelKeys=["hash"])]
    for number in range(2):
        place(state, demand(f"old{number}", labels={"app": "web", "hash": "1"}), "a1")
    new = {"labels": {"app": "web", "hash": "2"}, "topologySpreadConstraints": keys}
    place(state, demand("n0", **new), "b1")
    assert decide(demand("n1", **new), state).node == "a1"


def test_soft_spreading_is_a_preference():
    state = zones(a1="a", b1="b")
    soft = [spread(ZONE, whenUnsatisfiable="ScheduleAnyway")]
    place(state, demand("w0", labels={"app": "web"}), "a1")
    wish = {"labels": {"app": "web"}, "topologySpreadConstraints": soft}
    assert decide(demand("w1", **wish), state).node == "b1"
    place(state, demand("full", "globex", container("x", cpu="4")), "b1")
    assert decide(demand("w1", "acme", container("x", cpu="1"), **wish), state).node == "a1"


def test_pods_of_a_controller_spread_over_zones_without_a_word():
    state = zones(a1="a", a2="a", b1="b")
    place(state, demand("w0", owner="set"), "a1")
    assert decide(demand("w1", owner="set"), state).node == "b1"
