"""Two API servers in one process on one store: nothing may rest on a server being alone."""

from __future__ import annotations

import asyncio

import pytest

from polder.apiserver.identity import IdentityLayer, IdentitySettings
from polder.apiserver.server import ApiServer
from polder.apiserver.settings import ServerSettings
from polder.apiserver.turns import TURNS
from polder.base.clock import SystemClock
from polder.store.memory import MemoryStore
from polder.store.protocol import Prefix
from polder.system.pki import ensure_pki
from tests.contract.conftest import Running

NETWORKS = "/apis/polder.dev/v1alpha1/namespaces/default/networks"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TENANT = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}


class Distant(MemoryStore):
    """As far away as a store on another machine: other requests come between."""

    async def list(self, *args, **kwargs):
        await asyncio.sleep(0.002)
        return await super().list(*args, **kwargs)

    async def get(self, key):
        await asyncio.sleep(0)
        return await super().get(key)


@pytest.fixture
async def pair(tmp_path):
    store, clock, pki = Distant(), SystemClock(), ensure_pki(tmp_path / "pki")
    pki.issue_serving(["localhost"], ["127.0.0.1"]).write(tmp_path / "s.crt", tmp_path / "s.key")
    (tmp_path / "clients").mkdir()
    made, following = [], []
    for _ in range(2):
        identity = IdentityLayer(IdentitySettings(), store, pki, clock)
        settings = ServerSettings(tmp_path / "s.crt", tmp_path / "s.key", pki.clients_ca, port=0, stop_timeout=1.0)
        server = ApiServer(settings, store, identity.parts, clock)
        identity.attach(server.serve_socket)
        await identity.start()
        following.append(asyncio.create_task(identity.run()))
        await server.start()
        made.append(Running(server, store, pki, identity, tmp_path / "clients"))
    yield made
    for one in made:
        for session in one.sessions:
            await session.close()
        await one.api.stop()
        await one.identity.close()
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    await store.close()


@pytest.fixture
async def tenants(pair):
    """An administrator's client of each server, in one tenant."""
    first, second = (one.admin() for one in pair)
    assert (await first.post("/apis/polder.dev/v1alpha1/tenants", TENANT)).status == 201
    return first.at("acme"), second.at("acme")


def network(name, cidr):
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "polder.dev/v1alpha1", "kind": "Network", "metadata": meta, "spec": {"cidr": cidr}}


def definition(plural, kind):
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": plural[:-1], "kind": kind, "listKind": f"{kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def test_of_overlapping_networks_one_is_made_whichever_server_is_asked(tenants):
    for number in range(12):
        answers = await asyncio.gather(
            *(t.post(NETWORKS, network(f"n{number}-{i}", f"10.{100 + number}.0.0/16")) for i, t in enumerate(tenants))
        )
        assert sorted(a.status for a in answers) == [201, 422], [a.body for a in answers]
    both = await asyncio.gather(
        *(t.post(NETWORKS, network(f"apart-{i}", f"10.20{i}.0.0/16")) for i, t in enumerate(tenants))
    )
    assert [a.status for a in both] == [201, 201]


async def test_of_definitions_that_claim_one_kind_one_is_accepted(tenants):
    for number in range(6):
        answers = await asyncio.gather(
            *(t.post(CRDS, definition(f"things{number}{i}s", f"Thing{number}")) for i, t in enumerate(tenants))
        )
        assert [a.status for a in answers] == [201, 201], [a.body for a in answers]
        found = [(await tenants[0].get(f"{CRDS}/things{number}{i}s.example.com")).json for i in range(2)]
        conditions = [{c["type"]: c["status"] for c in f["status"]["conditions"]}["NamesAccepted"] for f in found]
        assert sorted(conditions) == ["False", "True"]


async def test_turns_go_with_their_tenant(pair, tenants):
    assert (await tenants[0].post(NETWORKS, network("n", "10.99.0.0/16"))).status == 201
    rows = [e.key.name for e in (await pair[0].store.list(Prefix(TURNS))).entries]
    assert "acme" in rows
    ends = await pair[0].identity.bootstrap.farewell("acme")
    assert [op.key.name for op in ends if op.key.resource == TURNS] == ["acme"]


async def test_what_one_server_writes_the_other_shows_and_allows_at_once(pair, tenants):
    first, second = tenants
    core = "/api/v1/namespaces/default"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}}
    made = (await first.post(f"{core}/configmaps", body)).json
    version = made["metadata"]["resourceVersion"]
    assert (await second.get(f"{core}/configmaps/c")).json == made
    assert (await second.put(f"{core}/configmaps/c", {**made, "data": {"a": "b"}})).status == 200
    stale = await first.put(f"{core}/configmaps/c", {**made, "data": {"a": "c"}})
    assert stale.status == 409
    async with second.watch(f"{core}/configmaps?watch=1&resourceVersion={version}&timeoutSeconds=5") as answer:
        assert b'"MODIFIED"' in await answer.content.readline()
    admin = await pair[1].tenant_admin("acme")
    assert (await admin.get(f"{core}/configmaps/c")).status == 200
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    said = await first.post(f"{core}/serviceaccounts/default/token", token)
    bearer = pair[1].client(token=said.json["status"]["token"])
    assert (await bearer.get("/api/v1/namespaces/default/configmaps")).status == 403
    assert (await bearer.get("/version")).status == 200
