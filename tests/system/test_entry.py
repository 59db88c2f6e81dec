"""A process in a tenant's namespace talks to the tenant's ``kubernetes`` service, with no path: who is it, and what is shown.

The real server, two real agents' streams, real TLS. In place of the agent's datapath, each router is a namespace with the
service's address on its loopback link.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from polder.api.polder import Tenant
from polder.apiserver.authn import COMPONENTS, NODES, PLATFORM_ADMINS, ROOT_URN, TENANT_ADMINS, tenant_urn
from polder.apiserver.identity import IdentityLayer, IdentitySettings
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.base.clock import SystemClock
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.cli.demo_objects import PODS_SEE_PODS
from polder.client.client import Client, ClientSettings
from polder.node.entry import Entries, EntryError
from polder.node.stream import ServerStream
from polder.store.memory import MemoryStore
from polder.system.net.netns import Netns, open_netns
from polder.system.net.sockets import listening_socket
from polder.system.pki import Pki, ensure_pki

pytestmark = pytest.mark.system

SERVICE = "10.96.0.1"
ASK = """
import http.client, json, ssl, sys
host, path, ca, token, cert, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if cert:
    context.load_cert_chain(cert, key)
connection = http.client.HTTPSConnection(host, 443, context=context, timeout=10)
connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
answer = connection.getresponse()
print(json.dumps([answer.status, answer.read().decode()]))
"""


@dataclass
class Answer:
    status: int
    text: str

    @property
    def raw(self):
        return json.loads(self.text)

    @property
    def names(self):
        return {item["metadata"]["name"] for item in self.raw["items"]}


class Scene:
    """A server, agents, tenants and their routers' namespaces."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki: Pki = ensure_pki(directory / "pki")
        self.store = MemoryStore()
        self.identity = IdentityLayer(IdentitySettings(), self.store, self.pki, SystemClock())
        leaf = self.pki.issue_serving(["localhost"], ["127.0.0.1"])
        leaf.write(directory / "s.crt", directory / "s.key")
        settings = ServerSettings(directory / "s.crt", directory / "s.key", self.pki.clients_ca, port=0)
        self.server = ApiServer(settings, self.store, self.identity.parts, SystemClock())
        self.spaces: dict[str, Netns] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self.entries: dict[str, Entries] = {}
        self.streams: dict[str, ServerStream] = {}
        self.admin: Client | None = None

    async def start(self) -> None:
        self.identity.attach(self.server.serve_socket)
        await self.identity.start()
        self.tasks.append(asyncio.create_task(self.identity.run()))
        await self.server.start()
        self.admin = self.client("admin", PLATFORM_ADMINS, ROOT_URN)

    def certificate(self, name: str, group: str, uri: str = "") -> tuple[Path, Path]:
        stem = self.directory / f"c{len(list(self.directory.iterdir()))}"
        paths = stem.with_suffix(".crt"), stem.with_suffix(".key")
        self.pki.issue_client(name, [group], uri).write(*paths)
        return paths

    def settings(self, name: str, group: str, uri: str = "") -> ClientSettings:
        cert, key = self.certificate(name, group, uri)
        return ClientSettings(f"https://127.0.0.1:{self.server.port}", self.pki.serving_ca, cert, key)

    def client(self, name: str, group: str, uri: str = "") -> Client:
        return Client(self.settings(name, group, uri))

    async def tenant(self, name: str) -> str:
        body = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
        raw = await self.admin.raw("POST", "/apis/polder.dev/v1alpha1/tenants", json.dumps(body).encode())
        path = f"/tenants/{name}/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        await self.admin.raw("POST", path, json.dumps(PODS_SEE_PODS).encode())
        return str(json.loads(raw)["metadata"]["uid"])

    async def pod(self, tenant: str, name: str, node: str) -> None:
        """A pod bound to a node, as the scheduler would bind it."""
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}  # fmt: skip
        path = f"/tenants/{tenant}/api/v1/namespaces/default/pods"
        await self.admin.raw("POST", path, json.dumps(body).encode())
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                   "target": {"kind": "Node", "name": node}}  # fmt: skip
        await self.admin.raw("POST", f"{path}/{name}/binding", json.dumps(binding).encode())

    async def token(self, tenant: str) -> str:
        path = f"/tenants/{tenant}/api/v1/namespaces/default/serviceaccounts/default/token"
        return str(json.loads(await self.admin.raw("POST", path, b"{}"))["status"]["token"])

    async def node(self, name: str, handlers=None) -> None:
        stream = ServerStream(self.settings(f"system:node:{name}", NODES), handlers or {})
        self.streams[name] = stream
        self.tasks.append(asyncio.create_task(stream.run()))
        await asyncio.wait_for(stream.wait_connected(), 5)
        self.entries[name] = Entries(self.listen_in, stream.open)

    def router(self, space: str) -> None:
        """A namespace held by a process that only waits: what stands for a tenant's router and its pods."""
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo ready; exec sleep 300"], stdout=subprocess.PIPE
        )
        assert holder.stdout.readline() == b"ready\n"
        self.holders = [*getattr(self, "holders", []), holder]
        self.spaces[space] = open_netns(f"/proc/{holder.pid}/ns/net")
        for command in (["link", "set", "lo", "up"], ["addr", "add", f"{SERVICE}/32", "dev", "lo"]):
            subprocess.run(["nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip", *command], check=True)

    async def listen_in(self, space: str, address: str, port: int):
        return listening_socket(self.spaces[space], address, port)

    async def ask(self, space: str, path: str, token: str = "", cert: tuple[Path, Path] | None = None) -> Answer:
        """Runs a plain Python client inside the namespace."""
        fd = self.spaces[space].fd
        process = await asyncio.create_subprocess_exec(
            "nsenter", f"--net=/proc/self/fd/{fd}", sys.executable, "-c", ASK, SERVICE, path, str(self.pki.serving_ca),
            token, *map(str, cert or ("", "")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(fd,),
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, err.decode()
        return Answer(*json.loads(out))

    async def stop(self) -> None:
        for entries in self.entries.values():
            await entries.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.admin is not None:
            await self.admin.close()
        await self.identity.close()
        await self.server.stop()
        await self.store.close()
        for space in self.spaces.values():
            space.close()
        for holder in getattr(self, "holders", []):
            holder.kill()
            holder.wait()
            holder.stdout.close()


async def make_two(scene: Scene) -> None:
    """Two tenants of the same addresses and names on one node."""
    await scene.start()
    await scene.node("n1")
    for name in ("acme", "globex"):
        await scene.tenant(name)
        await scene.pod(name, "web", "n1")
        await scene.pod(name, f"only-{name}", "n1")
        scene.router(name)
    await scene.entries["n1"].set({name: (name, SERVICE, 443) for name in ("acme", "globex")})


def with_two_tenants(test: Callable[[Scene], Awaitable[None]]) -> Callable[[Path], None]:
    """Runs a test on uvloop, as the product runs."""

    async def body(directory: Path) -> None:
        scene = Scene(directory)
        try:
            await make_two(scene)
            await test(scene)
        finally:
            await scene.stop()

    def run(tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        uvloop.run(body(tmp_path))

    run.__name__ = test.__name__
    return run


@with_two_tenants
async def test_a_service_account_lists_its_own_tenant_with_no_path(two: Scene) -> None:
    for name in ("acme", "globex"):
        token = await two.token(name)
        answer = await two.ask(name, "/api/v1/namespaces/default/pods", token)
        assert (answer.status, answer.names) == (200, {"web", f"only-{name}"})
        assert all("annotations" not in item["metadata"] for item in answer.raw["items"])
        everywhere = await two.ask(name, "/api/v1/pods", token)
        assert everywhere.names == {"web", f"only-{name}"}


@with_two_tenants
async def test_every_other_credential_gets_401_there(two: Scene) -> None:
    uid = (await two.admin.get(Tenant, Ref(ROOT, "", "globex"))).metadata.uid
    foreign = await two.token("globex")
    for shown in (
        {"token": foreign},
        {"token": "nonsense"},
        {"cert": two.certificate("admin", TENANT_ADMINS, tenant_urn(TenantName("globex"), uid))},
        {"cert": two.certificate("admin", PLATFORM_ADMINS, ROOT_URN)},
        {"cert": two.certificate("system:polder:scheduler", COMPONENTS)},
        {"cert": two.certificate("system:node:n1", NODES)},
    ):
        for path in ("/api/v1/pods", "/version", "/healthz", "/tenants/globex/api/v1/pods", "/tenants/*/api/v1/pods"):
            answer = await two.ask("acme", path, **shown)
            assert answer.status == 401, (path, shown)
            assert answer.raw["message"] == "Unauthorized"
    assert (await two.ask("acme", "/version")).status == 200, "who shows nothing is anonymous, as everywhere"
    assert (await two.ask("acme", "/api/v1/pods")).status == 403
    said = [await two.ask("acme", f"/tenants/{name}/api/v1/pods") for name in ("globex", "nobody")]
    assert said[0].text.replace("globex", "nobody") == said[1].text and said[0].status == 403


@with_two_tenants
async def test_a_good_credential_stays_inside_the_tenant_it_entered(two: Scene) -> None:
    token = await two.token("acme")
    answers = [
        await two.ask("acme", f"/tenants/{name}/api/v1/pods", token) for name in ("globex", "nobody", "root", "*")
    ]
    assert {a.status for a in answers} == {403}
    assert answers[0].text.replace("globex", "X") == answers[1].text.replace("nobody", "X")
    uid = (await two.admin.get(Tenant, Ref(ROOT, "", "acme"))).metadata.uid
    own = two.certificate("admin", TENANT_ADMINS, tenant_urn(TenantName("acme"), uid))
    assert (await two.ask("acme", "/api/v1/pods", cert=own)).names == {"web", "only-acme"}


@with_two_tenants
async def test_a_node_brings_connections_only_of_tenants_that_are_on_it(two: Scene) -> None:
    await two.node("n2")
    two.router("elsewhere")
    await two.entries["n2"].set({"elsewhere": ("acme", SERVICE, 443)})
    with pytest.raises(AssertionError, match=r"SSL|Connection"):
        await two.ask("elsewhere", "/api/v1/pods", await two.token("acme"))
    await two.pod("acme", "later", "n2")
    assert (await two.ask("elsewhere", "/api/v1/pods", await two.token("acme"))).status == 200


@with_two_tenants
async def test_sockets_follow_what_is_wanted(two: Scene) -> None:
    entries, token = two.entries["n1"], await two.token("acme")
    await entries.set({"globex": ("globex", SERVICE, 443)})
    with pytest.raises(AssertionError, match="refused"):
        await two.ask("acme", "/api/v1/pods", token)
    assert (await two.ask("globex", "/api/v1/pods", await two.token("globex"))).status == 200
    with pytest.raises(EntryError, match="acme"):
        await entries.set({"acme": ("acme", "192.0.2.9", 443), "globex": ("globex", SERVICE, 443)})
    assert (await two.ask("globex", "/api/v1/pods", await two.token("globex"))).status == 200
    await entries.set({"acme": ("acme", SERVICE, 443)})
    assert (await two.ask("acme", "/api/v1/pods", token)).status == 200


@with_two_tenants
async def test_the_stream_comes_back_after_the_server_ended_it(two: Scene) -> None:
    token = await two.token("acme")
    assert (await two.ask("acme", "/api/v1/pods", token)).status == 200
    [link] = two.identity.streams._links.values()
    link.running.cancel()
    async with asyncio.timeout(10):
        while two.identity.streams._links.get("n1") in {None, link}:  # noqa: ASYNC110 - the product needs no such event
            await asyncio.sleep(0.02)
    assert (await two.ask("acme", "/api/v1/pods", token)).status == 200
