"""Backup, restore of one tenant beside its original, and rotation of keys, over the API of a running server."""

from __future__ import annotations

from typing import Any

import pytest

from polder.apiserver.upkeep import Upkeep
from polder.base.ids import TenantName
from polder.store.backup import check, rows_of
from polder.store.memory import MemoryStore
from polder.store.protocol import EVERYTHING, Delete, Key, Prefix
from polder.store.sealed import SealedStore, Seals, SealSettings
from polder.system.pki.sealing import ensure_keyring, is_sealed, key_id, read_keyring
from tests.contract.conftest import served

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "toolbox"}]},
}


def config_map(name, owner=None, **data):
    meta = {"name": name}
    if owner:
        meta["ownerReferences"] = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
            }
        ]
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@pytest.fixture
async def running(tmp_path):
    """As ``conftest.running``, with secrets sealed and the administrator's paths."""
    ensure_keyring(tmp_path / "keyring")
    store = SealedStore(MemoryStore(), Seals(SealSettings(tmp_path / "keyring")))
    async with served(tmp_path, store, lambda clock: Upkeep(store, clock, tmp_path).paths) as found:
        yield found


async def made(answer):
    assert answer.status in (200, 201), answer.body
    return answer.json


@pytest.fixture
async def filled(running):
    """A tenant with something of each sort."""
    admin = running.admin()
    await made(await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant("acme")))
    acme = admin.at("acme")
    core = "/api/v1/namespaces/default"
    owner = await made(await acme.post(f"{core}/configmaps", config_map("owner")))
    await made(await acme.post(f"{core}/configmaps", config_map("owned", owner, uid=owner["metadata"]["uid"])))
    await made(await acme.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD))
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
    await made(await acme.post("/apis/example.com/v1/namespaces/default/widgets", widget))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": "rabioso"}}
    await made(await acme.post(f"{core}/secrets", secret))
    await made(await acme.post(f"{core}/pods", POD))
    return acme


def tenant(name):
    return {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}}


async def save(running, path, query=""):
    answer = await running.admin().get(f"/polder/v1/backup{query}")
    assert answer.status == 200, answer.body
    path.write_bytes(answer.body)
    return check(path)


async def test_a_tenant_is_restored_beside_its_original(running, filled, tmp_path):
    summary = await save(running, tmp_path / "b", "?tenant=acme")
    ring = read_keyring(tmp_path / "keyring")
    assert (summary.header.tenant, summary.keys) == ("acme", (ring.writes,))
    rows = {row.key: row.value for row in rows_of(tmp_path / "b")}
    assert {key.tenant for key in rows} == {"acme", "root"}
    assert is_sealed(rows[Key("secrets", "acme", "default", "s")])
    leaf = await running.tenant_leaf("acme")
    admin = running.admin()
    answer = await admin.call("POST", "/polder/v1/restore?tenant=copy", (tmp_path / "b").read_bytes())
    assert answer.status == 200, answer.body

    copy, core = admin.at("copy"), "/api/v1/namespaces/default"
    owner = (await copy.get(f"{core}/configmaps/owner")).json
    owned = (await copy.get(f"{core}/configmaps/owned")).json
    before = (await filled.get(f"{core}/configmaps/owner")).json
    assert owned["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"] == owned["data"]["uid"]
    assert owner["metadata"]["uid"] != before["metadata"]["uid"]
    assert await running.store.by_term(f"owner/{owner['metadata']['uid']}") == [
        Key("configmaps", "copy", "default", "owned")
    ]
    widget = (await copy.get("/apis/example.com/v1/namespaces/default/widgets/w")).json
    assert widget["spec"] == {"size": 3}
    secret = (await copy.get(f"{core}/secrets/s")).json
    assert secret["data"] == {"password": "cmFiaW9zbw=="}
    pod = (await copy.get(f"{core}/pods/p")).json
    assert (pod["status"]["phase"], pod["spec"].get("nodeName")) == ("Pending", None)
    uids = {}
    for name in ("acme", "copy"):
        page = await running.store.list(Prefix("", name))
        uids[name] = {e.value.split(b'"uid":"')[1][:36] for e in page.entries if b'"uid":"' in e.value}
    assert not uids["acme"] & uids["copy"]
    assert (await filled.get(f"{core}/secrets/s")).status == 200

    # What lets somebody into the original opens nothing in the copy, not even under the name of the original.
    there = running.client(leaf).at("copy")
    assert (await there.get(f"{core}/configmaps")).status in (401, 403)
    mine = await running.tenant_admin("copy")
    assert (await mine.get(f"{core}/configmaps/owner")).status == 200


async def test_credentials_do_not_outlive_their_tenant_into_its_copy(running, filled, tmp_path):
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await made(await filled.post(path, body)))["status"]["token"]
    leaf = await running.tenant_leaf("acme")
    await save(running, tmp_path / "b", "?tenant=acme")
    for entry in (await running.store.list(Prefix("", "acme"))).entries:
        await running.store.commit([Delete(entry.key)])
    await running.store.commit([Delete(Key("tenants.polder.dev", "root", "", "acme"))])
    answer = await running.admin().call("POST", "/polder/v1/restore?tenant=acme", (tmp_path / "b").read_bytes())
    assert answer.status == 200, answer.body
    record = await running.identity.tenants.get(TenantName("acme"))
    assert record is not None
    assert (await running.client(leaf).get("/api/v1/namespaces/default/configmaps")).status in (401, 403)
    assert (await running.client(token=token).get("/api/v1/namespaces/default/configmaps")).status == 401
    fresh = (await made(await running.admin().at("acme").post(path, body)))["status"]["token"]
    assert (await running.client(token=fresh).get("/api/v1/namespaces/default/configmaps")).status in (200, 403)


async def rows(running: Any) -> dict[Any, bytes]:
    """All that is stored, but for what the server says of aggregated APIs, which it asks from time to time."""
    page = await running.store.inner.list(EVERYTHING)
    return {entry.key: entry.value for entry in page.entries if not entry.key.resource.startswith("apiservices.")}


async def test_what_cannot_be_restored_is_refused_whole(running, filled, tmp_path):
    await save(running, tmp_path / "b", "?tenant=acme")
    await save(running, tmp_path / "all")
    admin, good = running.admin(), (tmp_path / "b").read_bytes()
    before = await rows(running)
    for name, body, status, why in (
        ("acme", good, 409, "already exists"),
        ("root", good, 400, "cannot be the name"),
        ("No.Name", good, 400, "cannot be the name"),
        ("new", good[:-100], 400, "cut off"),
        ("new", b"x" * 1000, 400, "no backup"),
        ("new", (tmp_path / "all").read_bytes(), 400, "whole cluster"),
    ):
        answer = await admin.call("POST", f"/polder/v1/restore?tenant={name}", body)
        assert (answer.status, why in answer.json["message"]) == (status, True), answer.body
    assert (await admin.get("/polder/v1/backup?tenant=nobody")).status == 404
    assert (await admin.post("/polder/v1/backup", {})).status == 405
    assert await rows(running) == before
    assert [p.name for p in tmp_path.glob(".restore*")] == []


async def test_nobody_else_sees_these_paths(running, filled):
    mine = await running.tenant_admin("acme")
    for client in (mine, running.component(), running.node("n1"), running.client(), running.admin().at("acme")):
        for method, path in (("GET", "backup"), ("POST", "restore?tenant=x"), ("POST", "secrets/reseal")):
            answer = await client.call(method, f"/polder/v1/{path}", b"" if method == "POST" else None)
            assert answer.status in (401, 403, 404), (method, path, answer.body)


async def test_rotation_writes_every_secret_anew(running, filled, tmp_path):
    ring = read_keyring(tmp_path / "keyring")
    ring.with_new_key().writing().write(tmp_path / "keyring")
    answer = await running.admin().post("/polder/v1/secrets/reseal", {})
    new = read_keyring(tmp_path / "keyring")
    assert answer.json["key"] == new.writes != ring.writes
    page = await running.store.inner.list(EVERYTHING)
    sealed = [e for e in page.entries if is_sealed(e.value)]
    assert {"secrets", "internal:keys"} <= {e.key.resource for e in sealed}
    assert {key_id(e.value) for e in sealed} == {new.writes}
    assert answer.json["rewritten"] == len(sealed)
    new.pruned().write(tmp_path / "keyring")
    running.store.seals.reload()
    assert (await filled.get("/api/v1/namespaces/default/secrets/s")).status == 200
