"""What policies mean, compiled and walked, against an oracle that knows no groups."""

from __future__ import annotations

from itertools import product

import pytest

from polder.sdn.render.linux.items import Chain
from polder.sdn.render.linux.policy import render_policy
from polder.sdn.topology.policies import Policy
from polder.sdn.topology.types import Port
from polder.sdn.topology.walk import Packet, Walk
from tests.unit.sdn.policy_cases import CASES
from tests.unit.sdn.policy_world import PODS, Probe, World, allowed, policy

PROBES = [
    Probe(source, target, protocol, port, family)
    for source, target in product(PODS, PODS)
    for protocol, port in (("TCP", 80), ("TCP", 81), ("UDP", 80), ("SCTP", 80))
    for family in (4, 6)
]


def walk_of(world: World) -> Walk:
    ports = [Port("acme", p.full, f"default/{p.network}", p.node, p.addresses, "") for p in PODS]
    return Walk([*world.parts(), *ports])


@pytest.mark.parametrize("name", CASES)
def test_every_pair_of_pods_is_judged_as_kubernetes_says(name: str) -> None:
    world = World()
    world.apply(CASES[name])
    walk = walk_of(world)
    for probe in PROBES:
        decisions = walk.decide(Packet(*probe.addresses, probe.protocol, probe.port))
        assert all(one.allowed for one in decisions) == allowed(CASES[name], probe), (str(probe), decisions)


def test_one_world_after_the_other_gives_what_a_new_one_gives() -> None:
    world = World()
    for name in (*CASES, *reversed(CASES)):
        world.apply(CASES[name])
        fresh = World()
        fresh.apply(CASES[name])
        assert sorted(map(repr, world.parts())) == sorted(map(repr, fresh.parts())), name


def test_peers_times_ports_are_as_many_rules_as_their_sum() -> None:
    peers = [{"podSelector": {"matchLabels": {"n": str(n)}}} for n in range(500)]
    spec = {"ingress": [{"from": peers, "ports": [{"port": f"p{n}"} for n in range(500)]}]}
    world = World()
    world.apply([policy("x", "large", **spec)])
    large = next(part for part in world.parts() if isinstance(part, Policy))
    chains = [item for item in render_policy(large, ["acme"]) if isinstance(item, Chain)]
    assert len(chains) == 2
    assert sum(len(chain.text.splitlines()) for chain in chains) == 2000
