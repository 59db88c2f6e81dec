"""Calls out of the server leave from the tenant's own router: real routers, pods and rules, two nodes and the outside."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from polder.api.errors import ApiError
from polder.apiserver.authn import NODES
from polder.apiserver.dial import DialError, Target
from polder.base.ids import TenantName
from polder.client.client import ClientSettings
from polder.node.dial import Dials
from polder.node.names import Names
from polder.node.stream import ServerStream
from polder.system.pki import Pki, ensure_pki, server_context
from tests.system.lab import OUTSIDE, UNDERLAY, Host
from tests.system.site import Sandbox, Site, until

pytestmark = pytest.mark.system
ACME = TenantName("acme")


@asynccontextmanager
async def agent(site: Site, name: str, servers: tuple[str, ...] = ()) -> AsyncIterator[None]:
    """The node's stream to the server, serving dials."""
    node = site.nodes[name]
    kernel, network = node.machine.kernel, node.live

    async def datagram(space: str, source: str, address: str, port: int) -> socket.socket:
        return await kernel.connect_in(space, address, port, source, datagram=True)

    dials = Dials(network.router_of, kernel.connect_in, Names(lambda: servers, datagram).lookup)
    stem = site.folder / f"stream-{name}"
    leaf = site.pki.issue_client(f"system:node:{name}", [NODES])
    leaf.write(stem.with_suffix(".crt"), stem.with_suffix(".key"))
    settings = ClientSettings(
        f"https://127.0.0.1:{site.port}", site.pki.serving_ca, stem.with_suffix(".crt"), stem.with_suffix(".key")
    )
    stream = ServerStream(settings, {"dial": dials.serve})
    task = asyncio.create_task(stream.run())
    try:
        async with asyncio.timeout(5):
            await stream.wait_connected()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: name not in site.server._identity.streams.nodes, what="the stream is gone")


async def attached(site: Site, name: str, node: str, tenant: str = "acme") -> tuple[Sandbox, str]:
    sandbox = await site.prepared(tenant, name, node)
    answer = await site.nodes[node].add(sandbox)
    return sandbox, str(answer["ips"][0]["address"].partition("/")[0])


async def greeting(site: Site, address: str, port: int = 8080, tenant: TenantName = ACME, node: str = "") -> str:
    """What a server that speaks first says."""
    sock = await site.server._identity._dialer.connect(Target(tenant, address, port, node))
    try:
        async with asyncio.timeout(3):
            return (await asyncio.get_running_loop().sock_recv(sock, 100)).decode()
    finally:
        sock.close()


async def test_a_dial_reaches_the_tenants_pods_on_every_node_from_the_routers_address(site: Site) -> None:
    (near, near_address), (far, far_address) = await attached(site, "near", "n1"), await attached(site, "far", "n2")
    async with agent(site, "n1"):
        router = site.nodes["n1"].live.router_of("acme")
        assert router is not None
        for host, address in ((near.host, near_address), (far.host, far_address)):
            with host.tcp_server() as seen:
                assert await greeting(site, address) == host.name
            assert seen == [router[1]], "the address that only this node's router has"


async def test_a_dial_goes_where_a_pod_could_go_and_nowhere_else(site: Site) -> None:
    await attached(site, "web", "n1")
    await site.tenant("globex")
    other, other_address = await attached(site, "lonely", "n1", "globex")
    n1, outside = site.lab.nodes["n1"].host, site.lab.outside
    async with agent(site, "n1"):
        with outside.tcp_server(address=OUTSIDE), n1.tcp_server(), other.host.tcp_server():
            assert await greeting(site, OUTSIDE) == "outside", "control: the outside is reached"
            assert await greeting(site, other_address, tenant=TenantName("globex")) == other.host.name
            router = site.nodes["n1"].live.router_of("globex")
            assert router is not None
            for address in (f"{UNDERLAY}.1", f"{UNDERLAY}.2", "169.254.1.1", "127.0.0.1", router[1], "::1", "0.0.0.0"):
                with pytest.raises((DialError, TimeoutError)):
                    async with asyncio.timeout(1.5):
                        await greeting(site, address)
        for tenant, why in ((TenantName("nobody"), "no node that runs pods"), (ACME, "refused")):
            with pytest.raises(DialError, match=why):
                await greeting(site, OUTSIDE, tenant=tenant)


async def test_names_are_asked_from_the_tenants_router(site: Site) -> None:
    await attached(site, "web", "n1")
    asked: list[tuple[bytes, str]] = []
    outside: Host = site.lab.outside
    server = outside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((OUTSIDE, 53))
    server.settimeout(0.2)
    done = threading.Event()

    def answer() -> None:
        while not done.is_set():
            try:
                query, peer = server.recvfrom(512)
            except TimeoutError:
                continue
            asked.append((query, peer[0]))
            known = b"\4site\4test\0" in query
            record = b"\xc0\x0c" + bytes([0, 1, 0, 1, 0, 0, 0, 9, 0, 4]) + socket.inet_aton(OUTSIDE)
            head = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + bytes([0, 1, 0, int(known), 0, 0, 0, 0])
            server.sendto(head + query[12:] + (record if known else b""), peer)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        async with agent(site, "n1", (OUTSIDE,)):
            with outside.tcp_server(address=OUTSIDE):
                assert await greeting(site, "site.test") == "outside"
            assert asked[0][1] == f"{UNDERLAY}.1", "as what the tenant's pods send leaves the node"
            with pytest.raises(DialError, match=r"dial tcp internal\.test:8080: lookup: no such host"):
                await greeting(site, "internal.test")
            with pytest.raises(DialError, match="no such host"):
                await greeting(site, "localhost")
            assert len(asked) == 5, "IPv6 where there is no IPv4; nothing is known beside what the servers say"
    finally:
        done.set()
        thread.join()
        server.close()


def review(request: web.BaseRequest, said: Any) -> web.Response:
    patch = [{"op": "add", "path": "/data/by", "value": "the tenant's own webhook"}]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    response = {"uid": said["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": encoded}
    return web.json_response({**said, "response": response})


@asynccontextmanager
async def webhook(host: Host, pki: Pki) -> AsyncIterator[list[Any]]:
    """A webhook inside a pod, on port 8443."""
    asked: list[Any] = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        said = await request.json()
        asked.append(said)
        return review(request, said)

    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("", 8443))
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    leaf = pki.issue_serving(["hook.default.svc"], [])
    await web.SockSite(runner, sock, ssl_context=server_context(leaf, pki.clients_ca)).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


async def test_a_tenants_webhook_in_a_pod_is_asked(site: Site, tmp_path: Path) -> None:
    sandbox, address = await attached(site, "hook", "n2")
    pki = ensure_pki(tmp_path / "tenant-pki")
    bundle = base64.b64encode(pki.serving_ca.read_bytes()).decode()
    at = "/tenants/acme/api/v1/namespaces/default"

    async def post(path: str, body: Any) -> Any:
        return json.loads(await site.admin.raw("POST", path, json.dumps(body).encode()))

    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
               "spec": {"clusterIP": "None", "ports": [{"port": 443, "targetPort": 8443}]}}  # fmt: skip
    slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
              "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
              "ports": [{"port": 8443}], "endpoints": [{"addresses": [address], "nodeName": "n2"}]}  # fmt: skip
    where = {"service": {"namespace": "default", "name": "hook"}, "caBundle": bundle}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "hook"},
        "webhooks": [{"name": "hook.acme.example", "clientConfig": where, "rules": [rule], "sideEffects": "None",
                      "admissionReviewVersions": ["v1"], "timeoutSeconds": 3}],
    }  # fmt: skip
    await post(f"{at}/services", service)
    await post("/tenants/acme/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)
    await post("/tenants/acme/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", configuration)
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}}
    async with webhook(sandbox.host, pki) as asked:
        with pytest.raises(ApiError, match="no node that runs pods of this tenant is connected"):
            await post(f"{at}/configmaps", config_map)
        async with agent(site, "n1"), agent(site, "n2"):
            made = await post(f"{at}/configmaps", config_map)
            assert made["data"] == {"a": "1", "by": "the tenant's own webhook"}
            again = {**config_map, "metadata": {"name": "m2"}}
            assert (await post(f"{at}/configmaps", again))["data"]
    assert len(asked) == 2
