"""An operator's chart in two tenants at once: its webhooks run in pods that have the same name and address in each."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from polder.apiserver.authn import PLATFORM_ADMINS, ROOT_URN
from polder.system.pki import Pki, ensure_pki, server_context
from tests.contract.charted import GIZMOS, Release, chart, endpoints, gizmo, webhooks
from tests.contract.conftest import Kubectl
from tests.system.lab import Host
from tests.system.site import Site
from tests.system.test_dial import agent

pytestmark = pytest.mark.system
NAMES = ("acme", "globex")
ADDRESS = "10.0.128.77"
NODES = {"acme": "n1", "globex": "n2"}


@asynccontextmanager
async def operator(host: Host, pki: Pki, tenant: str) -> AsyncIterator[list[Any]]:
    """One tenant's webhooks inside its pod, on port 8443: the objects that they were asked about."""
    asked: list[Any] = []
    paths = webhooks(tenant)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        said = await request.json()
        asked.append(said["request"]["object"])
        return web.json_response(paths[request.path](request, said))

    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("", 8443))
    runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
    await runner.setup()
    leaf = pki.issue_serving(["gizmo-webhook.default.svc"], [])
    await web.SockSite(runner, sock, ssl_context=server_context(leaf, pki.clients_ca)).start()
    try:
        yield asked
    finally:
        await runner.cleanup()


def release(site: Site, tenant: str, folder: Path, *, server_side: bool) -> Release:
    home = folder / f"home-{tenant}"
    home.mkdir()
    site.pki.issue_client("admin", [PLATFORM_ADMINS], ROOT_URN).write(home / "c.crt", home / "c.key")
    url = f"https://127.0.0.1:{site.port}/tenants/{tenant}"
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": str(site.pki.serving_ca)}}],
        "users": [{"name": "u", "user": {"client-certificate": str(home / "c.crt"), "client-key": str(home / "c.key")}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    (home / "config").write_text(yaml.safe_dump(config))
    return Release(Kubectl(str(shutil.which("kubectl")), home, home / "config"), tenant, server_side)


async def test_each_tenants_own_operator_judges_its_objects(site: Site, tmp_path: Path) -> None:
    await site.tenant("globex")
    pki = ensure_pki(tmp_path / "operators-pki")
    objects = chart(base64.b64encode(pki.serving_ca.read_bytes()).decode())
    releases = [release(site, name, tmp_path, server_side=name == "globex") for name in NAMES]
    async with AsyncExitStack() as stack:
        asked = {}
        for name in NAMES:
            sandbox = await site.prepared(name, "operator", NODES[name], address=ADDRESS)
            await site.nodes[NODES[name]].add(sandbox)
            asked[name] = await stack.enter_async_context(operator(sandbox.host, pki, name))
            path = f"/tenants/{name}/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
            await site.admin.raw("POST", path, json.dumps(endpoints(ADDRESS, NODES[name])).encode())
        for node in ("n1", "n2"):
            await stack.enter_async_context(agent(site, node))
        await asyncio.gather(*(one.apply(objects) for one in releases))
        await asyncio.gather(*(one.apply([gizmo(note=one.tenant)]) for one in releases))
        for one, other in zip(releases, reversed(NAMES), strict=True):
            said = await one.refused([gizmo("two", note=other)])
            assert f"denied the request: {one.tenant} wants no other's" in said
            found = json.loads(await site.admin.raw("GET", f"/tenants/{one.tenant}{GIZMOS}"))
            assert [(item["metadata"]["name"], item["spec"]["by"]) for item in found["items"]] == [("one", one.tenant)]
            notes = [(obj["metadata"]["name"], obj["spec"]["note"]) for obj in asked[one.tenant]]
            assert notes == [("one", one.tenant)] * 2 + [("two", other)] * 2, "both webhooks, about these objects only"
