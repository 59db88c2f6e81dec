"""IPv6 from the API to the packet: tenants with prefixes of both families and of IPv6 alone, through the CNI plugin."""

from __future__ import annotations

import asyncio

import pytest

from polder.api.meta import ref_of
from polder.api.polder import Port
from tests.system.site import Sandbox, Site

pytestmark = pytest.mark.system


async def added(site: Site, tenant: str, name: str, node: str, **annotations: str) -> tuple[Sandbox, list[str], dict]:
    """A pod's sandbox, its addresses and what the plugin answered."""
    box = await site.prepared(tenant, name, node, **annotations)
    answer = await site.nodes[node].add(box)
    return box, [one["address"].partition("/")[0] for one in answer["ips"]], answer


async def test_a_tenant_of_both_families_gives_each_pod_an_address_of_each(site: Site) -> None:
    await site.tenant("both", "10.0.0.0/16", "fd00:10::/64")
    one, mine, answer = await added(site, "both", "one", "n1")
    _, theirs, _ = await added(site, "both", "two", "n2")
    assert [one["gateway"] for one in answer["ips"]] == ["10.0.0.1", "fd00:10::1"]
    assert [(route["dst"], route["gw"]) for route in answer["routes"]] == [
        ("0.0.0.0/0", "10.0.0.1"),
        ("::/0", "fd00:10::1"),
    ]
    assert [":" in address for address in mine] == [False, True]
    for address in (*theirs, "10.0.0.1", "fd00:10::1"):
        assert await asyncio.to_thread(one.host.ping, address), address
    claimed = {f"default.{address.replace(':', '-')}" for address in (*mine, *theirs)}
    assert claimed == set(await site.addresses("both"))
    network = await site.network("both", "kube-system", "default")
    assert network.status.gateways == ["10.0.0.1", "fd00:10::1"]


async def test_a_tenant_of_ipv6_alone_works_without_any_ipv4(site: Site) -> None:
    await site.tenant("six", "fd00:10::/64")
    await site.tenant("other", "fd00:10::/64")
    one, mine, answer = await added(site, "six", "one", "n1")
    two, theirs, _ = await added(site, "six", "two", "n2", address="fd00:10::77")
    twin, _, _ = await added(site, "other", "one", "n1", address="fd00:10::77")
    assert answer["ips"][0]["gateway"] == "fd00:10::1"
    assert (len(mine), theirs) == (1, ["fd00:10::77"])
    with two.host.tcp_server(address="::") as seen, twin.host.tcp_server(address="::"):
        assert await asyncio.to_thread(one.host.tcp, "fd00:10::77") == two.container
        assert seen == mine
    await site.nodes["n1"].delete(one)
    assert not await asyncio.to_thread(two.host.ping, mine[0], 0.3)


async def test_a_full_family_gives_the_other_familys_claim_back(site: Site) -> None:
    await site.create_network("acme", "tight", "10.9.0.0/29", "fd00:9::/64")
    taken = [await added(site, "acme", f"p{n}", "n1", network="default/tight") for n in range(5)]
    assert len({address for _, addresses, _ in taken for address in addresses}) == 10
    pod = await site.pod("acme", "late", "n2", network="default/tight")
    late = site.nodes["n2"]
    for _ in range(3):
        code, answer = await late.cni(site.sandbox(pod).environment("ADD"))
        assert code == 1
    assert "is full" in answer["details"], answer
    held = [name for name in await site.addresses("acme") if name.startswith("tight.")]
    assert len(held) == 10, "what was claimed of IPv6 for the pod without IPv4 is free again"
    ports = {ref_of(port).name: port for port in await site.ports("acme")}
    assert all(isinstance(port, Port) for port in ports.values())


async def test_an_isolated_network_of_both_families(site: Site) -> None:
    await site.create_network("acme", "island", "10.9.0.0/24", "fd00:9::/64", router="")
    one, _, answer = await added(site, "acme", "one", "n1", network="default/island")
    _, near, _ = await added(site, "acme", "near", "n1", network="default/island")
    _, far, _ = await added(site, "acme", "far", "n2", network="default/island")
    _, home, _ = await added(site, "acme", "home", "n1")
    assert all("gateway" not in ip for ip in answer["ips"])
    for address in (*near, *far):
        assert await asyncio.to_thread(one.host.ping, address), address
    for address in home:
        assert not await asyncio.to_thread(one.host.ping, address, 0.2), address
