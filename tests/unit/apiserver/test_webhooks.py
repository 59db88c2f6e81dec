"""Parts of admission webhooks that need no server: patience, reinvocation, rules, verdicts."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.kinds import built_in
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.types import Identity, Role
from polder.apiserver.webhooks import Patience, Reinvocation
from polder.apiserver.webhooks_match import match_rules, matches_rule
from polder.apiserver.webhooks_review import ReviewError, ask, request_of, verify
from polder.base.ids import ROOT, TenantName

ACME = TenantName("acme")


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_is = 1000.0

    def monotonic(self) -> float:
        return self.now_is

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_is, UTC)


def test_patience_is_lost_for_longer_each_time_and_comes_back_with_an_answer() -> None:
    clock = Time()
    patience = Patience(clock)
    for pause in (10, 20, 40, 80, 160, 300, 300):
        assert not patience.is_over(ACME)
        patience.lose(ACME)
        patience.lose(ACME)
        clock.now_is += pause - 1
        assert patience.is_over(ACME), pause
        assert not patience.is_over(TenantName("globex"))
        clock.now_is += 2
    patience.lose(ACME)
    patience.restore(ACME)
    assert not patience.is_over(ACME)
    patience.lose(ACME)
    clock.now_is += 11
    assert not patience.is_over(ACME), "it begins anew"


def test_patience_keeps_a_bounded_number_of_tenants() -> None:
    patience = Patience(Time())
    for number in range(Patience.TENANTS + 10):
        patience.lose(TenantName(f"t{number}"))
    assert not patience.is_over(TenantName("t0"))
    assert patience.is_over(TenantName(f"t{Patience.TENANTS}"))


def test_only_who_was_asked_before_a_change_takes_part_again() -> None:
    round_ = Reinvocation()
    round_.previously.add("a")
    round_.require()
    round_.previously.add("b")
    round_.second = True
    assert (round_.takes_part("a"), round_.takes_part("b")) == (True, False)
    round_.output = b'{"x":1}'
    round_.begin({"x": 2})
    assert round_.takes_part("b"), "what changed in between calls for everybody"


def context(
    name: str = "m", namespace: str = "default", plural: str = "configmaps", below: str = ""
) -> AdmissionContext:
    kind = built_in("v1", plural)
    obj = {"metadata": {"name": name}}
    return AdmissionContext(Identity("u", Role.USER), ROOT, "create", Resource(kind), namespace, name, below, obj)


RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"apiGroups": ["*"]}, True),
        ({"apiGroups": ["apps"]}, False),
        ({"apiVersions": ["v2"]}, False),
        ({"operations": ["UPDATE", "DELETE"]}, False),
        ({"operations": ["*"]}, True),
        ({"resources": ["*"]}, True),
        ({"resources": ["*/*"]}, True),
        ({"resources": ["configmaps/*"]}, True),
        ({"resources": ["configmaps/status"]}, False),
        ({"resources": ["*/status"]}, False),
        ({"scope": "Namespaced"}, True),
        ({"scope": "Cluster"}, False),
        ({"resourceNames": ["m"]}, True),
        ({"resourceNames": ["other"]}, False),
    ],
)
def test_rules(change: Any, matches: bool) -> None:
    assert matches_rule({**RULE, **change}, context(), built_in("v1", "configmaps")) is matches


def test_a_namespace_is_cluster_scoped_though_it_is_in_itself() -> None:
    itself = context("x", "", "namespaces")
    rule = {**RULE, "resources": ["namespaces"]}
    kind = built_in("v1", "namespaces")
    assert matches_rule({**rule, "scope": "Cluster"}, itself, kind)
    assert not matches_rule({**rule, "scope": "Namespaced"}, itself, kind)
    assert request_of(itself, kind, None, None)["namespace"] == "x"


def test_subresources_are_named() -> None:
    below = context(plural="pods", below="status")
    kind = built_in("v1", "pods")
    assert not matches_rule({**RULE, "resources": ["pods"]}, below, kind)
    assert matches_rule({**RULE, "resources": ["pods/status"]}, below, kind)
    assert matches_rule({**RULE, "resources": ["*/*"]}, below, kind)
    assert not matches_rule({**RULE, "resources": ["*"]}, below, kind)


def test_an_exact_policy_knows_no_other_version() -> None:
    other = built_in("autoscaling/v1", "horizontalpodautoscalers")
    own = built_in("autoscaling/v2", "horizontalpodautoscalers")
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["*"], "operations": ["*"]}
    asked = AdmissionContext(Identity("u", Role.USER), ROOT, "create", Resource(own), "default", "h", "", {})
    assert match_rules([rule], asked, "Exact", [own, other]) is None
    found = match_rules([rule], asked, "Equivalent", [own, other])
    assert found is not None
    assert found.kind is other


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=10,
))  # fmt: skip
def test_no_answer_breaks_the_server(said: Any) -> None:
    review = ask({}, ["v1"])
    head = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
    response = {"uid": review.uid, "allowed": said, "status": said, "warnings": said, "auditAnnotations": said}
    patched = {**response, "patch": said, "patchType": "JSONPatch"}
    for answer in (said, {"response": said}, {**head, "response": response}, {**head, "response": patched}):
        for mutating in (True, False):
            try:
                verify(review, json.dumps(answer).encode(), mutating=mutating)
            except ReviewError:
                continue
