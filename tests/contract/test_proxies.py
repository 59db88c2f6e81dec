"""HTTP to pods and services through the API server; what answers is a server of this process behind the agent's stream."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.contract.conftest import Api, Running
from tests.contract.reached import PODS, Node, connected, peopled, socket

POD = f"{PODS}/p:8080/proxy"
SERVICES = "/api/v1/namespaces/default/services"


async def echo(request: web.Request) -> web.StreamResponse:
    """What came, as JSON."""
    body = await request.read()
    shown = {"method": request.method, "path": request.raw_path, "headers": dict(request.headers), "size": len(body)}
    return web.json_response(shown, headers={"X-Mine": "1", "Set-Cookie": "a=b"})


async def page(request: web.Request) -> web.StreamResponse:
    body = b'<a href="/rewriteme">test</a>'
    if request.query.get("gzip"):
        return web.Response(body=gzip.compress(body), headers={"Content-Type": "text/html", "Content-Encoding": "gzip"})
    return web.Response(body=body, content_type="text/html")


async def redirect(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(request.query["to"])


async def upgraded(request: web.Request) -> web.StreamResponse:
    found = web.WebSocketResponse(protocols=("mine",))
    await found.prepare(request)
    async for message in found:
        await found.send_bytes(message.data + request.raw_path.encode())
    return found


async def endless(request: web.Request) -> web.StreamResponse:
    found = web.StreamResponse()
    await found.prepare(request)
    while True:
        await found.write(b"x" * 65536)


async def broken(request: web.Request) -> web.StreamResponse:
    found = web.StreamResponse(headers={"Content-Length": "1000"})
    await found.prepare(request)
    await found.write(b"begun")
    assert request.transport is not None
    request.transport.close()
    return found


@pytest.fixture
async def node(running: Running, tmp_path: Path) -> AsyncIterator[Node]:
    async with connected(running, tmp_path) as found:
        yield found


@pytest.fixture
async def acme(running: Running, admin: Api, node: Node) -> Api:
    return await peopled(running, admin, node)


@pytest.fixture
async def site(node: Node) -> AsyncIterator[None]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/page", page)
    app.router.add_get("/redirect", redirect)
    app.router.add_get("/ws", upgraded)
    app.router.add_get("/endless", endless)
    app.router.add_get("/broken", broken)
    app.router.add_route("*", "/{rest:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    node.web[8080] = runner.addresses[0][1]
    yield
    await runner.cleanup()


@pytest.fixture
async def tenant(acme: Api, site: None) -> Api:
    return acme


async def test_requests_pass_as_they_are_but_for_who_asks(tenant: Api) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = await tenant.call(method, f"{POD}/a%2Fb//c/?q=1&q=2", io.BytesIO(b"x" * 5_000_000) if method == "PUT" else None,
                                   Authorization="Bearer mine", X_Remote_User="root", X_Own="kept")  # fmt: skip
        assert answer.status == 200, answer.body
        seen = answer.json
        assert (seen["method"], seen["path"]) == (method, "/a%2Fb//c/?q=1&q=2")
        assert seen["size"] == (5_000_000 if method == "PUT" else 0)
        assert seen["headers"]["X-Own"] == "kept"
        assert seen["headers"]["X-Forwarded-Uri"] == f"{POD}/a%2Fb//c/"
        assert not {"Authorization", "X-Remote-User"} & seen["headers"].keys()
        assert answer.headers["X-Mine"] == "1"
    head = await tenant.call("HEAD", f"{POD}/x")
    assert (head.status, head.body) == (200, b"")


async def test_a_client_that_waits_for_leave_to_send_gets_it(tenant: Api) -> None:
    url = f"https://127.0.0.1:{tenant.server.port}{POD}/x"
    async with asyncio.timeout(5), tenant.session.post(url, data=b"y" * 1000, expect100=True) as answer:
        seen = await answer.json()
    assert seen["size"] == 1000
    assert "Expect" not in seen["headers"]


async def test_the_root_of_a_proxy_ends_with_a_slash(tenant: Api) -> None:
    url = f"https://127.0.0.1:{tenant.server.port}{POD}?q=1"
    async with tenant.session.get(url, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (301, f"{POD}/?q=1")


@pytest.mark.parametrize("more", ["", "?gzip=1"])
async def test_links_lead_back(running: Running, tenant: Api, more: str) -> None:
    for prefix in ("", "/tenants/acme"):
        answer = await tenant.get(f"{prefix}{POD}/page{more}")
        assert answer.body == f'<a href="{prefix}{POD}/rewriteme">test</a>'.encode()


async def test_redirects_lead_back_and_are_the_clients_to_follow(tenant: Api) -> None:
    host = f"127.0.0.1:{tenant.server.port}"
    for to, shown in (("/x/", f"{POD}/x/"), ("x", "x"), ("http://10.9.8.7:8080/y", f"{POD}/y"), ("http://else/", "http://else/"),
                      (f"https://{host}/z", f"https://{host}{POD}/z")):  # fmt: skip
        url = f"https://{host}{POD}/redirect?to={to}"
        async with tenant.session.get(url, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, shown)


async def test_upgrades_are_carried(tenant: Api) -> None:
    async with asyncio.timeout(10), socket(tenant, f"{POD}/ws?a=b", "mine") as found:
        assert found.protocol == "mine"
        await found.send_bytes(b"hello ")
        assert (await found.receive()).data == b"hello /ws?a=b"
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        async with socket(tenant, f"{POD}/page"):
            pass
    assert caught.value.status == 500


async def test_a_service_is_one_of_its_pods(tenant: Api, node: Node, admin: Api) -> None:
    ports = [{"name": "web", "port": 80, "targetPort": 8080}]
    assert (await tenant.post(SERVICES, {"metadata": {"name": "s"}, "spec": {"ports": ports}})).status == 201

    async def ends(called: str, address: str, **target: str) -> None:
        body = {
            "metadata": {"name": called, "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], **({"targetRef": {"kind": "Pod", **target}} if target else {})}],
        }  # fmt: skip
        made = await tenant.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", body)
        assert made.status == 201, made.body

    none = await tenant.get(f"{SERVICES}/s:web/proxy/x")
    assert (none.status, none.json["message"]) == (503, 'no endpoints available for service "s:web"')
    await ends("by-hand", "192.0.2.7")
    await ends("not-its-own", "10.1.2.3", name="p", namespace="default")
    await ends("elsewhere", "10.9.8.7", name="mine", namespace="default")
    assert (await tenant.get(f"{SERVICES}/s:web/proxy/x")).status == 503, "only what is a pod of the tenant"
    await ends("good", "10.9.8.7", name="p", namespace="default")
    for name in ("s:web", "s:80", "http:s:80"):
        answer = await tenant.get(f"{SERVICES}/{name}/proxy/x")
        assert (answer.status, answer.json["path"]) == (200, "/x")
    assert {(d["tenant"], d["address"], d["port"]) for d in node.opened} == {("acme", "10.9.8.7", 8080)}
    wrong = await tenant.get(f"{SERVICES}/s:81/proxy/x")
    assert (wrong.status, wrong.json["message"]) == (503, 'no service port 81 found for service "s"')
    assert (await tenant.get(f"{SERVICES}/none/proxy/x")).status == 404


async def test_what_does_not_answer_is_unavailable(tenant: Api) -> None:
    refused = await tenant.get(f"{PODS}/p:81/proxy/")
    assert refused.status == 503
    assert refused.json["message"] == (
        "error trying to reach service: dial tcp 10.9.8.7:81: connect: connection refused"
    )
    upgrade = await tenant.get(f"{PODS}/p:81/proxy/", Connection="Upgrade", Upgrade="websocket")
    assert upgrade.status == 503
    assert (await tenant.get(f"{PODS}/p:99999/proxy/")).status == 503


async def test_an_answer_that_breaks_off_does_not_look_whole(tenant: Api) -> None:
    with pytest.raises(aiohttp.ClientError):
        await tenant.get(f"{POD}/broken")


async def test_a_reader_that_leaves_ends_an_endless_answer(tenant: Api, node: Node) -> None:
    url = f"https://127.0.0.1:{tenant.server.port}{POD}/endless"
    async with asyncio.timeout(10):
        async with tenant.session.get(url) as answer:
            assert await answer.content.readexactly(100_000)
        assert json.loads((await tenant.get(f"{POD}/after")).body)["path"] == "/after"
