"""Preemption: inside the tenant, as few as possible, budgets first."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from polder.api.policy import PodDisruptionBudget
from polder.base.ids import TenantName
from polder.scheduler import preempt
from polder.scheduler.cluster import Cluster, Nomination
from polder.scheduler.core import decide
from polder.scheduler.demand import Demand
from polder.scheduler.filters import Question
from tests.unit.scheduler.make import apart, cluster, container, demand, node, place, spread, term

ACME = TenantName("acme")


def low(name: str, cpu: str = "1", priority: int = 0, **more: Any) -> Demand:
    return demand(name, "acme", container("a", cpu=cpu), priority=priority, **more)


def budget(app: str, allowed: int, *disrupted: str) -> PodDisruptionBudget:
    raw = {
        "metadata": {"name": app, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "disruptedPods": dict.fromkeys(disrupted, "2026-01-01T00:00:00Z")},
    }
    return msgspec.convert(raw, PodDisruptionBudget)


def victims(wanted: Demand, state: Cluster, *budgets: PodDisruptionBudget) -> tuple[str, list[str]] | str:
    """The node and the names of who goes, or what is said."""
    decision = decide(wanted, state)
    assert not decision.node
    question = Question(wanted, state)
    if why := preempt.ineligible(question):
        return why
    outcomes = [preempt.victims_on(question, question.view.by_name[name], budgets) for name in decision.hopeful]
    found = [one for one in outcomes if isinstance(one, preempt.Victims)]
    if not found:
        reasons = [reason for one in outcomes if isinstance(one, tuple) for reason in one]
        return preempt.unhelpful(decision, Counter(reasons))
    chosen = preempt.choose(found)
    return chosen.node, [p.demand.ref.name for p in chosen.pods]


def test_the_fewest_and_least_important_pods_go() -> None:
    state = cluster(node("one"))
    place(state, low("old", "2", 1), "one", since="2026-01-01")
    place(state, low("a", "1"), "one", since="2026-01-01")
    place(state, low("b", "1"), "one", since="2026-01-02")
    assert victims(low("urgent", "1", 10), state) == ("one", ["b"]), "who started last goes first"
    assert victims(low("urgent", "2", 10), state) == ("one", ["a", "b"])
    assert victims(low("urgent", "4", 10), state) == ("one", ["old", "a", "b"])
    assert state.usage("one").pods == 3 and state.usage("one").requests["cpu"] == 4000, "nothing was changed"


def test_nobody_else_s_pods_are_victims() -> None:
    state = cluster(node("one"))
    place(state, demand("theirs", "globex", container("a", cpu="4"), priority=-100), "one")
    wanted = low("urgent", "1", 2_000_000_000)
    said = victims(wanted, state)
    assert said == "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    assert not state.has_below(ACME, 2_000_000_000)
    place(state, low("mine", "0"), "one")
    assert state.has_below(ACME, 1) and not state.has_below(ACME, 0)
    assert victims(wanted, state) == "preemption: 0/1 nodes are available: 1 Insufficient cpu."


def test_equals_are_no_victims_and_some_pods_never_preempt() -> None:
    state = cluster(node("one"), node("two", unschedulable=True))
    place(state, low("peer", "4", 5), "one")
    assert victims(low("next", "1", 5), state) == (
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling."
    )
    gentle = low("gentle", "1", 10, preemptionPolicy="Never")
    assert victims(gentle, state) == "preemption: not eligible due to preemptionPolicy=Never."


def test_the_node_is_chosen_whose_victims_matter_least() -> None:
    def chosen(*placed: tuple[str, int, str], budgets: tuple[PodDisruptionBudget, ...] = (), need: str = "4") -> str:
        state = cluster(node("one"), node("two"))
        for number, (where, priority, since) in enumerate(placed):
            share = 4 // sum(w == where for w, *_ in placed)
            labels = {"app": where}
            place(state, low(f"p{number}", str(share), priority, labels=labels), where, since=since)
        found = victims(low("urgent", need, 10), state, *budgets)
        assert isinstance(found, tuple)
        return found[0]

    assert chosen(("one", 2, "1"), ("two", 1, "1")) == "two", "the highest priority is lower"
    assert chosen(("one", 1, "1"), ("one", 1, "1"), ("two", 1, "1")) == "two", "fewer"
    assert chosen(("one", 1, "1"), ("one", 0, "1"), ("two", 1, "1"), ("two", 1, "1")) == "one", "a lower sum"
    assert chosen(("one", 1, "2026-01-01"), ("two", 1, "2026-02-01")) == "two", "it started later"
    assert chosen(("one", 2, "1"), ("two", 1, "1"), budgets=(budget("two", 0),)) == "one", "a budget comes first"


def test_pods_that_a_budget_keeps_are_spared_if_others_do() -> None:
    state = cluster(node("one"))
    place(state, low("kept", "2", 0, labels={"app": "db"}), "one", since="2026-02-01")
    place(state, low("free", "2", 1), "one", since="2026-01-01")
    wanted = low("urgent", "2", 10)
    assert victims(wanted, state) == ("one", ["kept"])
    assert victims(wanted, state, budget("db", 0)) == ("one", ["free"])
    assert victims(wanted, state, budget("db", 1)) == ("one", ["kept"])
    assert victims(wanted, state, budget("db", 0, "kept")) == ("one", ["kept"]), "it is counted already"
    place(state, low("more", "0", 10), "one")
    assert victims(low("urgent", "4", 10), state, budget("db", 0)) == ("one", ["free", "kept"]), "if need be, they go"


def test_anti_affinity_and_spreading_are_solved_too() -> None:
    state = cluster(node("one"))
    shy = low("shy", "1", 0, labels={"app": "web"}, affinity=apart(term(app="web")))
    place(state, shy, "one")
    place(state, low("bystander"), "one")
    assert victims(low("urgent", "1", 10, labels={"app": "web"}), state) == ("one", ["shy"])
    state = cluster(node("one", labels={"topology.kubernetes.io/zone": "a"}), node("two", allocatable={"cpu": "0"}))
    for number in range(2):
        place(state, low(f"w{number}", labels={"app": "web"}), "one", since=str(number))
    even = low("urgent", "1", 10, labels={"app": "web"}, topologySpreadConstraints=[spread(skew=2)])
    assert victims(even, state) == ("one", ["w1"])


def test_one_that_makes_room_waits_for_it_and_keeps_it() -> None:
    state = cluster(node("one"))
    place(state, low("victim", "4"), "one")
    wanted = low("urgent", "4", 10)
    state.nominate(Nomination(wanted, "one", earned=True, victims=frozenset({"acme-victim"})))
    assert victims(wanted, state) == "preemption: not eligible due to a terminating pod on the nominated node."
    state.free_pod("acme-victim")
    theirs = demand("theirs", "globex", container("a", cpu="1"), priority=100)
    assert decide(theirs, state).message == "0/1 nodes are available: 1 Insufficient cpu.", "the room is acme's"
    assert decide(low("lesser", "1", 9), state).node == ""
    assert decide(low("greater", "1", 11), state).node == "one"
    assert decide(wanted, state).node == "one"
    place(state, wanted, "one")
    assert state.nomination(wanted.uid) is None


def test_what_a_status_says_of_a_node_counts_inside_its_tenant_alone() -> None:
    state = cluster(node("one"))
    state.nominate(Nomination(low("claims", "4", 10), "one", earned=False))
    assert decide(demand("theirs", "globex", container("a", cpu="1")), state).node == "one"
    assert decide(low("lesser", "1", 0), state).node == ""
    before = state.changes
    state.withdraw("acme-claims")
    assert state.changes > before and decide(low("lesser", "1", 0), state).node == "one"


def test_pods_with_nominations_count_for_anti_affinity() -> None:
    state = cluster(node("one"), node("two"))
    shy: dict[str, Any] = {"labels": {"app": "web"}, "affinity": apart(term(app="web"))}
    state.nominate(Nomination(low("first", "1", 10, **shy), "one", earned=True))
    assert decide(low("second", "1", 10, **shy), state).node == "two"
    assert state.usage("one").pods == 0


def test_less_important_nominations_give_way() -> None:
    state = cluster(node("one"))
    for name, priority in (("less", 1), ("more", 20)):
        state.nominate(Nomination(low(name, "1", priority), "one", earned=True))
    state.overrule(low("urgent", "1", 10), "one")
    assert state.nomination("acme-less") is None and state.nomination("acme-more") is not None
