"""Services as objects, on a real server and agents: from what a tenant writes to what its pods reach, and what stays so."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from typing import Any

import pytest

from polder.system.net.netns import run_inside
from polder.system.net.nft import run_nft
from tests.system.lab import Host
from tests.system.site import Sandbox, Site, until

pytestmark = pytest.mark.system
ADDRESS = "10.96.0.77"


async def write(site: Site, tenant: str, path: str, body: dict[str, Any], verb: str = "POST") -> dict[str, Any]:
    kind = "merge-patch+json" if verb == "PATCH" else "json"
    made = await site.admin.raw(
        verb, f"/tenants/{tenant}{path}", json.dumps(body).encode(), content_type=f"application/{kind}"
    )
    return made if isinstance(made, dict) else json.loads(made)


async def service(site: Site, tenant: str, *endpoints: tuple[str, str], **spec: Any) -> None:
    """``web`` at ADDRESS, port 80, with endpoints by (address, node) at 8080."""
    spec = {"clusterIP": ADDRESS, "ports": [{"port": 80}], **spec}
    await write(site, tenant, "/api/v1/namespaces/default/services", {"metadata": {"name": "web"}, "spec": spec})
    await write(site, tenant, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", endpoint_slice(*endpoints))


def endpoint_slice(*endpoints: tuple[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "nodeName": node} for address, node in endpoints],
        "ports": [{"port": 8080}],
    }


async def change(site: Site, tenant: str, *endpoints: tuple[str, str]) -> None:
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-1"
    await write(site, tenant, path, endpoint_slice(*endpoints), "PATCH")


async def attached(site: Site, tenant: str, name: str, node: str) -> tuple[Sandbox, str]:
    """A pod with its link, and its address."""
    sandbox = await site.prepared(tenant, name, node)
    answer = await site.nodes[node].add(sandbox)
    return sandbox, answer["ips"][0]["address"].partition("/")[0]


async def reaches(host: Host, wanted: set[str], seconds: float = 5.0) -> None:
    """A client finds exactly these behind the service, within some seconds."""

    async def found() -> bool:
        return {await asyncio.to_thread(host.tcp, ADDRESS, 80, 0.5) for _ in range(12)} == wanted

    await until(found, seconds, f"{host.name} finds {wanted}")


async def test_what_a_tenant_writes_is_what_its_pods_reach(site: Site) -> None:
    await site.tenant("globex")
    pods = {}
    for tenant in ("acme", "globex"):
        for name, node in (("client", "n1"), ("web", "n1"), ("far", "n2")):
            pods[tenant, name] = await attached(site, tenant, name, node)
    assert pods["acme", "web"][1] == pods["globex", "web"][1], "the same addresses in both"
    web, far = (pods["acme", name][0].host for name in ("web", "far"))
    at_web, at_far = (pods["acme", "web"][1], "n1"), (pods["acme", "far"][1], "n2")
    await service(site, "acme", at_web, at_far)
    await service(site, "globex", (pods["globex", "far"][1], "n2"))
    client, other = pods["acme", "client"][0].host, pods["globex", "client"][0].host
    with web.tcp_server(), far.tcp_server(), pods["globex", "far"][0].host.tcp_server():
        for host in (client, web, far):
            await reaches(host, {web.name, far.name})
        await reaches(other, {pods["globex", "far"][0].host.name})
        await change(site, "acme", at_far)
        await reaches(client, {far.name})
        await change(site, "acme")
        await reaches(client, {""})
        await reaches(other, {pods["globex", "far"][0].host.name})


async def test_an_agents_restart_changes_nothing_and_connections_go_on(site: Site) -> None:
    client, _ = await attached(site, "acme", "client", "n1")
    near, at_near = await attached(site, "acme", "near", "n1")
    far, at_far = await attached(site, "acme", "far", "n2")
    await service(site, "acme", (at_near, "n1"), (at_far, "n2"))
    with near.host.tcp_server(), far.host.tcp_server():
        await reaches(client.host, {near.host.name, far.host.name})
    listener = far.host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", 8080))
    listener.listen(8)
    listener.settimeout(1)
    await change(site, "acme", (at_far, "n2"))
    await until(lambda: at_near not in rules(site, "n1", "acme"))
    with client.host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock, listener:
        sock.settimeout(1)
        sock.connect((ADDRESS, 80))
        connection, _ = listener.accept()
        with connection:
            await change(site, "acme", (at_near, "n1"), (at_far, "n2"))
            await until(lambda: at_near in rules(site, "n1", "acme"))
            before = rules(site, "n1", "acme")
            for node in site.nodes.values():
                await node.stop()
                await node.start()
            for number in range(20):
                sock.sendall(b"%d" % number)
                assert connection.recv(10) == b"%d" % number
                await asyncio.sleep(0.05)
            await until(lambda: all(node.live.pipeline.synced for node in site.nodes.values()))
            await asyncio.sleep(0.3)
            assert rules(site, "n1", "acme") == before, "handles and all"
            sock.sendall(b"end")
            assert connection.recv(10) == b"end"


async def test_rules_that_somebody_deletes_come_back_within_five_seconds(site: Site) -> None:
    client, _ = await attached(site, "acme", "client", "n1")
    near, at_near = await attached(site, "acme", "near", "n1")
    await service(site, "acme", (at_near, "n1"))
    with near.host.tcp_server():
        await reaches(client.host, {near.host.name})
        whole = everything(site)
        for broken in (
            "delete table inet service",
            f"delete element inet service vips4 {{ {ADDRESS} . tcp . 80 }}",
            "flush chain inet service pick-1",
            "delete table inet polder",
        ):
            inside(site, "n1", "acme", broken)
            if "polder" not in broken:
                assert client.host.tcp(ADDRESS, 80, 0.3) == "", broken
            await until(lambda: everything(site) == whole, 5, broken)
            await reaches(client.host, {near.host.name}, 1)


def inside(site: Site, node: str, space: str, commands: str) -> str:
    with site_space(site, node, space) as netns:
        return run_inside(netns, lambda: run_nft(commands))


def rules(site: Site, node: str, space: str) -> str:
    """The table of services, without counters of time."""
    return inside(site, node, space, "list table inet service")


def everything(site: Site) -> list[str]:
    """All rules of acme on n1, in no order of elements."""
    return sorted(re.sub(r"[{},]", " ", inside(site, "n1", "acme", "list ruleset")).split())


def site_space(site: Site, node: str, space: str) -> Any:
    from polder.system.net.netns import open_netns

    return open_netns(site.lab.directory / f"{node}.routers" / space)
