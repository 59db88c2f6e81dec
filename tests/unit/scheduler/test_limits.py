"""What one pod may ask is bounded, whoever writes it; what is bounded is quick."""

from __future__ import annotations

import time
from typing import Any

import pytest

from polder.scheduler.core import decide
from polder.scheduler.limits import CLAUSES, PORTS, RESOURCES, SPREADS, TERMS
from tests.unit.scheduler.make import PREFERRED, REQUIRED, apart, cluster, container, demand, near, node, spread, term


def nodes_with(number: int) -> dict[str, Any]:
    one = {"matchExpressions": [{"key": "k", "operator": "In", "values": ["x"]}]}
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [one] * number}}}}


def ports(number: int) -> dict[str, Any]:
    return {"name": "c", "ports": [{"containerPort": 1, "hostPort": n + 1} for n in range(number)]}


CASES: list[tuple[str, Any, Any]] = [
    ("nodeAffinity clauses", nodes_with(CLAUSES // 2), nodes_with(CLAUSES // 2 + 1)),
    ("terms about pods", {"affinity": apart(*[term()] * TERMS)}, {"affinity": near(*[term()] * (TERMS + 1))}),
    (
        "clauses about pods",
        {"affinity": apart(term(labelSelector={"matchLabels": {str(n): "" for n in range(CLAUSES - 1)}}))},
        {"affinity": apart(term(namespaceSelector={"matchLabels": {str(n): "" for n in range(CLAUSES)}}))},
    ),
    ("topologySpreadConstraints", {"topologySpreadConstraints": [spread()] * SPREADS},
     {"topologySpreadConstraints": [spread()] * (SPREADS + 1)}),
]  # fmt: skip


@pytest.mark.parametrize(("what", "good", "bad"), CASES)
def test_what_a_pod_asks_is_bounded(what: str, good: Any, bad: Any) -> None:
    assert demand(**good).refusal == ""
    said = demand(**bad)
    assert what in said.refusal and "at most" in said.refusal
    assert decide(said, cluster(node("one"))).message == said.refusal


def test_ports_and_names_of_resources_are_bounded() -> None:
    assert demand("a", "root", ports(PORTS)).refusal == ""
    assert "ports of the node" in demand("a", "root", ports(PORTS + 1)).refusal
    many = {f"x.dev/{n}": "1" for n in range(RESOURCES)}
    assert demand("a", "root", container("c", **many)).refusal == ""
    assert "names of resources" in demand("a", "root", container("c", cpu="1", **many)).refusal


def test_the_most_that_a_pod_may_ask_takes_milliseconds() -> None:
    """Two hundred nodes; the goal for one hundred is 5 ms where nobody is unkind, this is the worst of the unkind."""
    wide = [{"weight": 1, "podAffinityTerm": term(f"k{n}", app=f"a{n}")} for n in range(TERMS)]
    state = cluster(*(node(f"n{n}", labels={f"k{i}": "x" for i in range(TERMS)}) for n in range(100)))
    wanted = demand(
        "a", "root", labels={"app": "web"}, affinity={"podAffinity": {PREFERRED: wide}},
        topologySpreadConstraints=[spread(f"k{n}", skew=5) for n in range(SPREADS)],
    )  # fmt: skip
    decide(wanted, state)
    begun = time.process_time()
    for _ in range(5):
        decide(wanted, state)
    assert (time.process_time() - begun) / 5 < 0.05
