"""The decision against an oracle that says the rules a second time, slowly; and what is kept up to date against what is
counted anew.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polder.base.ids import TenantName
from polder.scheduler import preempt
from polder.scheduler.cluster import Cluster, Placement
from polder.scheduler.core import decide
from polder.scheduler.demand import Demand
from polder.scheduler.filters import FITS, Question
from polder.scheduler.scores import totals
from tests.unit.scheduler.make import cluster, demand, node
from tests.unit.scheduler.oracle import World

Raw = dict[str, Any]
HOST, ZONE, SECRET = "kubernetes.io/hostname", "topology.kubernetes.io/zone", "secret"
VALUES = st.sampled_from(["a", "b"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), VALUES, max_size=2)
CLAUSE = st.one_of(
    st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        st.sampled_from(["app", "tier"]), st.sampled_from(["In", "NotIn"]), st.lists(VALUES, min_size=1, max_size=2),
    ),
    st.builds(lambda k, o: {"key": k, "operator": o}, st.sampled_from(["app", "tier"]),
              st.sampled_from(["Exists", "DoesNotExist"])),
)  # fmt: skip
SELECTOR = st.one_of(
    st.builds(lambda v: {"matchLabels": {"app": v}}, VALUES),
    st.builds(lambda labels, clauses: {"matchLabels": labels, "matchExpressions": clauses}, LABELS,
              st.lists(CLAUSE, max_size=2)),
)  # fmt: skip
KEY = st.sampled_from([HOST, ZONE])


def with_some(base: st.SearchStrategy[Raw], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Raw]:
    """Raw objects with fields that may be left out."""
    more = st.fixed_dictionaries({}, optional=dict(fields))
    return st.builds(lambda one, other: {**one, **other}, base, more)


TERM = with_some(
    st.builds(lambda key, selector: {"topologyKey": key, "labelSelector": selector}, KEY, SELECTOR),
    namespaces=st.lists(st.sampled_from(["default", "other"]), max_size=2),
    namespaceSelector=st.sampled_from([{}, {"matchLabels": {"team": "a"}}]),
    matchLabelKeys=st.just(["tier"]),
)
SPREAD = with_some(
    st.builds(
        lambda key, skew, selector, action: {
            "topologyKey": key, "maxSkew": skew, "labelSelector": selector, "whenUnsatisfiable": action},
        KEY, st.integers(1, 2), SELECTOR, st.sampled_from(["DoNotSchedule", "DoNotSchedule", "ScheduleAnyway"]),
    ),
    nodeAffinityPolicy=st.sampled_from(["Honor", "Ignore"]),
    nodeTaintsPolicy=st.sampled_from(["Honor", "Ignore"]),
)  # fmt: skip
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
AFFINITY = st.fixed_dictionaries(
    {},
    optional={
        "podAffinity": st.builds(lambda terms: {REQUIRED: terms}, st.lists(TERM, max_size=2)),
        "podAntiAffinity": st.builds(lambda terms: {REQUIRED: terms}, st.lists(TERM, max_size=2)),
        "nodeAffinity": st.builds(
            lambda v: {REQUIRED: {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": ZONE, "operator": "In", "values": v}]}]}},
            st.lists(VALUES, min_size=1, max_size=2),
        ),
    },
)  # fmt: skip
NODE = st.builds(
    lambda zone, secret, cpu, pods, taint, cordon: {
        "labels": {**({ZONE: zone} if zone else {}), SECRET: secret}, "cpu": cpu, "pods": pods,
        "taints": [{"key": "t", "value": "x", "effect": taint}] if taint else [], "unschedulable": cordon,
    },
    st.sampled_from(["a", "b", "c", ""]), VALUES, st.integers(2, 5), st.integers(2, 5),
    st.sampled_from(["", "", "", "NoSchedule", "PreferNoSchedule"]), st.sampled_from([False] * 5 + [True]),
)  # fmt: skip
POD = with_some(
    st.builds(
        lambda tenant, namespace, labels, cpu, port, leaving: {
            "tenant": tenant, "namespace": namespace, "labels": labels, "cpu": cpu, "leaving": leaving,
            "ports": [port] if port else [],
        },
        st.sampled_from(["acme", "acme", "globex", "root"]), st.sampled_from(["default", "default", "other"]), LABELS,
        st.integers(0, 2), st.sampled_from([None] * 6 + [("0.0.0.0", "TCP", 80), ("10.0.0.1", "TCP", 80)]),
        st.sampled_from([False] * 4 + [True]),
    ),
    affinity=AFFINITY,
    spread=st.lists(SPREAD, max_size=2),
    nodeSelector=st.sampled_from([{SECRET: "a"}, {ZONE: "a"}]),
    tolerations=st.sampled_from([[{"operator": "Exists"}], [{"key": "t", "value": "x"}], [{"key": "t", "value": "y"}]]),
    priority=st.integers(0, 2),
)  # fmt: skip
WORLD = st.tuples(
    st.lists(NODE, min_size=1, max_size=5),
    st.lists(st.tuples(POD, st.integers(0, 4)), max_size=9),
    POD,
    st.dictionaries(st.tuples(st.sampled_from(["acme", "globex"]), st.sampled_from(["default", "other"])),
                    st.builds(lambda v: {"team": v}, VALUES), max_size=3),
)  # fmt: skip


def demand_for(raw: Raw, name: str) -> Demand:
    ports = [{"containerPort": 1, "hostPort": n, "hostIP": ip, "protocol": p} for ip, p, n in raw["ports"]]
    requests = {"cpu": str(raw["cpu"])} if raw["cpu"] else {}
    container = {"name": "c", "resources": {"requests": requests}, "ports": ports}
    more = {key: raw[key] for key in ("affinity", "nodeSelector", "tolerations", "priority") if key in raw}
    return demand(
        name, raw["tenant"], container, namespace=raw["namespace"], labels=raw["labels"],
        topologySpreadConstraints=raw.get("spread"), **more,
    )  # fmt: skip


def built(nodes: list[Raw], placed: list[Raw], namespaces: dict[tuple[str, str], Raw]) -> Cluster:
    made = cluster(
        *(
            node(
                n["name"], labels={k: v for k, v in n["labels"].items() if k != HOST}, taints=n["taints"],
                unschedulable=n["unschedulable"], allocatable={"cpu": str(n["cpu"]), "pods": str(n["pods"])},
            )
            for n in nodes
        )
    )  # fmt: skip
    for (tenant, name), labels in namespaces.items():
        made.set_namespace(TenantName(tenant), name, labels)
    for raw in placed:
        made.place(placement(raw))
    return made


def placement(raw: Raw) -> Placement:
    return Placement(raw["node"], demand_for(raw, raw["name"]), leaving=raw["leaving"], since=raw["name"])


def laid_out(world: Any) -> tuple[list[Raw], list[Raw], Raw, dict[tuple[str, str], Raw]]:
    nodes, pods, wanted, namespaces = world
    named = [{**n, "name": f"n{i}", "labels": {**n["labels"], HOST: f"n{i}"}} for i, n in enumerate(nodes)]
    placed = [{**p, "name": f"p{i}", "node": f"n{at % len(nodes)}"} for i, (p, at) in enumerate(pods)]
    return named, placed, wanted, namespaces


def fitting(state: Cluster, wanted: Demand) -> set[str]:
    question = Question(wanted, state)
    return {n.name for n in question.answer.nodes if question.expecting(n) is FITS}


@settings(max_examples=120, deadline=None)
@given(WORLD)
def test_the_nodes_that_will_do_are_those_of_the_oracle(world: Any) -> None:
    nodes, placed, raw, namespaces = laid_out(world)
    oracle, wanted = World(nodes, placed, namespaces), demand_for(raw, "wanted")
    expected = {n["name"] for n in nodes if oracle.fits(raw, n)}
    state = built(nodes, placed, namespaces)
    assert fitting(state, wanted) == expected
    assert (decide(wanted, state).node in expected) if expected else not decide(wanted, state).node


@settings(max_examples=50, deadline=None)
@given(WORLD, st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), max_size=8))
def test_what_follows_changes_is_what_is_counted_anew(world: Any, moves: list[tuple[int, int]]) -> None:
    nodes, placed, raw, namespaces = laid_out(world)
    wanted, state = demand_for(raw, "wanted"), built(nodes, placed, {})
    fitting(state, wanted)
    for which, to in moves if placed else ():
        one = placed[which % len(placed)]
        state.free_pod(placement(one).demand.uid)
        one["node"] = nodes[to % len(nodes)]["name"]
        one["leaving"] = not one["leaving"]
        state.place(placement(one))
        decide(wanted, state)
    for (tenant, name), labels in namespaces.items():
        state.set_namespace(TenantName(tenant), name, labels)
    fresh = built(nodes, placed, namespaces)
    assert fitting(state, wanted) == fitting(fresh, wanted)
    questions = [Question(wanted, one) for one in (state, fresh)]
    scored = [totals(q, list(q.view.nodes)) for q in questions]
    assert scored[0] == scored[1]
    for one in placed:
        state.free_pod(placement(one).demand.uid)
    for tenant, name in namespaces:
        state.set_namespace(TenantName(tenant), name, None)
    assert not (state._crowds or state._groups or state._priorities or state.claims or state.images)
    assert all(not usage.pods and not any(usage.requests.values()) for usage in state._usage.values())


@settings(max_examples=60, deadline=None)
@given(WORLD)
def test_victims_are_the_tenant_s_own_lesser_pods_and_each_of_them_has_to_go(world: Any) -> None:
    nodes, placed, raw, namespaces = laid_out(world)
    raw["priority"] = 2
    wanted, state = demand_for(raw, "wanted"), built(nodes, placed, namespaces)
    by_uid = {f"{p['tenant']}-{p['name']}": p for p in placed}
    for name in decide(wanted, state).hopeful:
        question = Question(wanted, state)
        found = preempt.victims_on(question, question.view.by_name[name], ())
        if not isinstance(found, preempt.Victims):
            continue
        gone = {p.demand.uid for p in found.pods}
        for uid in gone:
            assert by_uid[uid]["tenant"] == raw["tenant"] and by_uid[uid].get("priority", 0) < 2
            assert by_uid[uid]["node"] == name
        where = next(n for n in nodes if n["name"] == name)
        assert World(nodes, [p for u, p in by_uid.items() if u not in gone], namespaces).fits(raw, where)
        assert not World(nodes, list(by_uid.values()), namespaces).fits(raw, where)
    assert fitting(state, wanted) == fitting(built(nodes, placed, namespaces), wanted), "nothing was left changed"
