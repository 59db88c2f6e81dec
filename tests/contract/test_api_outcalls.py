"""Calls out of the server: a service reference becomes a ready endpoint, and what goes wrong is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polder.apiserver.dial import Dialer
from polder.apiserver.outcalls import AT_ONCE, OutcallError, Outcalls
from polder.base.ids import ROOT, TenantName
from polder.client.carry import ByteStream
from tests.contract.conftest import Api, Running
from tests.contract.hooked import Site, endpoints, expose, site

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path, "hook.default.svc") as found:
        found.paths["/"] = lambda _request, said: {"got": said}
        found.paths["/deep"] = lambda *_: {"deep": True}
        yield found


async def post(running: Running, config: Any, timeout: float = 2.0, tenant: TenantName = ROOT) -> bytes:
    return await running.identity.outcalls.post(tenant, config, b'{"a":1}', timeout)


async def refused(running: Running, config: Any) -> str:
    with pytest.raises(OutcallError) as caught:
        await post(running, config)
    return str(caught.value)


async def test_a_service_is_reached_by_its_ready_endpoints(running: Running, admin: Api, server: Site) -> None:
    await expose(admin, server.port)
    await endpoints(admin, 1, ready=False, part="2")
    for _ in range(8):
        assert await post(running, server.service()) == b'{"got": {"a": 1}}'
    assert await post(running, server.service("deep")) == b'{"deep": true}'
    assert server.requests[0].headers["Host"] == "hook.default.svc"
    assert len(server.connections) == 1


async def test_a_port_other_than_443_is_named(running: Running, admin: Api, server: Site) -> None:
    await expose(admin, server.port, service_port=8443)
    assert await post(running, server.service(port=8443))
    assert server.requests[0].headers["Host"] == "hook.default.svc:8443"
    said = await refused(running, server.service())
    assert said == 'Post "https://hook.default.svc:443/": no service port 443 found for service "hook"'


async def test_a_url_may_name_a_service_of_the_cluster(running: Running, admin: Api, server: Site) -> None:
    await expose(admin, server.port)
    config = {"url": "https://hook.default.svc/deep", "caBundle": server.bundle}
    assert await post(running, config) == b'{"deep": true}'


async def test_what_is_missing_is_said(running: Running, admin: Api, server: Site) -> None:
    assert 'service "hook" not found' in await refused(running, server.service())
    await expose(admin, server.port)
    await admin.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/hook-1")
    assert 'no endpoints available for service "hook"' in await refused(running, server.service())
    await endpoints(admin, server.port, ready=False)
    assert 'no endpoints available for service "hook"' in await refused(running, server.service())


async def test_the_certificate_must_be_for_the_service(running: Running, admin: Api, server: Site) -> None:
    await expose(admin, server.port, "other")
    said = await refused(running, server.service(name="other"))
    assert said.startswith('Post "https://other.default.svc:443/": tls: failed to verify certificate: x509: ')
    assert server.asked == []


async def test_a_path_cannot_say_more_than_a_path(running: Running, admin: Api, server: Site) -> None:
    await expose(admin, server.port)
    assert "status 404" in await refused(running, server.service("/a b%2Fc\r\nX-Evil: 1?q=x y&z=[1]"))
    assert "X-Evil" not in server.requests[0].headers
    assert server.requests[0].rel_url.raw_path == "/a%20b%2FcX-Evil:%201", "line ends are dropped, the rest is encoded"
    assert server.requests[0].query == {"q": "x y", "z": "[1]"}


async def test_only_https_is_spoken(running: Running) -> None:
    assert "must be https://" in await refused(running, {"url": "http://127.0.0.1/"})
    assert "must be https://" in await refused(running, {"url": "file:///etc/passwd"})


async def test_a_server_that_ends_the_connection_is_asked_once_more_and_then_given_up(running: Running) -> None:
    seen = 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        assert f'Post "https://127.0.0.1:{port}/": ' in await refused(running, {"url": f"https://127.0.0.1:{port}/"})
        assert "connection refused" in await refused(running, {"url": "https://127.0.0.1:1/"})
    finally:
        listening.close()
    assert seen == 2


async def test_one_tenants_slow_calls_do_not_hold_up_another(running: Running, server: Site) -> None:
    release = asyncio.Event()

    async def wait(*_: Any) -> Any:
        await release.wait()
        return {}

    class Streams:
        nodes = frozenset({"n"})

        async def open(self, node: str, header: Any) -> ByteStream:
            raise AssertionError("nobody is dialled through a node here")

    server.paths["/slow"] = wait
    dialer = Dialer(Streams(), lambda *_: False)

    async def connect(target: Any) -> Any:
        return await dialer.connect(type(target)(ROOT, target.address, target.port))

    calls = Outcalls(running.store, connect)
    slow = [asyncio.ensure_future(calls.post(ROOT, server.url("/slow"), b"{}", 20)) for _ in range(AT_ONCE + 20)]
    try:
        async with asyncio.timeout(5):
            while len(server.asked) < AT_ONCE:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
            with pytest.raises(OutcallError, match="deadline"):
                await calls.post(ROOT, server.url("/"), b"{}", 0.2)
            assert await calls.post(TenantName("other"), server.url("/"), b"{}", 2)
        release.set()
        assert await asyncio.gather(*slow) == [b"{}"] * (AT_ONCE + 20)
    finally:
        for call in slow:
            call.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await calls.close()
