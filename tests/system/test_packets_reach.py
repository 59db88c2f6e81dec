"""What reaches what, by real packets: one and two nodes, through the router, to the outside, and never another tenant."""

from __future__ import annotations

import pytest

from tests.system.lab import BRIEF, OUTSIDE, UNDERLAY, Host, Lab

pytestmark = pytest.mark.system


def two_tenants(lab: Lab) -> dict[str, Host]:
    """acme and globex: the same networks, the same addresses, on both nodes."""
    pods = {}
    for number, tenant in ((7, "acme"), (8, "globex")):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24", "b": "10.0.2.0/24"})
        for name, node, address, network in (
            ("web", "n1", "10.0.1.10", "a"),
            ("client", "n1", "10.0.1.11", "a"),
            ("far", "n2", "10.0.1.12", "a"),
            ("other", "n2", "10.0.2.10", "b"),
            ("near", "n1", "10.0.2.11", "b"),
        ):
            pods[f"{tenant}.{name}"] = lab.pod(tenant, name, node, address, network)
    return pods


async def test_pods_of_a_tenant_reach_each_other_on_one_and_two_nodes_and_between_networks(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    await lab.verify()
    for tenant in ("acme", "globex"):
        client = pods[f"{tenant}.client"]
        for name, address in (
            ("web", "10.0.1.10"),  # same network, same node
            ("far", "10.0.1.12"),  # same network, two nodes
            ("near", "10.0.2.11"),  # two networks, same node
            ("other", "10.0.2.10"),  # two networks, two nodes
        ):
            with pods[f"{tenant}.{name}"].tcp_server() as seen:
                assert client.tcp(address) == f"{tenant}.{name}"  # and never the other tenant's of that address
                assert seen == ["10.0.1.11"]
            assert client.ping(address)
        assert client.ping("10.0.1.1"), "the gateway answers its own network"


async def test_egress_leaves_by_the_nodes_address_and_comes_back_to_the_right_tenant(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    with lab.outside.tcp_server(address=OUTSIDE) as seen:
        for name in ("acme.web", "globex.web", "acme.far"):
            assert pods[name].tcp(OUTSIDE) == "outside"
    assert seen == [f"{UNDERLAY}.1", f"{UNDERLAY}.1", f"{UNDERLAY}.2"]
    assert pods["acme.web"].ping(OUTSIDE)


async def test_a_pod_reaches_no_node_no_transit_no_other_router(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    web = pods["acme.web"]
    with lab.outside.tcp_server(), lab.nodes["n1"].host.tcp_server(), lab.nodes["n2"].host.tcp_server():
        assert web.tcp(f"{UNDERLAY}.100") == "outside", "control: the wire is reachable by the same way"
        assert lab.outside.tcp(f"{UNDERLAY}.1") == "n1", "control: the nodes answer on the wire"
        assert lab.outside.tcp(f"{UNDERLAY}.2") == "n2"
        for node in (f"{UNDERLAY}.1", f"{UNDERLAY}.2", "169.254.1.1", f"{UNDERLAY}.99"):
            assert not web.ping(node, seconds=BRIEF), node
            assert web.tcp(node, seconds=BRIEF) == "", node
        for router in ("100.64.1.7", "100.64.2.7", "100.64.1.8", "100.64.2.8"):
            assert not web.ping(router, seconds=BRIEF), router
    assert lab.nodes["n1"].host.ping("100.64.1.7") is False, "the router opens nothing to the node either"


async def test_tenants_do_not_meet(lab: Lab) -> None:
    """The same addresses twice: an address that only one tenant has is nowhere for the other."""
    pods = two_tenants(lab)
    lonely = lab.pod("acme", "lonely", "n2", "10.0.1.77")
    await lab.deploy()
    with lonely.tcp_server() as seen:
        assert pods["acme.client"].tcp("10.0.1.77") == "acme.lonely"
        for name in ("client", "far", "near", "other"):
            pod = pods[f"globex.{name}"]
            assert pod.tcp("10.0.1.77", seconds=BRIEF) == ""
            assert not pod.ping("10.0.1.77", seconds=BRIEF)
    assert seen == ["10.0.1.11"]


async def test_a_port_that_goes_passes_nothing_at_once_and_nothing_is_left_at_the_end(lab: Lab) -> None:
    pods = two_tenants(lab)
    await lab.deploy()
    assert pods["acme.client"].ping("10.0.1.10")
    key = next(key for key, part in lab.parts.items() if part.name == "default/web" and part.tenant == "acme")
    del lab.parts[key]
    await lab.deploy()
    assert not pods["acme.client"].ping("10.0.1.10", seconds=BRIEF)
    assert pods["globex.client"].ping("10.0.1.10"), "control: the other tenant's of the same address lives"
    await lab.verify()
    lab.parts.clear()
    for node in lab.nodes.values():
        gone = node.items
        assert not await node.kernel.apply(gone, [])
        assert await node.kernel.observe(gone) <= {item for item in gone if type(item).__name__ == "Sysctl"}
        assert sorted(one.name for one in lab_links(node.host)) == ["eth0", "lo"]


def lab_links(host: Host) -> list[object]:
    from polder.system.net.dumps import links

    return list(links(host.route))
