"""IPv6 by real packets: dual-stack and IPv6-only networks on one and two nodes, beside a tenant with the same addresses."""

from __future__ import annotations

import pytest

from tests.system.lab import OUTSIDE6, UNDERLAY6, Host, Lab

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
