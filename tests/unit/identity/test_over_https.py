"""Through the real server over TLS: logs over a real agent's stream (the log is the test's), tokens, closed tenants."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
import pytest

from polder.api.errors import ApiError
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN, TENANT_ADMINS, tenant_urn
from polder.apiserver.identity import IdentityLayer, IdentitySettings
from polder.apiserver.logs import check_state, parse_options
from polder.apiserver.podplace import choose_container
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.base.ids import TenantName
from polder.client.client import Client, ClientSettings, tls_context
from polder.client.errors import UnreachableError
from polder.node.stream import ServerStream

LOG = "/tenants/acme/api/v1/namespaces/default/pods/web/log"
RUNNING = {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}


class Cluster:
    def __init__(self, world, directory):
        self.world, self.directory = world, directory
        self.identity = IdentityLayer(IdentitySettings(), world.store, world.pki, world.clock)
        world.pki.issue_serving(["localhost"], ["127.0.0.1"]).write(directory / "s.crt", directory / "s.key")
        settings = ServerSettings(directory / "s.crt", directory / "s.key", world.pki.clients_ca, port=0)
        self.server = ApiServer(settings, world.store, self.identity.parts, world.clock)
        self.tasks = []

    def settings(self, name, group, uri=""):
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        self.world.pki.issue_client(name, [group], uri).write(cert, key)
        return ClientSettings(f"https://127.0.0.1:{self.server.port}", self.world.pki.serving_ca, cert, key)

    async def node(self, handler):
        stream = ServerStream(self.settings("system:node:n1", NODES), {"logs": handler})
        self.tasks.append(asyncio.create_task(stream.run()))
        await asyncio.wait_for(stream.wait_connected(), 5)
        return stream


@pytest.fixture
async def cluster(world, tmp_path):
    made = Cluster(world, tmp_path)
    made.identity.attach(made.server.serve_socket)
    await made.identity.start()
    made.tasks.append(asyncio.create_task(made.identity.run()))
    await made.server.start()
    made.client = Client(made.settings("admin", PLATFORM_ADMINS, ROOT_URN))
    await world.pod("acme", "web", "n1", containers=[{"name": "c"}])
    await put_status(world, RUNNING)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.client.close()
    await made.identity.close()
    await made.server.stop()


async def put_status(world, status, **spec):
    spec = {"nodeName": "n1", "containers": [{"name": "c"}], **spec}
    return await world.put("pods", "acme", "default", "web", spec=spec, status=status)


async def test_a_log_comes_whole_and_with_the_options_asked(cluster):
    seen = []

    async def handler(header, stream):
        seen.append(header)
        for _ in range(10):
            await stream.write(b"x" * 100_000)

    await cluster.node(handler)
    text = await cluster.client.raw("GET", f"{LOG}?tailLines=5&timestamps=true")
    assert text == b"x" * 1_000_000
    [header] = seen
    assert (header["tenant"], header["namespace"], header["pod"], header["container"]) == (
        "acme",
        "default",
        "web",
        "c",
    )
    assert (header["tail_lines"], header["timestamps"], header["follow"], header["since_seconds"]) == (
        5,
        True,
        False,
        -1,
    )


async def test_what_the_node_refuses_is_said(cluster):
    async def handler(header, stream):
        await stream.reset("the log file is gone")

    await cluster.node(handler)
    with pytest.raises(ApiError, match="the log file is gone") as caught:
        await cluster.client.raw("GET", LOG)
    assert caught.value.code == 503


async def test_a_node_that_is_not_connected_is_named(cluster):
    with pytest.raises(ApiError, match="node n1 is not connected") as caught:
        await cluster.client.raw("GET", LOG)
    assert caught.value.code == 503


async def test_a_follower_that_leaves_ends_the_nodes_work(cluster):
    left = asyncio.Event()

    async def handler(header, stream):
        try:
            while True:
                await stream.write(b"line\n")
                await asyncio.sleep(0.01)
        finally:
            left.set()

    await cluster.node(handler)
    task = asyncio.create_task(cluster.client.raw("GET", f"{LOG}?follow=true"))
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait_for(left.wait(), 5)


async def test_a_follower_of_a_silent_log_that_leaves_ends_the_nodes_work(cluster):
    left = asyncio.Event()

    async def handler(header, stream):
        try:
            await stream.write(b"line\n")
            while await stream.read():
                pass
        finally:
            left.set()

    await cluster.node(handler)
    task = asyncio.create_task(cluster.client.raw("GET", f"{LOG}?follow=true"))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait_for(left.wait(), 5)


async def test_a_log_that_breaks_breaks_off_and_no_second_answer_follows(cluster, caplog):
    async def handler(header, stream):
        await stream.write(b"line\n")
        await asyncio.sleep(0.2)
        await stream.reset("the disk is gone")

    await cluster.node(handler)
    with pytest.raises(UnreachableError):
        await cluster.client.raw("GET", f"{LOG}?follow=true")
    assert not [r for r in caplog.records if r.exc_info], "it is no defect of the server"


async def test_the_newest_stream_of_a_node_wins(cluster):
    async def older(header, stream):
        await stream.write(b"older")

    async def newer(header, stream):
        await stream.write(b"newer")

    await cluster.node(older)
    first, link = cluster.tasks[-1], cluster.identity.streams._links["n1"]
    await cluster.node(newer)
    done, _ = await asyncio.wait({link.running}, timeout=5)
    first.cancel()  # or it dials again and is the newest
    assert done, "the server ends the older one"
    assert await cluster.client.raw("GET", LOG) == b"newer"
    assert cluster.identity.streams.nodes == {"n1"}


async def test_only_nodes_open_streams(cluster):
    with pytest.raises(ApiError) as caught:
        await cluster.client.raw("GET", "/polder/v1/stream")
    assert caught.value.code == 403


@pytest.mark.parametrize(
    ("spec", "asked", "message"),
    [
        ({"containers": [{"name": "a"}, {"name": "b"}]}, "",
         "a container name must be specified for pod web, choose one of: [a b]"),
        ({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
          "ephemeralContainers": [{"name": "e"}]}, "",
         "a container name must be specified for pod web, choose one of: [i a b e]"),
        ({"containers": [{"name": "a"}]}, "z", "container z is not valid for pod web"),
    ],
)  # fmt: skip
def test_which_container_is_meant(spec, asked, message):
    with pytest.raises(ApiError) as caught:
        choose_container({"metadata": {"name": "web"}, "spec": spec}, asked)
    assert (caught.value.code, caught.value.message) == (400, message)


def test_the_only_container_is_meant_whatever_ran_before_it():
    spec = {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]}
    pod = {"metadata": {"name": "web"}, "spec": spec}
    assert [choose_container(pod, asked) for asked in ("", "i", "e")] == ["a", "i", "e"]


@pytest.mark.parametrize(
    ("status", "previous", "message"),
    [
        ({}, "", 'container "c" in pod "web" is waiting to start: PodScheduled'),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}, "",
         'container "c" in pod "web" is waiting to start: trying and failing to pull image'),
        (RUNNING, "true", 'previous terminated container "c" in pod "web" not found'),
    ],
)  # fmt: skip
def test_containers_without_a_log(status, previous, message):
    with pytest.raises(ApiError) as caught:
        check_state(
            {"metadata": {"name": "web"}, "status": status},
            parse_options({"previous": previous} if previous else {}, "c"),
        )
    assert (caught.value.code, caught.value.message) == (400, message)


def test_a_container_that_crashed_has_logs_while_it_waits():
    crashed = {"name": "c", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
               "lastState": {"terminated": {"containerID": "x"}}}  # fmt: skip
    pod = {"metadata": {"name": "web"}, "status": {"containerStatuses": [crashed]}}
    check_state(pod, parse_options({}, "c"))
    check_state(pod, parse_options({"previous": "true"}, "c"))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"tailLines": "-1"}, "tailLines"),
        ({"tailLines": "x"}, "tailLines"),
        ({"limitBytes": "0"}, "limitBytes"),
        ({"sinceTime": "yesterday"}, "sinceTime"),
        ({"sinceTime": "2026-01-01T00:00:00"}, "sinceTime"),
        ({"sinceTime": "2026-01-01T00:00:00Z", "sinceSeconds": "1"}, "sinceSeconds"),
        ({"stream": "stdout"}, "stream"),
        ({"stream": "Stdout", "tailLines": "1"}, ""),
    ],
)
def test_wrong_options_are_named(query, field):
    with pytest.raises(ApiError) as caught:
        parse_options(query, "c")
    assert caught.value.code == 422
    assert [c["field"] for c in caught.value.details["causes"]] == [field]


async def test_tokens_for_nodes_are_for_their_own_pods(cluster):
    path = "/tenants/acme/api/v1/namespaces/default/serviceaccounts/default/token"
    uid = await put_status(cluster.world, RUNNING)
    node = Client(cluster.settings("system:node:n1", NODES))
    try:
        bound = {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": uid}
        answer = await node.raw("POST", path, orjson.dumps({"spec": {"boundObjectRef": bound}}))
        assert orjson.loads(answer)["status"]["token"].count(".") == 2
        for spec in ({}, {"boundObjectRef": {**bound, "uid": "x"}}, {"boundObjectRef": {**bound, "kind": "Secret"}}):
            with pytest.raises(ApiError, match=r"spec\.boundObjectRef") as caught:
                await node.raw("POST", path, orjson.dumps({"spec": spec}))
            assert caught.value.code == 422
        with pytest.raises(ApiError) as caught:
            await node.raw("POST", path.replace("acme", "globex"), b"{}")
        assert caught.value.code == 403
    finally:
        await node.close()


async def test_each_tenant_publishes_its_own_keys(cluster):
    found = orjson.loads(await cluster.client.raw("GET", "/tenants/acme/.well-known/openid-configuration"))
    assert found["jwks_uri"].endswith("/openid/v1/jwks")
    acme, globex = [
        orjson.loads(await cluster.client.raw("GET", f"/tenants/{n}/openid/v1/jwks")) for n in ("acme", "globex")
    ]
    assert acme["keys"][0]["kid"] != globex["keys"][0]["kid"]


async def test_a_foreign_tenant_and_a_missing_one_answer_alike_byte_for_byte(cluster):
    acme = await cluster.world.tenants.get(TenantName("acme"))
    settings = cluster.settings("admin-of-acme", TENANT_ADMINS, tenant_urn(acme.name, acme.uid))
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls_context(settings)))
    pods = "/api/v1/namespaces/default/pods"
    asked = [(method, path) for method in ("GET", "POST", "PUT", "PATCH", "DELETE") for path in (
        pods, f"{pods}/web", f"{pods}/web/log", "/apis/example.com/v1/widgets", "/api", "/apis", "/openapi/v3",
        "/healthz", "/version", "/nonsense", "/", f"{pods}?watch=true&timeoutSeconds=1", "/api/v1/namespaces/default/secrets/x",
    )]  # fmt: skip

    async def answers(tenant):
        found = []
        for method, path in asked:
            url = f"{settings.server}/tenants/{tenant}{path}"
            async with session.request(method, url, data=b"{}", headers={"Content-Type": "application/json"}) as answer:
                headers = {k: v for k, v in answer.headers.items() if k not in {"Audit-Id", "Date"}}
                body = (await answer.read()).replace(tenant.encode(), b"TENANT")
                found.append((method, path, answer.status, headers, body))
        return found

    try:
        foreign, missing, own = [await answers(name) for name in ("globex", "nobody", "acme")]
    finally:
        await session.close()
    assert foreign == missing
    assert {status for _, _, status, _, _ in foreign} == {403}
    assert {status for _, _, status, _, _ in own} > {200, 404}, "the question is one that an open tenant answers"
