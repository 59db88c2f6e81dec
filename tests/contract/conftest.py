"""A running API server on a free port, with real parts on a store in memory, and clients of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from polder.apiserver.authn import COMPONENTS, NODES, PLATFORM_ADMINS, ROOT_URN, TENANT_ADMINS, tenant_urn
from polder.apiserver.hooks import Handler
from polder.apiserver.identity import IdentityLayer, IdentitySettings
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.base.clock import SystemClock
from polder.base.ids import TenantName
from polder.client.client import Client, ClientSettings
from polder.store.memory import MemoryStore
from polder.store.protocol import Store
from polder.system.pki import Leaf, Pki, ensure_pki


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Api:
    """One client: a credential and a prefix."""

    server: Running
    session: aiohttp.ClientSession
    prefix: str = ""

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes | io.BytesIO | None) else json.dumps(body).encode()
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        if data is not None and "Content-Type" not in sent:
            sent["Content-Type"] = "application/json"
        url = f"https://127.0.0.1:{self.server.port}{self.prefix}{path}"
        async with self.session.request(method, url, data=data, headers=sent) as found:
            return Answer(found.status, found.headers, await found.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.call("POST", path, body, **headers)

    async def put(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.call("PUT", path, body, **headers)

    async def patch(self, path: str, body: Any, kind: str = "merge-patch") -> Answer:
        return await self.call("PATCH", path, body, Content_Type=f"application/{kind}+json")

    async def delete(self, path: str, body: Any = None) -> Answer:
        return await self.call("DELETE", path, body)

    def watch(self, path: str) -> Any:
        url = f"https://127.0.0.1:{self.server.port}{self.prefix}{path}"
        return self.session.get(url, timeout=aiohttp.ClientTimeout(total=20), read_bufsize=2**20)

    def at(self, tenant: str) -> Api:
        return Api(self.server, self.session, f"/tenants/{tenant}")


@dataclass
class Running:
    """The server and what it stands on."""

    api: ApiServer
    store: MemoryStore
    pki: Pki
    identity: IdentityLayer
    folder: Path
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.api.port

    def leaf(self, name: str, group: str, uri: str = "") -> Leaf:
        return self.pki.issue_client(name, [group], uri)

    def admin_leaf(self) -> Leaf:
        return self.leaf("admin", PLATFORM_ADMINS, ROOT_URN)

    def client(self, leaf: Leaf | None = None, token: str = "") -> Api:
        context = ssl.create_default_context(cafile=str(self.pki.serving_ca))
        if leaf is not None:
            certificate, key = self.folder / "c.crt", self.folder / "c.key"
            leaf.write(certificate, key)
            context.load_cert_chain(certificate, key)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0), headers=headers)
        self.sessions.append(session)
        return Api(self, session)

    def admin(self) -> Api:
        return self.client(self.admin_leaf())

    def component(self) -> Api:
        return self.client(self.leaf("system:polder:controllers", COMPONENTS))

    def node(self, name: str) -> Api:
        return self.client(self.leaf(f"system:node:{name}", NODES))

    async def tenant_leaf(self, name: str) -> Leaf:
        record = await self.identity.tenants.get(TenantName(name))
        assert record is not None
        return self.leaf("admin", TENANT_ADMINS, tenant_urn(record.name, record.uid))

    async def tenant_admin(self, name: str) -> Api:
        return self.client(await self.tenant_leaf(name))

    def kubeconfig(self, leaf: Leaf, tenant: str = "") -> Path:
        """A kubeconfig with this credential."""
        where = self.folder / f"kubeconfig-{len(list(self.folder.iterdir()))}"
        where.mkdir()
        leaf.write(where / "c.crt", where / "c.key")
        url = f"https://127.0.0.1:{self.port}" + (f"/tenants/{tenant}" if tenant else "")
        cluster = {"server": url, "certificate-authority": str(self.pki.serving_ca)}
        user = {"client-certificate": str(where / "c.crt"), "client-key": str(where / "c.key")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = where / "config"
        path.write_text(yaml.safe_dump(config))
        return path


@asynccontextmanager
async def served(
    tmp_path: Path, store: Store, paths: Callable[[SystemClock], Mapping[str, Handler]] | None = None, **settings: float
) -> AsyncIterator[Running]:
    """A server on a store; ``paths`` are what it serves beside a server's usual ones."""
    clock, pki = SystemClock(), ensure_pki(tmp_path / "pki")
    pki.issue_serving(["localhost"], ["127.0.0.1"]).write(tmp_path / "s.crt", tmp_path / "s.key")
    identity = IdentityLayer(IdentitySettings(), store, pki, clock)
    parts = replace(identity.parts, paths={**identity.parts.paths, **paths(clock)}) if paths else identity.parts
    server = ApiServer(
        ServerSettings(tmp_path / "s.crt", tmp_path / "s.key", pki.clients_ca, port=0, stop_timeout=1.0, **settings),
        store, parts, clock,
    )  # fmt: skip
    identity.attach(server.serve_socket)
    await identity.start()
    following = asyncio.create_task(identity.run())
    await server.start()
    folder = tmp_path / "clients"
    folder.mkdir()
    found = Running(server, store, pki, identity, folder)
    yield found
    for session in found.sessions:
        await session.close()
    await server.stop()
    await identity.close()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await store.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with served(tmp_path, MemoryStore(), bookmark_interval=0.3, read_timeout=2.0) as found:
        yield found


@pytest.fixture
async def typed(running: Running, tmp_path: Path) -> AsyncIterator[Callable[..., Client]]:
    """Makes typed clients, each with a certificate of its own: by name, group and whose it is."""
    made: list[Client] = []

    def client(name: str, group: str, uri: str = "") -> Client:
        certificate, key = tmp_path / f"typed-{len(made)}.crt", tmp_path / f"typed-{len(made)}.key"
        running.leaf(name, group, uri).write(certificate, key)
        made.append(
            Client(ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key))
        )
        return made[-1]

    yield client
    for one in made:
        await one.close()


@pytest.fixture
async def admin(running: Running) -> Api:
    return running.admin()


@pytest.fixture(params=["root", "tenant"])
async def either(request: pytest.FixtureRequest, running: Running, admin: Api) -> Api:
    """The administrator of the platform, then one of a tenant with the tenant's own credential."""
    if request.param == "root":
        return admin
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    return await running.tenant_admin("acme")


@dataclass
class Done:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass
class Kubectl:
    """One kubectl with one credential; its caches and its HOME are its own."""

    path: str
    home: Path
    kubeconfig: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *args: str, stdin: bool = False) -> Any:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}
        return asyncio.create_subprocess_exec(
            self.path,
            *args,
            env={**environment, **self.environment},
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *args: str, stdin: str = "") -> Done:
        process = await self.start(*args, stdin=bool(stdin))
        out, err = await asyncio.wait_for(process.communicate(stdin.encode() or None), 60)
        return Done(process.returncode, out.decode(), err.decode())

    async def __call__(self, *args: str, stdin: str = "") -> str:
        done = await self.run(*args, stdin=stdin)
        assert done.code == 0, (args, done)
        return done.out

    async def json(self, *args: str) -> Any:
        return json.loads(await self(*args, "-o", "json"))

    async def apply(self, *objects: Any) -> str:
        return await self("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    async def refused(self, *args: str, stdin: str = "") -> str:
        done = await self.run(*args, stdin=stdin)
        assert done.code != 0, (args, done)
        return done.err


@pytest.fixture(scope="session")
def kubectl_paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The kubectl of the PATH, and Debian's (1.20), taken from the archive where the machine's is another."""
    found = shutil.which("kubectl")
    assert found, "kubectl is missing: make setup installs it"
    said = subprocess.run([found, "version", "--client"], capture_output=True, text=True, check=True).stdout
    if "v1.20." in said:
        return {"path": found, "debian": found}
    return {"path": found, "debian": str(_debian_kubectl(Path(__file__).parents[2] / ".venv" / "debian-kubectl"))}


def _debian_kubectl(where: Path) -> Path:
    binary = where / "usr" / "bin" / "kubectl"
    if not binary.exists():
        where.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "kubernetes-client"], cwd=where, check=True, capture_output=True)
        (package,) = where.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, where], check=True, capture_output=True)
        package.unlink()
    return binary


@pytest.fixture(params=["path", "debian"])
def kubectl_path(request: pytest.FixtureRequest, kubectl_paths: dict[str, str]) -> str:
    return kubectl_paths[request.param]


@pytest.fixture
async def kubectl(running: Running, kubectl_path: str, tmp_path: Path) -> Kubectl:
    """As the platform's administrator."""
    return Kubectl(kubectl_path, tmp_path, running.kubeconfig(running.admin_leaf()))


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Any]:
    """A server of webhooks."""
    from tests.contract.hooked import site  # which itself needs this module

    async with site(tmp_path) as found:
        yield found
