"""IPv6 by real packets: dual-stack and IPv6-only networks on one and two nodes, beside a tenant with the same addresses."""

from __future__ import annotations

import pytest

from polder.system.net.netns import run_inside
from polder.system.net.sysctl import write_sysctl
from tests.system.lab import OUTSIDE6, UNDERLAY6, Host, Lab
from tests.system.test_multicast import talk

pytestmark = pytest.mark.system
PODS = (
    ("web", "n1", "10.0.1.10,fd00:1::10", "a"),
    ("client", "n1", "10.0.1.11,fd00:1::11", "a"),
    ("far", "n2", "10.0.1.12,fd00:1::12", "a"),
    ("other", "n2", "fd00:2::10", "b"),
    ("near", "n1", "fd00:2::11", "b"),
)
"""Network a has both families, b has IPv6 only."""


def two_tenants(lab: Lab) -> dict[str, Host]:
    """acme and globex: the same networks, the same addresses, on both nodes."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:1::/64", "b": "fd00:2::/64"})
        for name, node, address, network in PODS:
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    return pods


async def test_pods_reach_each_other_by_both_families_on_one_and_two_nodes_and_between_networks(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    await lab.verify()
    for tenant in ("acme", "globex"):
        client = pods[f"{tenant}.client"]
        for name, address in (
            ("web", "fd00:1::10"),
            ("far", "fd00:1::12"),
            ("near", "fd00:2::11"),
            ("other", "fd00:2::10"),
        ):
            with pods[f"{tenant}.{name}"].tcp_server(address="::") as seen:
                assert client.tcp(address) == f"{tenant}.{name}", (tenant, address)
                assert seen == ["fd00:1::11"]
            assert client.ping(address)
        with pods[f"{tenant}.far"].tcp_server():
            assert client.tcp("10.0.1.12") == f"{tenant}.far"
        assert client.ping("fd00:1::1"), "the gateway answers its own network"
        assert pods[f"{tenant}.near"].ping("fd00:2::1")


async def test_egress_leaves_by_the_nodes_address_and_comes_back_to_the_right_tenant(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    with lab.outside.tcp_server(address="::") as seen:
        for name in ("acme.web", "globex.web", "acme.other"):
            assert pods[name].tcp(OUTSIDE6) == "outside"
    assert seen == [f"{UNDERLAY6}:1", f"{UNDERLAY6}:1", f"{UNDERLAY6}:2"]
    assert pods["acme.web"].ping(OUTSIDE6)


async def test_all_of_it_holds_where_rules_see_bridged_frames(lab: Lab) -> None:
    """As with services and policies in a tenant: bridge-nf-call-ip6tables."""
    pods = two_tenants(lab)
    await lab.deploy()
    for node in ("n1", "n2"):
        with lab.space(node, "acme") as netns:
            for name in ("iptables", "ip6tables"):
                run_inside(netns, lambda name=name: write_sysctl(f"net/bridge/bridge-nf-call-{name}", "1"))
    client = pods["acme.client"]
    for name, address in (
        ("web", "fd00:1::10"),
        ("far", "fd00:1::12"),
        ("near", "fd00:2::11"),
        ("other", "fd00:2::10"),
    ):
        with pods[f"acme.{name}"].tcp_server(address="::") as seen:
            assert client.tcp(address) == f"acme.{name}", address
            assert seen == ["fd00:1::11"]
    assert client.ping("fd00:1::1")
    with lab.outside.tcp_server(address="::"):
        assert client.tcp(OUTSIDE6) == "outside"
    for group in ("239.1.2.3", "ff05::1:3"):
        with pods["acme.web"].sniff("eth0") as at_web, pods["acme.far"].sniff("eth0") as at_far:
            talk(client, group, b"to a group")
            assert at_web(b"to a group"), group
            assert at_far(b"to a group"), group
