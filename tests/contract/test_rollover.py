"""A whole server in one process, whose authorities are rolled over while it runs."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from polder.cli.output import Output
from polder.client.client import Client, ClientSettings
from polder.main import renewal
from polder.main.certificates import rotate, rows
from polder.main.config import ServerConfig
from polder.main.server import Server
from polder.node.renewal import Files, Renewal
from polder.store.memory import MemoryStore
from polder.system.pki import (
    NODE_PREFIX,
    PLATFORM_ADMINS,
    ROOT_URN,
    ensure_pki,
    read_times,
    roll_over,
    stage,
)


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Platform:
    def __init__(self, folder, port):
        self.folder, self.url, self.pki = folder, f"https://127.0.0.1:{port}", ensure_pki(folder / "pki")
        self.files = 0

    def leaf(self):
        return self.pki.issue_client("admin", [PLATFORM_ADMINS], ROOT_URN)

    def write(self, leaf):
        self.files += 1
        paths = self.folder / f"{self.files}.crt", self.folder / f"{self.files}.key"
        leaf.write(*paths)
        return paths

    async def ask(self, path, *, trust, pair=None, method="GET", body=None):
        """The status and the answer, over a connection of its own that trusts ``trust`` (PEM) alone."""
        context = ssl.create_default_context(cadata=trust)
        if pair is not None:
            context.load_cert_chain(*pair)
        connector = aiohttp.TCPConnector(ssl=context)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, self.url + path, json=body) as answer,
        ):
            return answer.status, await answer.json()

    async def until(self, what):
        async with asyncio.timeout(15):
            while not await what():  # noqa: ASYNC110 - files and connections tell nobody
                await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(folder):
    port = free_port()
    made = Platform(folder, port)
    config = ServerConfig(listen=[f"127.0.0.1:{port}"], store="memory", pki=str(folder / "pki"))
    store = MemoryStore()
    task = asyncio.create_task(Server(config, store).run())
    pair = made.write(made.leaf())

    async def up():
        assert not task.done(), task
        try:
            return (await made.ask("/readyz", trust=made.pki.trust, pair=pair))[0] == 200
        except (aiohttp.ClientConnectionError, aiohttp.ContentTypeError) as error:
            return isinstance(error, aiohttp.ContentTypeError)

    await made.until(up)
    yield made
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()


@pytest.fixture
async def platform(tmp_path, monkeypatch):
    monkeypatch.setattr(renewal, "EVERY", 0.05)
    async with serving(tmp_path) as made:
        yield made


MAP = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"


async def test_the_servers_authority_is_rolled_over_and_both_are_trusted_in_the_meantime(platform, capsys):
    old, pair = platform.pki.trust, platform.write(platform.leaf())

    async def published(trust):
        status, answer = await platform.ask(MAP, trust=platform.pki.trust, pair=pair)
        return status == 200 and answer["data"]["ca.crt"] == trust

    await platform.until(lambda: published(old))
    rotate(platform.pki, "serving", Output())
    assert stage(platform.pki.directory, "serving") == "introduced"
    both = platform.pki.trust
    assert both.startswith(old)
    assert both != old
    new = both.removeprefix(old)
    await platform.until(lambda: published(both))
    assert (await platform.ask(MAP, trust=old, pair=pair))[0] == 200, "the old one still signs"
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await platform.ask(MAP, trust=new, pair=pair)

    rotate(platform.pki, "serving", Output())

    async def new_alone():
        try:
            return (await platform.ask(MAP, trust=new, pair=pair))[0] == 200
        except aiohttp.ClientConnectorCertificateError:
            return False

    await platform.until(new_alone)
    assert (await platform.ask(MAP, trust=both, pair=pair))[0] == 200
    rotate(platform.pki, "serving", Output())
    await platform.until(lambda: published(new))
    assert stage(platform.pki.directory, "serving") == "steady"
    assert capsys.readouterr().out.split() == ["introduced", "switched", "finished"]


async def test_the_callers_authority_is_rolled_over_and_the_servers_own_parts_go_on(platform):
    before = platform.write(platform.leaf())

    async def status(pair):
        return (await platform.ask("/api/v1/namespaces", trust=platform.pki.trust, pair=pair))[0]

    assert await status(before) == 200
    for _ in range(2):
        rotate(platform.pki, "clients", Output())
    after = platform.write(platform.leaf())

    async def both():
        try:
            return [await status(before), await status(after)] == [200, 200]
        except aiohttp.ClientConnectionError:
            return False

    await platform.until(both)

    async def parts_renewed():
        return not any(
            platform.pki.due("clients", platform.pki.directory / f"{name}.crt", datetime.now(UTC))
            for name in ("controllers", "scheduler")
        )

    await platform.until(parts_renewed)
    rotate(platform.pki, "clients", Output())

    async def old_is_out():
        return [await status(before), await status(after)] == [401, 200]

    await platform.until(old_is_out)
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "short"}}
    trust = platform.pki.trust
    assert (await platform.ask("/api/v1/namespaces", trust=trust, pair=after, method="POST", body=body))[0] == 201
    await platform.ask("/api/v1/namespaces/short", trust=trust, pair=after, method="DELETE")

    async def gone():
        return (await platform.ask("/api/v1/namespaces/short", trust=trust, pair=after))[0] == 404

    await platform.until(gone)


async def test_an_agent_follows_the_roll_over_of_both_its_authorities(platform, tmp_path):
    pki = platform.pki
    files = Files(tmp_path / "agent" / "ca.crt", tmp_path / "agent" / "a.crt", tmp_path / "agent" / "a.key")
    pki.issue_agent(f"{NODE_PREFIX}n1", ("192.0.2.1",)).write(files.certificate, files.key)
    files.authority.write_text(pki.trust)
    old = pki.trust

    async def looked_after():
        client = Client(ClientSettings(platform.url, files.authority, files.certificate, files.key))
        keeper = Renewal("n1", "192.0.2.1", files, client)
        try:
            return await keeper.once()
        finally:
            for task in keeper._refreshing:
                task.cancel()
            await client.close()

    assert not await looked_after()
    rotate(pki, "serving", Output())
    await platform.until(looked_after)
    assert files.authority.read_text() == pki.trust != old
    rotate(pki, "serving", Output())
    for _ in range(2):
        rotate(pki, "agents", Output())
    certificate = files.certificate.read_bytes()
    await platform.until(looked_after)
    assert files.certificate.read_bytes() != certificate
    assert not pki.due("agents", files.certificate, datetime.now(UTC))
    rotate(pki, "agents", Output())
    rotate(pki, "serving", Output())
    await platform.until(looked_after)
    assert not await looked_after()


async def test_extension_servers_learn_by_which_authority_our_proxy_is_known(platform):
    pair = platform.write(platform.leaf())
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    trust, path = platform.pki.trust, "/apis/polder.dev/v1alpha1/tenants"
    assert (await platform.ask(path, trust=trust, pair=pair, method="POST", body=tenant))[0] == 201
    where = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"

    async def known(prefix):
        return (await platform.ask(prefix + where, trust=trust, pair=pair))[1]["data"]

    async def is_known():
        wanted = platform.pki.authority("front-proxy").bundle.decode()
        found = [await known(prefix) for prefix in ("", "/tenants/acme")]
        return all(data["requestheader-client-ca-file"] == wanted for data in found)

    assert await is_known()
    assert (await known("/tenants/acme"))["requestheader-allowed-names"] == '["system:polder:front-proxy:acme"]'
    assert "client-ca-file" not in await known("/tenants/acme")
    rotate(platform.pki, "front-proxy", Output())
    await platform.until(is_known)


async def test_a_running_server_renews_at_two_thirds(platform, monkeypatch):
    trust = platform.pki.trust
    directory = platform.pki.directory
    names = ("server", "controllers", "scheduler")
    before = {name: read_times((directory / f"{name}.crt").read_bytes()) for name in names}
    for begin, end in before.values():
        assert timedelta(days=90) <= end - begin <= timedelta(days=90, minutes=6)
    marks = {name: (directory / f"{name}.crt").read_bytes() for name in names}

    class Later:
        def now(self):
            return datetime.now(UTC) + timedelta(days=61)

    keeper = renewal.ServerCertificates(platform.pki, ["localhost"], ["127.0.0.1"], Later())
    changed = await asyncio.to_thread(keeper.renew, ["controllers", "scheduler"])
    assert (changed.serving, changed.components, changed.authorities) == (True, True, False)
    assert all((directory / f"{name}.crt").read_bytes() != mark for name, mark in marks.items())
    pair = platform.write(platform.leaf())
    assert (await platform.ask("/api/v1/namespaces", trust=trust, pair=pair))[0] == 200


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_switch_that_is_cut_short_is_ended_by_the_next_start(tmp_path, monkeypatch, cut):
    from polder.system.pki import pki as module

    old = ensure_pki(tmp_path).trust
    roll_over(tmp_path, "serving")
    new = ensure_pki(tmp_path).trust.removeprefix(old)
    real, left = module.write_private, [cut]

    def write(path, content):
        if not left[0]:
            raise OSError("cut")
        left[0] -= 1
        real(path, content)

    monkeypatch.setattr(module, "write_private", write)
    with pytest.raises(OSError, match="cut"):
        roll_over(tmp_path, "serving")
    monkeypatch.setattr(module, "write_private", real)
    found = ensure_pki(tmp_path)
    assert rows(found, datetime.now(UTC))[0][:2] == ["serving", "introduced" if cut == 0 else "switched"]
    assert found.trust == (old + new if cut == 0 else new + old)
    found.issue_serving(["x"], [])
    while stage(tmp_path, "serving") != "steady":
        roll_over(tmp_path, "serving")
    assert ensure_pki(tmp_path).trust == new
