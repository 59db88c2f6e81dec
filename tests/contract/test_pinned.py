"""Connections that came in through a tenant's own service: whatever is shown there, it is that tenant's or nobody's."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from polder.apiserver.authn_build import AuthnSettings, Known, UseFrontProxy
from polder.apiserver.authn_proxy import ProxySettings
from polder.base.clock import SystemClock
from polder.base.ids import ROOT, TenantName
from polder.system.pki import server_context

PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture
async def tenants(running, admin):
    for name in ("acme", "globex"):
        body = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", body)).status == 201


class Pinned:
    """A connection through acme's service, over real TLS."""

    def __init__(self, running, pin="acme"):
        self.running, self.pin = running, pin

    async def ask(self, path, headers=(), leaf=None, method="GET"):
        """The status of one request; ``headers`` are pairs, sent as they are."""
        pki, folder = self.running.pki, self.running.folder
        serving = server_context(pki.issue_serving(["kubernetes.default.svc"], ["10.96.0.1"]), pki.clients_ca)
        client = ssl.create_default_context(cafile=str(pki.serving_ca))
        if leaf is not None:
            leaf.write(folder / "p.crt", folder / "p.key")
            client.load_cert_chain(folder / "p.crt", folder / "p.key")
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        serve = asyncio.create_task(self.running.api.serve_socket(theirs, serving, TenantName(self.pin)))
        reader, writer = await asyncio.open_connection(sock=ours, ssl=client, server_hostname="kubernetes.default.svc")
        await serve
        lines = [f"{method} {path} HTTP/1.1", "Host: kubernetes.default.svc", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        async with asyncio.timeout(5):
            status = int((await reader.readline()).split()[1])
            await reader.read()
        writer.close()
        return status


async def token(api):
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.post("/api/v1/namespaces/default/serviceaccounts/default/token", body)
    return answer.json["status"]["token"]


async def test_only_the_tenants_own_credentials_count(running, admin, tenants):
    at = Pinned(running)
    acme, globex = [await running.tenant_admin(name) for name in ("acme", "globex")]
    own, foreign, root = await token(acme), await token(globex), await token(admin)
    assert await at.ask("/version") == 200, "nobody may ask this of its own tenant, as of any Kubernetes"
    assert await at.ask(PODS) == 403
    assert await at.ask("/api", [("Authorization", f"Bearer {own}")]) == 200
    assert await at.ask(PODS, leaf=await running.tenant_leaf("acme")) == 200
    for headers, leaf in (
        ([("Authorization", f"Bearer {foreign}")], None), ([("Authorization", f"Bearer {root}")], None),
        ([], await running.tenant_leaf("globex")), ([], running.admin_leaf()),
        ([], running.leaf("system:polder:controllers", "polder:components")),
        ([], running.leaf("system:node:n1", "system:nodes")),
        ([], running.leaf("ann", "dev", "urn:polder:tenant:root")),
    ):  # fmt: skip
        assert await at.ask("/version", headers, leaf) == 401
    assert await Pinned(running, "root").ask(PODS, leaf=running.admin_leaf()) == 401


async def test_no_header_and_no_path_leads_out(running, admin, tenants):
    at = Pinned(running)
    acme = await running.tenant_admin("acme")
    own, foreign = await token(acme), await token(await running.tenant_admin("globex"))
    leaf = await running.tenant_leaf("acme")
    masters = [("Impersonate-User", "admin"), ("Impersonate-Group", "system:masters")]
    for path in (
        "/tenants/globex/version",
        "/tenants/nobody/version",
        f"/tenants/{ROOT}/api",
        "/tenants/*/api",
        "//tenants/globex/api",
    ):
        for extra in ([], masters):
            assert await at.ask(path, extra, leaf) in {403, 404}, path
    assert await at.ask("/tenants/acme" + PODS, leaf=leaf) == 200
    two = [("Authorization", f"Bearer {foreign}"), ("Authorization", f"Bearer {own}")]
    assert await at.ask("/api", two) in {400, 401}
    for name in ("X-Remote-User", "x-remote-user", "X_Remote_User"):
        assert await at.ask(PODS, [(name, "admin"), ("X-Remote-Group", "system:masters")]) == 403
    reserved = [("Impersonate-User", "x"), ("Impersonate-Group", "polder:platform-admins")]
    assert await at.ask(PODS, reserved, leaf) == 403


async def test_a_proxys_certificate_gains_nothing_inside(running, admin, tenants):
    chain = running.identity.parts.authenticator
    known = Known(running.store, running.pki, running.identity.tenants, running.identity.tokens, SystemClock())
    gate = UseFrontProxy(ProxySettings(frozenset({"gate", "system:polder:front-proxy:acme"})))
    chain._methods = known.chain(AuthnSettings((gate, *AuthnSettings().methods)))._methods
    said = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")]
    outside = running.client(running.pki.issue_front_proxy("gate"))
    answer = await outside.get(PODS, X_Remote_User="admin", X_Remote_Group="system:masters")
    assert answer.status == 200, "the platform's proxy is believed where it is met"
    for name in ("gate", "system:polder:front-proxy:acme"):
        assert await Pinned(running).ask(PODS, said, running.pki.issue_front_proxy(name)) == 401
        assert await Pinned(running, "root").ask("/version", [], running.pki.issue_front_proxy(name)) == 401
    inner = running.client(running.pki.issue_front_proxy("system:polder:front-proxy:acme"))
    assert (await inner.get(PODS, X_Remote_User="admin", X_Remote_Group="system:masters")).status == 401
