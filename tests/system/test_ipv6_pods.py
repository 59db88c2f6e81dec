"""IPv6 from the API to the packet: tenants with prefixes of both families and of IPv6 alone, through the CNI plugin."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from polder.api.meta import ref_of
from polder.api.polder import Port
from polder.apiserver.dial import DialError
from polder.base.ids import TenantName
from tests.system.lab import OUTSIDE, OUTSIDE6, UNDERLAY6
from tests.system.site import Sandbox, Site
from tests.system.test_dial import agent, greeting

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


async def test_the_servers_calls_reach_pods_of_ipv6_alone_on_every_node(site: Site) -> None:
    six, other = TenantName("six"), TenantName("other")
    for tenant in (six, other):
        await site.tenant(tenant, "fd00:10::/64")
    pods = [await added(site, "six", name, node) for name, node in (("near", "n1"), ("far", "n2"))]
    await added(site, "other", "one", "n1")
    async with agent(site, "n1"):
        for box, addresses, _ in pods:
            with box.host.tcp_server(address="::") as seen:
                assert await greeting(site, addresses[0], tenant=six) == box.container
                assert len(seen) == 1
                assert seen[0].startswith("fd70:6f6c:6465:7200:"), "the router's own address"
        with site.lab.outside.tcp_server(address="::"), site.lab.nodes["n1"].host.tcp_server(address="::"):
            assert await greeting(site, OUTSIDE6, tenant=six) == "outside"
            for address in (
                f"{UNDERLAY6}:1",
                "::1",
                "::ffff:192.168.77.1",
                seen[0],
                "fe80::1",
                "ff02::1",
                "fe80::1%up",
            ):
                with pytest.raises((DialError, TimeoutError)):
                    async with asyncio.timeout(1.5):
                        await greeting(site, address, tenant=six)


async def test_names_that_have_ipv6_addresses_alone_are_called(site: Site) -> None:
    await added(site, "acme", "web", "n1")
    outside, done = site.lab.outside, threading.Event()
    server = outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((OUTSIDE, 53))
    server.settimeout(0.1)

    def answer() -> None:
        while not done.is_set():
            try:
                query, peer = server.recvfrom(512)
            except TimeoutError:
                continue
            wanted = query.endswith(b"\0\x1c\0\1")
            record = b"\xc0\x0c\0\x1c\0\1\0\0\0\x09\0\x10" + socket.inet_pton(socket.AF_INET6, OUTSIDE6)
            head = query[:2] + b"\x81\x80\0\1\0" + bytes([wanted]) + bytes(4)
            server.sendto(head + query[12:] + (record if wanted else b""), peer)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        async with agent(site, "n1", (OUTSIDE,)):
            with outside.tcp_server(address="::"):
                assert await greeting(site, "six.test") == "outside"
    finally:
        done.set()
        thread.join()
        server.close()


async def test_the_tenants_api_is_reached_at_an_ipv6_address(site: Site) -> None:
    """The agent listens inside the router, where the ``kubernetes`` service's address is; its first packets are TCP."""
    await site.tenant("six", "fd00:10::/64")
    box, mine, _ = await added(site, "six", "one", "n1")
    node = site.nodes["n1"]
    assert node.live.pipeline.entries() == {"six": "fd00:10:96::1"}
    with await node.machine.kernel.listen_in("six", "fd00:10:96::1", 443) as door:
        call = asyncio.create_task(asyncio.to_thread(box.host.tcp, "fd00:10:96::1", 443))
        connection, peer = await asyncio.get_running_loop().sock_accept(door)
        with connection:
            connection.sendall(b"door")
        assert (await call, peer[0]) == ("door", mine[0])
    service = await site.admin.raw("GET", "/tenants/six/api/v1/namespaces/default/services/kubernetes")
    assert b'"clusterIP":"fd00:10:96::1"' in service
