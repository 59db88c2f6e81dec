"""Reaching into pods through a real API server and a real agent's stream; the runtime is tests/streaming.py's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from polder.node import stream as node_stream
from tests.contract.conftest import Api, Kubectl, Running
from tests.contract.reached import PODS, Node, connected, messages, peopled, query, socket


@pytest.fixture
async def node(running: Running, tmp_path: Path) -> AsyncIterator[Node]:
    async with connected(running, tmp_path) as found:
        yield found


@pytest.fixture
async def acme(running: Running, admin: Api, node: Node) -> Api:
    return await peopled(running, admin, node)


@pytest.fixture
async def tenant_kubectl(running: Running, acme: Api, kubectl_path: str, tmp_path: Path) -> Kubectl:
    return Kubectl(kubectl_path, tmp_path, running.kubeconfig(await running.tenant_leaf("acme")))


async def test_kubectl_runs_commands(tenant_kubectl: Kubectl) -> None:
    done = await tenant_kubectl.run("exec", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out) == (7, "out\n"), done
    assert done.err.startswith("err\n")
    assert "exit code 7" in done.err
    assert await tenant_kubectl("exec", "-i", "p", "--", "cat", stdin="through and back") == "through and back"


async def test_kubectl_carries_megabytes_both_ways(tenant_kubectl: Kubectl) -> None:
    process = await tenant_kubectl.start("exec", "-i", "p", "--", "cat", stdin=True)
    sent = os.urandom(8 << 20)
    async with asyncio.timeout(60):
        out, err = await process.communicate(sent)
    assert (process.returncode, hashlib.sha256(out).digest()) == (0, hashlib.sha256(sent).digest()), err


async def test_kubectl_attaches(tenant_kubectl: Kubectl, node: Node) -> None:
    assert "to the process" in await tenant_kubectl("attach", "-i", "p", "-c", "c", stdin="to the process")
    assert [r.DESCRIPTOR.name for r in node.cri.waiting.values()][-1] == "AttachRequest"


async def test_kubectl_is_told_why_not(tenant_kubectl: Kubectl, node: Node) -> None:
    assert 'pods "none" not found' in await tenant_kubectl.refused("exec", "none", "--", "true")
    assert "does not have a host assigned" in await tenant_kubectl.refused("exec", "q", "--", "true")
    assert "container x" in await tenant_kubectl.refused("exec", "p", "-c", "x", "--", "true")
    node.cri.containers.clear()
    assert 'container not found ("c")' in await tenant_kubectl.refused("exec", "p", "--", "true")


async def test_kubectl_forwards_ports(tenant_kubectl: Kubectl) -> None:
    process = await tenant_kubectl.start("port-forward", "p", ":80", ":81", ":82")
    try:
        ports = {}
        async with asyncio.timeout(20):
            while len(ports) < 3:
                line = (await process.stdout.readline()).decode()
                if "127.0.0.1" in line:
                    ports[int(line.split()[-1])] = int(line.split(":")[1].split()[0])
            answers = await asyncio.gather(*(talk(ports[80], b"%d" % n * 100_000) for n in range(5)))
            assert answers == [b"%d" % n * 100_000 for n in range(5)]
            assert await talk(ports[81], b"") == b"hello from the pod\n"
            assert await talk(ports[82], b"") == b""
            said = (await process.stderr.readline()).decode()
        assert "error forwarding port 82 to pod p, uid" in said
        assert "connection refused" in said
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def talk(port: int, said: bytes) -> bytes:
    """What comes back until the other end's end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
async def test_channels_over_a_websocket(acme: Api, protocol: str) -> None:
    path = f"{PODS}/p/" + query("sh", "-c", "cat;echo%20err>%262;exit%204", stdin="1", stdout="1", stderr="1")
    if protocol.startswith("v4"):
        path = path.replace("cat", "head%20-c3")
    async with asyncio.timeout(10), socket(acme, path, protocol) as found:
        assert found.protocol == protocol
        await found.send_bytes(b"\0abc")
        if protocol.startswith("v5"):
            await found.send_bytes(b"\xff\0")
        got = await messages(found)
    assert (got[1], got[2]) == (b"abc", b"err\n")
    assert json.loads(got[3])["details"]["causes"][0]["message"] == "4"
    assert found.close_code == 1000


async def test_the_first_protocols_say_errors_in_words(acme: Api) -> None:
    async with asyncio.timeout(10), socket(acme, f"{PODS}/p/" + query("sh", "-c", "echo%20a;exit%204")) as found:
        assert await messages(found) == {1: b"a\n", 3: b"command terminated with non-zero exit code: exit status 4"}
    async with asyncio.timeout(10), socket(acme, f"{PODS}/p/" + query("echo", "a"), "base64.channel.k8s.io") as found:
        assert [m.data for m in [await found.receive() for _ in range(2)]] == ["1", "1YQo="]


async def test_who_may_not_create_may_not_connect(running: Running, acme: Api, admin: Api) -> None:
    """``get`` is enough for no WebSocket (upstream's AuthorizePodWebsocketUpgradeCreatePermission)."""
    base = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [{"apiGroups": [""], "resources": ["pods", "pods/exec", "pods/portforward", "pods/log"], "verbs": ["get"]}]
    await acme.post(f"{base}/roles", {"metadata": {"name": "r"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    await acme.post(f"{base}/rolebindings", {"metadata": {"name": "r"}, "roleRef": reference, "subjects": [subject]})
    token = await acme.post("/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {}})
    user = running.client(token=token.json["status"]["token"]).at("acme")
    assert (await user.get(f"{PODS}/p/log")).status == 200
    for path in (query("true"), "portforward?ports=80"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with socket(user, f"{PODS}/p/{path}", "v4.channel.k8s.io"):
                pass
        assert caught.value.status == 403


@pytest.mark.parametrize("sub", ["exec?command=true", "attach", "portforward?ports=80", "proxy/", "log"])
async def test_another_tenants_pod_is_as_none(acme: Api, sub: str) -> None:
    """Neither its name nor its being there is told."""
    answers = [await acme.get(f"{PODS}/{name}/{sub}") for name in ("mine", "none")]
    assert [a.status for a in answers] == [404, 404]
    assert answers[0].body.replace(b"mine", b"none") == answers[1].body
    refused = await acme.get(f"/tenants/other{PODS}/mine/{sub}")
    absent = await acme.get(f"/tenants/nobody{PODS}/mine/{sub}")
    assert (refused.status, refused.body.replace(b"other", b"nobody")) == (absent.status, absent.body)


async def test_what_is_no_upgrade_is_refused(acme: Api) -> None:
    for sub in ("exec?command=true", "attach", "portforward"):
        answer = await acme.post(f"{PODS}/p/{sub}", None)
        assert (answer.status, answer.json["message"]) == (400, "Upgrade request required")
        assert (await acme.put(f"{PODS}/p/{sub}", {})).status == 405
    nothing = {"stdout": "false", "stderr": "0"}
    answer = await acme.call("POST", f"{PODS}/p/" + query("true", **nothing), Connection="Upgrade", Upgrade="SPDY/3.1")
    assert (answer.status, answer.json["message"]) == (400, "you must specify at least 1 of stdin, stdout, stderr")
    answer = await acme.call("POST", f"{PODS}/p/" + query("true"), Connection="Upgrade", Upgrade="SPDY/3.1")
    assert answer.status == 400
    assert "X-Stream-Protocol-Version" in answer.json["message"]


async def test_ports_over_a_websocket_with_channels(acme: Api) -> None:
    async with asyncio.timeout(10):
        async with socket(acme, f"{PODS}/p/portforward?ports=80,82", "v4.channel.k8s.io") as found:
            heads = [(await found.receive()).data for _ in range(4)]
            assert heads == [bytes([n]) + struct.pack("<H", port) for n, port in enumerate((80, 80, 82, 82))]
            assert b"connection refused" in (await found.receive()).data
            await found.send_bytes(b"\0ping")
            assert (await found.receive()).data == b"\0ping"
        answer = await acme.get(f"{PODS}/p/portforward?ports=0", Connection="Upgrade", Upgrade="websocket")
        assert answer.status == 400


async def test_a_log_through_a_websocket(acme: Api) -> None:
    async with asyncio.timeout(10), socket(acme, f"{PODS}/p/log", "binary.k8s.io") as found:
        assert b"".join([m.data async for m in found]) == b"line\n" * 3


async def test_what_a_node_shows_is_the_platforms(acme: Api, admin: Api, node: Node) -> None:
    assert (await admin.post("/api/v1/nodes", {"metadata": {"name": "n1"}})).status == 201
    healthy_answer = await admin.get("/api/v1/nodes/n1/proxy/healthz")
    assert (healthy_answer.status, healthy_answer.body) == (200, b"ok")
    big = await admin.get("/api/v1/nodes/n1:10250/proxy/big?size=300000")
    assert (big.status, len(big.body), big.headers["Content-Type"]) == (200, 300000, "text/x")
    assert (await admin.get("/api/v1/nodes/n1/proxy/etc/passwd")).status == 404
    assert (await admin.post("/api/v1/nodes/n1/proxy/healthz", {})).status == 405
    assert (await admin.get("/api/v1/nodes/n2/proxy/healthz")).status == 404
    assert (await admin.get("/api/v1/nodes/n1:22/proxy/")).status == 400
    refused = await acme.get("/api/v1/nodes/n1/proxy/healthz")
    assert (refused.status, "only the platform" in refused.json["message"]) == (403, True)


async def test_discovery_says_what_can_be_connected_to(acme: Api) -> None:
    rows = {r["name"]: (r["kind"], r["verbs"]) for r in (await acme.get("/api/v1")).json["resources"]}
    every = ["create", "delete", "get", "patch", "update"]
    assert {name: row for name, row in rows.items() if row[0].endswith("Options")} == {
        "pods/attach": ("PodAttachOptions", ["create", "get"]),
        "pods/exec": ("PodExecOptions", ["create", "get"]),
        "pods/portforward": ("PodPortForwardOptions", ["create", "get"]),
        "pods/proxy": ("PodProxyOptions", every),
        "services/proxy": ("ServiceProxyOptions", every),
        "nodes/proxy": ("NodeProxyOptions", every),
    }


async def test_garbage_on_a_connection_ends_it_alone(acme: Api) -> None:
    url = f"{PODS}/p/portforward"
    async with socket(acme, url, "SPDY/3.1+portforward.k8s.io") as found:
        await found.send_bytes(b"\xff" * 5000)
        async with asyncio.timeout(5):
            assert (await found.receive()).type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}
    assert (await acme.get(f"{PODS}/p")).status == 200


async def test_a_slow_reader_stalls_only_itself(acme: Api, node: Node) -> None:
    """Its command waits, memory does not grow, and others' commands run."""
    path = f"{PODS}/p/" + query("head", "-c", "300000000", "/dev/zero")
    async with asyncio.timeout(30), socket(acme, path, "v5.channel.k8s.io") as slow:
        await slow.receive()
        await asyncio.sleep(0.5)
        for _ in range(5):
            async with socket(acme, f"{PODS}/p/" + query("echo", "quick"), "v5.channel.k8s.io") as found:
                assert (await messages(found))[1] == b"quick\n"
        assert node.cri.running == 1, "the slow one's command has not ended"


async def test_who_reads_late_gets_all_of_it(
    acme: Api, node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after the agent has done with the stream."""
    monkeypatch.setattr(node_stream, "DRAIN_LIMIT", 0.3)
    path = f"{PODS}/p/" + query("head", "-c", "1500000", "/dev/zero")
    async with asyncio.timeout(20), socket(acme, path, "v5.channel.k8s.io") as slow:
        await node.cri.busy.wait()
        await asyncio.sleep(1.5)
        got = await messages(slow)
    assert len(got[1]) == 1_500_000
    assert json.loads(got[3])["status"] == "Success"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_hundred_commands_at_once(acme: Api) -> None:
    async def one(number: int) -> bytes:
        async with socket(acme, f"{PODS}/p/" + query("echo", str(number)), "v5.channel.k8s.io") as found:
            return (await messages(found))[1]

    async with asyncio.timeout(40):
        assert await asyncio.gather(*map(one, range(100))) == [b"%d\n" % n for n in range(100)]


async def test_when_the_node_goes_its_commands_end(acme: Api, node: Node, running: Running) -> None:
    async with asyncio.timeout(20), socket(acme, f"{PODS}/p/" + query("sleep", "60"), "v5.channel.k8s.io") as found:
        await found.receive()
        running.identity.streams.drop("n1")
        status = json.loads((await messages(found))[3])
    assert status["message"].startswith("Internal error occurred: error executing command in container: ")


async def test_when_the_user_goes_the_command_is_let_go(acme: Api, node: Node) -> None:
    async with socket(acme, f"{PODS}/p/" + query("sleep", "60", stdin="1"), "v5.channel.k8s.io") as found:
        await found.receive()
        async with asyncio.timeout(10):
            await node.cri.busy.wait()
    async with asyncio.timeout(10):
        await node.cri.idle.wait()
