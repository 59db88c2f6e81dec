"""Rules: what they allow and which others they cover; the bootstrap roles as a table."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polder.api.meta import LabelSelector, LabelSelectorRequirement
from polder.api.rbac import (
    AggregationRule,
    Attributes,
    Held,
    PolicyRule,
    Rules,
    Subject,
    allows,
    breakdown,
    compact,
    gathers,
    identity_keys,
)
from polder.api.rbac_policy import bootstrap_bindings, bootstrap_roles

WORDS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2).map(tuple)
RESOURCES = st.lists(st.sampled_from(["x", "y", "x/s", "*/s", "*"]), min_size=1, max_size=2).map(tuple)
NAMES = st.none() | st.lists(st.sampled_from(["n", "m"]), min_size=1, max_size=2).map(tuple)
URLS = st.lists(st.sampled_from(["/p", "/p/*", "/q*", "*"]), min_size=1, max_size=2).map(tuple)
OBJECT_RULE = st.builds(
    lambda v, g, r, n: PolicyRule(verbs=v, api_groups=g, resources=r, resource_names=n), WORDS, WORDS, RESOURCES, NAMES
)
PATH_RULE = st.builds(lambda v, u: PolicyRule(verbs=v, non_resource_urls=u), WORDS, URLS)
RULES = st.lists(OBJECT_RULE | PATH_RULE, max_size=4)
REQUESTS = [
    *(Attributes(v, g, r, s, n) for v, g, r, s, n in product("abc", "abc", "xyz", ("", "s", "t"), ("", "n", "m", "o"))),
    *(Attributes(v, path=p) for v, p in product("abc", ("/p", "/p/1", "/q", "/r"))),
]


@given(RULES)
def test_the_index_of_rules_allows_what_one_of_them_allows(rules: list[PolicyRule]) -> None:
    index = Rules(rules)
    for what in REQUESTS:
        assert index.allow(what) == any(allows(rule, what) for rule in rules)


@given(RULES, RULES)
def test_who_covers_rules_may_all_that_they_allow(held: list[PolicyRule], wanted: list[PolicyRule]) -> None:
    covers = Held(held)
    missing = [small for rule in wanted for small in breakdown(rule) if not covers.covers(small)]
    if missing:
        assert compact(missing)
        return
    mine, theirs = Rules(held), Rules(wanted)
    assert all(mine.allow(what) for what in REQUESTS if theirs.allow(what))


@given(RULES)
def test_everybody_covers_his_own_rules(rules: list[PolicyRule]) -> None:
    held = Held(rules)
    assert all(held.covers(small) for rule in rules for small in breakdown(rule))


def test_how_missing_rules_are_shown() -> None:
    rule = PolicyRule(verbs=("get", "list"), api_groups=("",), resources=("pods", "secrets"), resource_names=("x",))
    path = PolicyRule(verbs=("get",), non_resource_urls=("/a",))
    assert compact([*breakdown(rule), *breakdown(path)]) == [
        '{APIGroups:[""], Resources:["pods"], ResourceNames:["x"], Verbs:["get" "list"]}',
        '{APIGroups:[""], Resources:["secrets"], ResourceNames:["x"], Verbs:["get" "list"]}',
        '{NonResourceURLs:["/a"], Verbs:["get"]}',
    ]


def test_a_user_cannot_be_named_so_that_it_is_a_group() -> None:
    group = Subject(kind="Group", name="system:masters").key("")
    for name in ("g:system:masters", "system:masters", "group:system:masters"):
        assert group not in identity_keys(name, ())
    assert group in identity_keys("x", ("system:masters",))
    account = Subject(kind="ServiceAccount", name="a").key("ns")
    assert account in identity_keys("system:serviceaccount:ns:a", ())
    assert Subject(kind="ServiceAccount", name="a").key("") == ""
    assert Subject(kind="Robot", name="a").key("ns") == ""


@pytest.mark.parametrize(
    ("operator", "values", "labels", "wanted"),
    [
        ("In", ["1"], {"a": "1"}, True), ("In", ["1"], {}, False), ("NotIn", ["1"], {}, True),
        ("NotIn", ["1"], {"a": "1"}, False), ("Exists", None, {"a": ""}, True), ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True), ("DoesNotExist", None, {"a": "1"}, False), ("Near", None, {"a": "1"}, False),
    ],
)  # fmt: skip
def test_selectors_of_aggregated_roles(
    operator: str, values: list[str] | None, labels: dict[str, str], wanted: bool
) -> None:
    clause = LabelSelectorRequirement(key="a", operator=operator, values=values)
    one = AggregationRule(cluster_role_selectors=(LabelSelector(match_expressions=[clause]),))
    assert gathers(one, labels) == wanted
    assert not gathers(AggregationRule(), labels)


def test_the_bootstrap_table() -> None:
    roles = {(r["metadata"].get("namespace", ""), r["metadata"]["name"]): r for r in bootstrap_roles()}
    assert len(roles) == len(bootstrap_roles())
    view = roles["", "system:aggregate-to-view"]
    assert {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]} in view["rules"]
    assert not any("secrets" in rule.get("resources", ()) for rule in view["rules"])
    assert roles["", "cluster-admin"]["rules"] == [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]  # fmt: skip
    for binding in bootstrap_bindings():
        place = binding["metadata"].get("namespace", "")
        assert (place if binding["roleRef"]["kind"] == "Role" else "", binding["roleRef"]["name"]) in roles
        for subject in binding.get("subjects", ()):
            assert subject["name"] not in {"system:anonymous"}
    nobody = {
        b["roleRef"]["name"] for b in bootstrap_bindings()
        for s in b.get("subjects", ()) if s["name"] == "system:unauthenticated"
    }  # fmt: skip
    assert nobody == {"system:public-info-viewer"}
