"""Every case of policies with real packets, between all pods of a tenant over two nodes and two networks, in both families,
against the oracle; beside it a tenant of the same names and addresses that has policies of its own.
"""

from __future__ import annotations

from itertools import product

import pytest

from polder.sdn.topology.policies import Group, Policy
from tests.system.lab import Lab
from tests.system.policy_probes import Servers, populate, reached
from tests.unit.sdn.policy_cases import CASES
from tests.unit.sdn.policy_world import PODS, Probe, World, allowed, policy

pytestmark = pytest.mark.system
PROBES = [
    Probe(source, target, protocol, port, family)
    for source, target in product(PODS, PODS)
    if source != target
    for protocol, port in (("TCP", 80), ("TCP", 81), ("UDP", 80), ("SCTP", 80))
    for family in (4, 6)
]
BESIDE = [policy("x", "other", policyTypes=["Ingress", "Egress"])]
"""What the other tenant has all the time."""


async def put_policies(lab: Lab, world: World) -> None:
    """The world's policies on all nodes, and nothing but them in the kernel."""
    stale = [k for k, one in lab.parts.items() if isinstance(one, Policy | Group) and one.tenant == world.tenant]
    for key in stale:
        del lab.parts[key]
    for part in world.parts():
        lab.put(part)
    await lab.deploy()
    await lab.verify()


async def test_packets_go_as_the_oracle_says_whatever_stood_before(lab: Lab) -> None:
    populate(lab, ("acme", "globex"))
    await lab.deploy()
    acme, globex = World("acme"), World("globex")
    globex.apply(BESIDE)
    await put_policies(lab, globex)
    beside = {probe for probe in PROBES if allowed(BESIDE, probe)}
    assert 0 < len(beside) < len(PROBES)
    with Servers(lab, ("acme", "globex")) as servers:
        for number, (name, policies) in enumerate(CASES.items()):
            acme.apply(policies)
            await put_policies(lab, acme)
            expected = {probe for probe in PROBES if allowed(policies, probe)}
            seen = reached(lab, "acme", PROBES, servers, expected)
            assert (sorted(map(str, seen - expected)), sorted(map(str, expected - seen))) == ([], []), name
            if number % 9 == 0:
                assert reached(lab, "globex", PROBES, servers, beside) == beside, name
