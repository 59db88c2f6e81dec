"""A policy that cannot be understood leaves nothing open."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from polder.api.meta import LabelSelector, LabelSelectorRequirement
from polder.api.netpolicies import (
    ClusterNetworkPolicy,
    IPBlock,
    NetworkPolicy,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from polder.sdn.compile.policies import compile_cluster_policy, compile_default, compile_network_policy
from polder.sdn.compile.selection import in_namespace, in_namespaces
from polder.sdn.topology.policies import ADMIN, DENY, PolicyRule
from tests.unit.sdn.objects import Objects

CLOSED = (PolicyRule(DENY, anyone=True),)
WEB = LabelSelector(match_labels={"app": "web"})
BAD = LabelSelector(match_expressions=[LabelSelectorRequirement(key="app", operator="Resembles", values=["web"])])


def made(selector: LabelSelector, *blocks: str) -> NetworkPolicy:
    rules = [NetworkPolicyIngressRule(peers=[NetworkPolicyPeer(ip_block=IPBlock(cidr=block))]) for block in blocks]
    meta = Objects().counter.meta("acme", "default", "p")
    return NetworkPolicy(metadata=meta, spec=NetworkPolicySpec(pod_selector=selector, ingress=rules))


def test_a_rule_that_means_nothing_accepts_nothing_and_the_others_stand() -> None:
    compiled, _ = compile_network_policy(made(WEB, "10.0.0.0/8", "10.0.0.0/8; accept", "fd00::%1/64"))
    assert compiled.isolates == ("ingress",)
    assert [[peer.block for peer in rule.peers] for rule in compiled.ingress] == [["10.0.0.0/8"]]


def test_a_policy_for_nobody_knows_whom_is_for_its_whole_namespace() -> None:
    compiled, uses = compile_network_policy(made(BAD, "10.0.0.0/8"))
    assert compiled.isolates == ("ingress",)
    assert uses.subject == in_namespace("default", None)
    peered = made(WEB)
    rule = NetworkPolicyIngressRule(peers=[NetworkPolicyPeer(pod_selector=BAD)])
    meta = peered.metadata
    found = NetworkPolicy(metadata=meta, spec=NetworkPolicySpec(pod_selector=WEB, ingress=[rule]))
    assert compile_network_policy(found)[0].ingress == ()


def test_a_policy_of_an_unknown_type_isolates_in_both_directions() -> None:
    meta = Objects().counter.meta("acme", "default", "p")
    spec = NetworkPolicySpec(pod_selector=WEB, policy_types=["Sideways"])
    assert compile_network_policy(NetworkPolicy(metadata=meta, spec=spec))[0].isolates == ("ingress", "egress")


@pytest.mark.parametrize(
    "ports",
    [
        {"protocol": "ICMP"},
        {"port": 0},
        {"port": 65536},
        {"port": 80, "end_port": 79},
        {"port": 80, "end_port": 70000},
    ],
)
def test_ports_that_mean_nothing_are_not_all_ports(ports: dict[str, Any]) -> None:
    meta = Objects().counter.meta("acme", "default", "p")
    rules = [NetworkPolicyIngressRule(ports=[NetworkPolicyPort(**one)]) for one in ({"port": 443}, ports)]
    compiled, _ = compile_network_policy(NetworkPolicy(metadata=meta, spec=NetworkPolicySpec(ingress=rules)))
    assert [[(one.protocol, one.first, one.last) for one in rule.ports] for rule in compiled.ingress] == [
        [("TCP", 443, 443)]
    ]


EVERYBODY = {"namespaces": {}}


def of_cluster(**spec: Any) -> ClusterNetworkPolicy:
    whole = {"tier": "Baseline", "priority": 5, "subject": {"namespaces": {"matchLabels": {"a": "b"}}}, **spec}
    found = msgspec.convert({"metadata": {"name": "c"}, "spec": whole}, ClusterNetworkPolicy)
    return msgspec.structs.replace(found, metadata=Objects().counter.meta("acme", "", "c"))


def test_a_cluster_policy_of_no_tier_lets_nothing_through_for_whom_it_is() -> None:
    compiled, uses = compile_cluster_policy(of_cluster(tier="Middle"))
    assert (compiled.tier, compiled.priority, compiled.ingress, compiled.egress) == (ADMIN, 5, CLOSED, CLOSED)
    assert uses.subject == in_namespaces(LabelSelector(match_labels={"a": "b"}))


@pytest.mark.parametrize("subject", [{}, {"namespaces": {"matchExpressions": [{"key": "a", "operator": "Resembles"}]}}])
def test_a_cluster_policy_for_nobody_knows_whom_closes_all(subject: dict[str, Any]) -> None:
    rule = {"action": "Accept", "from": [EVERYBODY]}
    compiled, uses = compile_cluster_policy(of_cluster(subject=subject, tier="Admin", ingress=[rule]))
    assert (compiled.tier, compiled.ingress, compiled.egress) == (ADMIN, CLOSED, CLOSED)
    assert uses.subject == in_namespaces(LabelSelector())


@pytest.mark.parametrize(
    "protocol",
    [
        {},
        {"tcp": {"destinationPort": {}}},
        {"tcp": {"destinationPort": {"number": 0}}},
        {"udp": {"destinationPort": {"range": {"start": 9, "end": 1}}}},
    ],
)
@pytest.mark.parametrize("action", ["Accept", "Pass", "Deny", "Resemble"])
def test_a_cluster_rule_of_ports_that_mean_nothing_is_closed(protocol: dict[str, Any], action: str) -> None:
    rule = {"action": action, "name": "r", "from": [EVERYBODY], "protocols": [protocol]}
    compiled, _ = compile_cluster_policy(of_cluster(ingress=[rule]))
    assert compiled.ingress == (PolicyRule(DENY, anyone=action != "Accept", name="r"),)


@pytest.mark.parametrize(("namespace", "wish"), [("default", "maybe"), ("kube-system", "namespace")])
def test_a_default_that_is_no_word_denies(namespace: str, wish: str) -> None:
    found = compile_default("acme", namespace, wish)
    assert found is not None
    assert (found[0].ingress, found[0].egress) == (CLOSED, CLOSED)
    assert found[0] == (compile_default("acme", namespace, "deny") or found)[0]
