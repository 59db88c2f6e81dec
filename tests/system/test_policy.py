"""Policies with packets: who reaches whom, in both directions, on one node and two, beside a tenant of the same names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polder.sdn.render.linux.items import Chain, PortLink
from polder.sdn.topology.policies import Group, GroupMember, Peer, Policy, PolicyRule, Ports
from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from tests.system.lab import BRIEF, PATIENT, Lab

pytestmark = pytest.mark.system
CLIENT, WEB, FAR, OTHER = "10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.2.10"
HTTP = Ports("TCP", 8080, 8080)


def member(name: str, address: str, network: str = "a", *ports: Ports) -> GroupMember:
    return GroupMember(f"default/{name}", f"default/{network}", (address,), ports)


async def town(lab: Lab) -> None:
    """acme's client and web on n1, far on n2, other in a second network; globex has the same names and addresses."""
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24", "b": "10.0.2.0/24"})
        lab.pod(tenant, "client", "n1", CLIENT)
        lab.pod(tenant, "web", "n1", WEB)
        lab.pod(tenant, "far", "n2", FAR)
        lab.pod(tenant, "other", "n1", OTHER, "b")
    await lab.deploy()


def group(name: str, *members: GroupMember, peer: bool = False, named: bool = False) -> Group:
    return Group("acme", f"/{name}", peer, named, members)


def reaches(
    lab: Lab, tenant: str, source: str, to: str, address: str, port: int = 8080, seconds: float = PATIENT
) -> bool:
    with lab.pods[f"{tenant}.{to}"].tcp_server(port):
        return lab.pods[f"{tenant}.{source}"].tcp(address, port, seconds) == f"{tenant}.{to}"


async def test_an_isolated_pod_takes_what_a_rule_allows_and_globex_is_untouched(lab: Lab) -> None:
    await town(lab)
    assert reaches(lab, "acme", "client", "web", WEB), "control: free without policies"
    lab.put(group("web", member("web", WEB)))
    deny = Policy("acme", "default/deny", "network", "web", isolates=("ingress",))
    lab.put(deny)
    await lab.deploy()
    await lab.verify()
    for source in ("client", "far", "other"):
        assert not reaches(lab, "acme", source, "web", WEB, seconds=BRIEF), source
        assert reaches(lab, "globex", source, "web", WEB), source
    assert reaches(lab, "acme", "web", "client", CLIENT), "egress is free"
    assert reaches(lab, "acme", "web", "far", FAR)
    lab.put(group("friends", member("far", FAR), member("other", OTHER, "b"), peer=True))
    lab.put(replace(deny, ingress=(PolicyRule("accept", (Peer("friends"),), (HTTP,)),)))
    await lab.deploy()
    await lab.verify()
    assert not reaches(lab, "acme", "client", "web", WEB, seconds=BRIEF)
    for source in ("far", "other"):
        assert reaches(lab, "acme", source, "web", WEB), source
        assert not reaches(lab, "acme", source, "web", WEB, 8081, seconds=BRIEF), source
    with lab.space("n1", "acme") as netns:
        assert "packets 0" not in run_inside(
            netns, lambda: run_nft("list chain inet policies " + chain_that_drops(lab))
        )


def chain_that_drops(lab: Lab) -> str:
    items = (item for item in lab.nodes["n1"].items if item.slot[0] == "chain" and "drop" in item.text)  # type: ignore[union-attr]
    return next(item.slot[-1] for item in items)


async def test_no_pod_is_connected_while_its_tenants_policies_are_not_in_force(lab: Lab) -> None:
    await town(lab)
    lab.put(group("web", member("web", WEB)))
    lab.put(Policy("acme", "default/deny", "network", "web", isolates=("ingress",)))
    await lab.deploy()
    lab.pod("acme", "late", "n1", "10.0.1.13")
    lab.pod("globex", "late", "n1", "10.0.1.13")
    node = lab.nodes["n1"]
    coming = lab.desired(node) - node.items
    broken = Chain("acme", "inet", "policies", "p.ingress.broken", "no such rule")
    failures = {one.item: one for one in await node.kernel.apply((), coming | {broken})}
    links = {one.space: one for one in coming if isinstance(one, PortLink)}
    assert {broken, links["acme"]} <= failures.keys()
    assert links["globex"] not in failures
    assert failures[links["acme"]].retry
    assert "not in force" in failures[links["acme"]].reason
    assert not lab.pods["acme.client"].ping("10.0.1.13", seconds=BRIEF)
    assert not await node.kernel.apply((), failures.keys() - {broken}), "control: without it the pod is connected"
    assert lab.pods["acme.client"].ping("10.0.1.13")
