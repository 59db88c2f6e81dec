"""A policy that cannot be understood leaves nothing open."""

from __future__ import annotations

from polder.api.meta import LabelSelector, LabelSelectorRequirement
from polder.api.netpolicies import (
    IPBlock,
    NetworkPolicy,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicySpec,
)
from polder.sdn.compile.policies import compile_network_policy
from polder.sdn.compile.selection import in_namespace
from tests.unit.sdn.objects import Objects

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
