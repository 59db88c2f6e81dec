"""A machine joins over real TLS, renews its certificate, and is thrown out."""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
import yaml

from polder.api.errors import ApiError
from polder.apiserver.noderecord import NodeRecord, put_record, record_key
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT
from polder.client.client import Client, ClientSettings
from polder.main.join import JoinError, Joining, JoinToken, join
from polder.main.kubeconfig import tenants_of
from polder.main.token import create, delete, lifetime, listing
from polder.node.renewal import PATH, Files, Renewal
from polder.node.stream import ServerStream
from polder.system.pki import Leaf, ensure_pki, new_request, pin_of

NODES = "/api/v1/nodes"


class HandClock:
    def __init__(self):
        self.ahead = timedelta()

    def now(self):
        return datetime.now(UTC) + self.ahead

    def monotonic(self):
        return self.ahead.total_seconds()


@pytest.fixture
async def platform(running):
    leaf = running.admin_leaf()
    leaf.write(running.folder / "a.crt", running.folder / "a.key")
    client = Client(
        ClientSettings(server(running), running.pki.serving_ca, running.folder / "a.crt", running.folder / "a.key")
    )
    yield client
    await client.close()


def server(running):
    return f"https://127.0.0.1:{running.port}"


def joining(running, folder, node="n1", address="192.0.2.1"):
    return Joining(server(running), node, address, folder / node, "eth0")


async def token(platform, running, node="", life=timedelta(hours=1)):
    return JoinToken(await create(platform, life, node), pin_of(running.pki.trust.encode()))


def settings(where):
    return ClientSettings(where.server, where.authority, *where.pair)


async def as_node(where):
    client = Client(settings(where))
    try:
        return orjson.loads(await client.raw("GET", f"{NODES}/{where.node}"))
    finally:
        await client.close()


async def refused(work, says):
    with pytest.raises(JoinError, match=says):
        await work


async def make_node(running, name, address="192.0.2.9", ready="True"):
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": ready}],
    }
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    admin = running.admin()
    await admin.post(NODES, node)
    answer = await admin.patch(f"{NODES}/{name}/status", {"status": status})
    assert answer.status == 200, answer.body


async def test_a_machine_joins_with_a_token_and_is_that_node(running, platform, tmp_path):
    where = joining(running, tmp_path)
    await join(where, await token(platform, running))
    with pytest.raises(ApiError) as caught:
        await as_node(where)
    assert caught.value.code == 404, "it may ask for its own Node, which it has not made yet"
    config = yaml.safe_load(where.config.read_text())
    assert (config["node"], config["address"], config["uplink"]) == ("n1", "192.0.2.1", "eth0")
    assert {p.stat().st_mode & 0o777 for p in (*where.pair, where.authority, where.config)} == {0o600}
    everything = b"".join(p.read_bytes() for p in where.state.rglob("*") if p.is_file())
    assert b"bootstrap" not in everything
    client = Client(settings(where))
    for address, code in (("192.0.2.1", 200), ("192.0.2.2", 422)):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
        status = {"status": {"addresses": [{"type": "InternalIP", "address": address}]}}
        try:
            await client.raw("POST", NODES, orjson.dumps(node))
        except ApiError as error:
            assert error.is_already_exists
        try:
            await client.raw(
                "PATCH", f"{NODES}/n1/status", orjson.dumps(status), content_type="application/merge-patch+json"
            )
            found = 200
        except ApiError as error:
            found = error.code
        assert found == code, address
    await client.close()


async def test_whom_the_pin_does_not_name_gets_no_token(running, platform, tmp_path):
    good = await token(platform, running)
    strange = ensure_pki(tmp_path / "strange")
    where = joining(running, tmp_path)
    await refused(join(where, replace(good, pin=pin_of(strange.trust.encode()))), "no authority .* has the pin")
    assert not where.state.exists()

    seen = []

    async def eavesdrop(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        body = orjson.dumps({"authority": running.pki.trust})
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strange.issue_serving(["localhost"], ["127.0.0.1"]).write(tmp_path / "x.crt", tmp_path / "x.key")
    context.load_cert_chain(tmp_path / "x.crt", tmp_path / "x.key")
    impostor = await asyncio.start_server(eavesdrop, "127.0.0.1", 0, ssl=context)
    port = impostor.sockets[0].getsockname()[1]
    with pytest.raises(JoinError, match="not by the authority that the token's pin names"):
        await join(replace(where, server=f"https://127.0.0.1:{port}"), good)
    impostor.close()
    assert len(seen) == 1, "an impostor that shows the right authority is left before anything is said"
    assert good.token.encode() not in seen[0]


async def test_tokens_that_do_not_let_in(running, platform, tmp_path):
    where = joining(running, tmp_path)
    good = await token(platform, running)
    wrong = good.token[:-1] + ("1" if good.token.endswith("0") else "0")
    await refused(join(where, replace(good, token=wrong)), "does not accept the token")
    await refused(join(where, await token(platform, running, life=timedelta(seconds=-1))), "does not accept the token")
    await refused(join(where, await token(platform, running, node="n2")), "for another node")
    [shown] = [t for t in await listing(platform) if t.id == good.token[:6]]
    assert (shown.node, shown.usable) == ("", "yes")
    assert good.token[7:] not in repr(await listing(platform))
    await delete(platform, good.token)
    await refused(join(where, good), "does not accept the token")
    for text in ("", "abcdef.0123456789abcdef", f"abc.def:{good.pin}", f"{good.token}:sha256:12"):
        with pytest.raises(JoinError) as caught:
            JoinToken.parse(text)
        assert "0123456789abcdef" not in str(caught.value)
    for text in ("", "1", "1y", "0h", "400d", "-1h"):
        with pytest.raises(Exception, match="--ttl"):
            lifetime(text)


async def test_a_bootstrap_token_for_something_else_does_not_join(running, platform, tmp_path):
    plain = await token(platform, running)
    path = f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{plain.token[:6]}"
    other = base64.b64encode(b"system:bootstrappers:other").decode()
    change = orjson.dumps({"data": {"auth-extra-groups": other}})
    await platform.raw("PATCH", path, change, content_type="application/merge-patch+json")
    await refused(join(joining(running, tmp_path), plain), "forbidden|cannot post path")


async def test_a_name_and_an_address_are_one_machines(running, platform, tmp_path):
    good = await token(platform, running)
    first = joining(running, tmp_path / "first")
    await join(first, good)
    await make_node(running, "n9", "192.0.2.9")
    await refused(join(joining(running, tmp_path, "n9", "192.0.2.10"), good), "there is a node n9 that is alive")
    await refused(join(joining(running, tmp_path, "n8", "192.0.2.9"), good), "is another node's")
    await refused(join(joining(running, tmp_path, "n8", "192.0.2.1"), good), "is another node's")
    stream = ServerStream(settings(first), {})
    task = asyncio.create_task(stream.run())
    async with asyncio.timeout(5):
        await stream.wait_connected()
    await refused(join(joining(running, tmp_path / "second"), good), "is alive")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(100):
        if "n1" not in running.identity.streams.nodes:
            break
        await asyncio.sleep(0.02)
    second = joining(running, tmp_path / "second")
    await join(second, good)
    with pytest.raises(ApiError) as caught:
        await as_node(first)
    assert caught.value.code == 401, "what was signed for the machine before is worthless"
    with pytest.raises(ApiError) as caught:
        await as_node(second)
    assert caught.value.code == 404
    await make_node(running, "n9", "192.0.2.9", ready="Unknown")
    await join(joining(running, tmp_path, "n9", "192.0.2.9"), good)


async def test_requests_that_are_not_signed(running, platform, tmp_path):
    good = await token(platform, running)
    api = running.client(token=good.token)

    async def sign(leaf):
        answer = await api.post(PATH, {"request": leaf.certificate.decode()})
        return answer.status

    assert await sign(new_request("system:node:n5", ["system:nodes"], ["192.0.2.5"])) == 201
    for name, groups, addresses in (
        ("admin", ["polder:platform-admins"], ["192.0.2.6"]), ("system:node:n6", ["system:masters"], ["192.0.2.6"]),
        ("system:node:n6", ["system:nodes", "system:masters"], ["192.0.2.6"]), ("system:node:", ["system:nodes"], ["192.0.2.6"]),
        ("system:node:N6", ["system:nodes"], ["192.0.2.6"]), ("system:node:a/b", ["system:nodes"], ["192.0.2.6"]),
        ("system:node:n6", ["system:nodes"], []), ("system:node:n6", ["system:nodes"], ["127.0.0.1"]),
        ("system:node:n6", ["system:nodes"], ["0.0.0.0"]), ("system:node:n6", ["system:nodes"], ["224.0.0.1"]),
    ):  # fmt: skip
        assert await sign(new_request(name, groups, addresses)) == 400, (name, groups, addresses)
    assert await sign(Leaf(b"nonsense", b"")) == 400
    assert (await running.client().post(PATH, {})).status == 403
    assert (await running.admin().post(PATH, {"request": "x"})).status == 400
    assert (await api.delete(f"{PATH}?node=n5")).status == 403
    node = running.node("n1")
    for other in ("n2", "n5"):
        body = {"request": new_request(f"system:node:{other}", ["system:nodes"], ["192.0.2.7"]).certificate.decode()}
        assert (await node.post(PATH, body)).status == 403


async def test_a_renewal_leaves_the_stream_alone(running, platform, tmp_path):
    where = joining(running, tmp_path)
    await join(where, await token(platform, running))
    stream = ServerStream(settings(where), {})
    task = asyncio.create_task(stream.run())
    async with asyncio.timeout(5):
        await stream.wait_connected()
    client = Client(settings(where))
    await Renewal("n1", "192.0.2.1", Files(where.authority, *where.pair), client)._renew()
    await asyncio.sleep(0.3)
    assert stream.connected
    await client.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_renews_when_it_is_told_to_and_keeps_both_keys_for_a_while(running, platform, tmp_path):
    where = joining(running, tmp_path)
    await join(where, await token(platform, running))
    client = Client(settings(where))
    old = [p.read_bytes() for p in where.pair]
    renewal = Renewal("n1", "192.0.2.1", Files(where.authority, *where.pair), client)
    assert not await renewal.once()
    clock = HandClock()
    handler = running.identity.parts.paths[PATH].__self__
    running.identity.parts.paths[PATH] = replace(handler, clock=clock).serve
    clock.ahead = timedelta(days=59)
    assert not await renewal.once()
    clock.ahead = timedelta(days=61)
    assert await renewal.once()
    assert all(a != b for a, b in zip(old, [p.read_bytes() for p in where.pair], strict=True))
    for _ in range(2):  # the connection of before goes on, and a new one
        with pytest.raises(ApiError) as caught:
            await client.raw("GET", f"{NODES}/n1")
        assert caught.value.code == 404
        await client.close()
    entry = await running.store.get(record_key("n1"))
    assert len(orjson.loads(entry.value)["keys"]) == 2


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_node_that_is_thrown_out_is_out_at_once(running, platform, tmp_path, elsewhere):
    where, good = joining(running, tmp_path), await token(platform, running)
    await join(where, good)
    stream = ServerStream(settings(where), {})
    task = asyncio.create_task(stream.run())
    async with asyncio.timeout(5):
        await stream.wait_connected()
    if elsewhere:  # another server of the same store
        record = NodeRecord((), (), "")
        await running.store.commit([put_record("n1", record, None)])
    else:
        await platform.raw("DELETE", f"{PATH}?node=n1")
    for _ in range(200):
        if not stream.connected:
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    assert not stream.connected, "and it does not come back"
    with pytest.raises(ApiError) as caught:
        await as_node(where)
    assert caught.value.code == 401
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await join(where, good)
    with pytest.raises(ApiError) as caught:
        await as_node(where)
    assert caught.value.code == 404


async def test_the_tenants_of_a_user_are_those_whose_members_name_them(running, platform):
    for name, members in (("acme", [{"kind": "User", "name": "bob", "role": "view"}]),
                          ("globex", [{"kind": "Group", "name": "dev", "role": "edit"}]),
                          ("initech", [{"kind": "User", "name": "ann", "role": "admin"}])):  # fmt: skip
        body = {
            "apiVersion": "polder.dev/v1alpha1",
            "kind": "Tenant",
            "metadata": {"name": name},
            "spec": {"members": members},
        }
        await platform.raw("POST", "/apis/polder.dev/v1alpha1/tenants", orjson.dumps(body))
    for user, groups, wanted in (("bob", (), ["acme"]), ("bob", ("dev",), ["acme", "globex"]), ("eve", (), [])):
        assert await tenants_of(platform, Identity(user, Role.USER, ROOT, groups)) == wanted
