"""Which of a node's ports the node itself has a way to, as objects come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polder.sdn.render.linux.desired import Desired, PartKey, key_of
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import NODE, Route
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router, RouterAddress
from tests.unit.sdn.objects import FACTS

POD = "10.1.0.5"
NET = Network("root", "kube-system/default", 7, "10.1.0.0/24", "10.1.0.1", "default")
WEB = Port("root", "default/web", NET.name, "far", (POD,), "0a:58:0a:01:00:05")


def world(network: Network = NET, port: Port = WEB, facts: NodeFacts = FACTS) -> Desired:
    desired = Desired(facts)
    addresses = (RouterAddress(FACTS.name, "100.64.0.1"),)
    parts: list[Part] = [Router(network.tenant, "kube-system/default", addresses=addresses), network, port]
    parts += [NodeAddress(FACTS.name, FACTS.underlay), NodeAddress("far", "192.0.2.200")]
    for part in parts:
        desired.put(key_of(part), part)
    return desired


def ways(desired: Desired, key: PartKey) -> set[str]:
    return {one.destination for one in desired.render(key) if isinstance(one, Route) and one.space == NODE}


def test_only_the_platforms_ports_on_a_router_have_a_way_from_the_node() -> None:
    assert ways(world(), key_of(WEB)) == {f"{POD}/32"}
    acme = replace(NET, tenant="acme"), replace(WEB, tenant="acme")
    assert ways(world(*acme), key_of(acme[1])) == set()
    assert ways(world(replace(NET, router="", gateway="")), key_of(WEB)) == set()
    own = replace(NET, name="team/a"), replace(WEB, network="team/a")
    assert ways(world(*own), key_of(WEB)) == set(), "whoever makes networks of any prefix draws nothing of the node's"
    assert ways(world(port=replace(WEB, node=FACTS.name)), key_of(WEB)) == set(), "nothing is there that could answer"


def test_a_machine_that_comes_with_a_pods_address_has_it_on_the_node() -> None:
    desired = world()
    twin = NodeAddress("twin", POD)
    assert key_of(WEB) in desired.put(key_of(twin), twin) and ways(desired, key_of(WEB)) == set()
    assert key_of(WEB) in desired.put(key_of(twin), None) and ways(desired, key_of(WEB)) == {f"{POD}/32"}


@pytest.mark.parametrize(
    ("protected", "kept"),
    [
        ("10.1.0.5", True),
        ("10.1.0.0/28", True),
        ("10.1.0.4-10.1.0.9", True),
        ("10.1.0.6-10.1.0.9", False),
        ("fd00::/8", False),
    ],
)
def test_what_is_protected_keeps_its_meaning_on_the_node(protected: str, kept: bool) -> None:
    assert ways(world(facts=replace(FACTS, protected=(protected,))), key_of(WEB)) == (set() if kept else {f"{POD}/32"})
