"""A tenant's first objects, root's, tokens' answers, and what a tenant sees of nodes."""

from __future__ import annotations

import time
from dataclasses import replace

import orjson
import pytest

from polder.api.errors import ApiError
from polder.apiserver.builtin import CLUSTER_ROLES, TOMBSTONE
from polder.apiserver.objects import encode
from polder.apiserver.projection import Projected, project_node
from polder.apiserver.tenancy import tenant_key
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import Delete, Key, Prefix, Put


async def names(world, resource, tenant):
    page = await world.store.list(Prefix(resource, tenant))
    return {(e.key.namespace, e.key.name) for e in page.entries}


async def test_a_tenant_is_whole_from_its_first_revision(world):
    began = time.perf_counter()
    await world.add_tenant("initech")
    assert time.perf_counter() - began < 0.1
    spaces = {"default", "kube-system", "kube-public"}
    assert await names(world, "namespaces", "initech") == {("", n) for n in spaces}
    assert await names(world, "serviceaccounts", "initech") == {(n, "default") for n in spaces}
    trust = {("kube-system", "extension-apiserver-authentication")}
    assert await names(world, "configmaps", "initech") == {(n, "kube-root-ca.crt") for n in spaces} | trust
    assert await names(world, "networks.polder.dev", "initech") == {("kube-system", "default")}
    assert await names(world, "routers.polder.dev", "initech") == {("kube-system", "default")}
    service = orjson.loads((await world.store.get(Key("services", "initech", "default", "kubernetes"))).value)
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    resolver = orjson.loads((await world.store.get(Key("services", "initech", "kube-system", "kube-dns"))).value)
    assert resolver["spec"]["clusterIP"] == "10.96.0.10"
    assert resolver["metadata"]["labels"]["k8s-app"] == "kube-dns"
    assert [(p["name"], p["protocol"], p["targetPort"]) for p in resolver["spec"]["ports"]] == [
        ("dns", "UDP", 53), ("dns-tcp", "TCP", 53),
    ]  # fmt: skip
    revisions = {
        e.revision for r in ("namespaces", "services") for e in (await world.store.list(Prefix(r, "initech"))).entries
    }
    assert len(revisions) == 1


async def test_root_is_completed_and_left_as_it_is(world):
    assert await names(world, "networks.polder.dev", "root") == {("kube-system", "default"), ("kube-system", "transit")}
    key = Key("namespaces", "root", "", "kube-public")
    before = await world.store.get(Key("namespaces", "root", "", "default"))
    await world.store.commit([Delete(key)])
    await world.bootstrap.ensure_root(world.store, world.tenants)
    assert await world.store.get(key) is not None
    assert await world.store.get(before.key) == before
    revision = await world.store.revision()
    await world.bootstrap.ensure_root(world.store, world.tenants)
    assert await world.store.revision() == revision


async def test_token_requests(world):
    answer = await world.requests.issue(TenantName("acme"), "default", "default", {})
    assert answer["kind"] == "TokenRequest"
    assert answer["spec"] == {
        "audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600, "boundObjectRef": None,
    }  # fmt: skip
    uid = await world.pod("acme", "web", "n1", serviceAccountName="other")
    await world.pod("acme", "own", "n1")
    pod = {"apiVersion": "v1", "kind": "Pod", "name": "web"}
    for spec, code, field in (
        ({"expirationSeconds": 599}, 422, "spec.expirationSeconds"),
        ({"expirationSeconds": 2**32 + 1}, 422, "spec.expirationSeconds"),
        ({"expirationSeconds": True}, 422, "spec.expirationSeconds"),
        ({"audiences": "x"}, 422, "spec.audiences"),
        ({"boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "n"}}, 404, "nodes"),
        ({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "n"}}, 400, "ConfigMap"),
        ({"boundObjectRef": {**pod, "name": "own", "uid": "1"}}, 409, "UID"),
        ({"boundObjectRef": {**pod, "uid": uid}}, 400, "different"),
        ({"boundObjectRef": {**pod, "name": "none"}}, 404, "none"),
    ):
        with pytest.raises(ApiError, match=field) as caught:
            await world.requests.issue(TenantName("acme"), "default", "default", {"spec": spec})
        assert caught.value.code == code
    with pytest.raises(ApiError) as caught:
        await world.requests.issue(TenantName("acme"), "default", "nobody", {})
    assert caught.value.code == 404


async def test_the_keys_of_tenants_differ(world):
    sets = [await world.tokens.key_set(TenantName(n)) for n in ("root", "acme", "globex")]
    assert len({s["keys"][0]["kid"] for s in sets}) == 3
    assert "d" not in sets[0]["keys"][0]


def node(name="n1", heartbeat="1", ready="True"):
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": name, "polder.dev/rack": "7"}, "annotations": {"secret": "x"},
        },
        "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}], "providerID": "p"},
        "status": {
            "capacity": {"cpu": "3500m", "memory": "8007620Ki", "pods": "110", "hugepages-2Mi": "0"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": name}],
            "conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat, "message": "m"},
                {"type": "MemoryPressure", "status": "False"},
            ],
            "nodeInfo": {"kubeletVersion": "v1", "machineID": "m", "operatingSystem": "linux", "architecture": "amd64"},
            "images": [{"names": ["theirs"]}],
        },
    }  # fmt: skip


def test_a_projected_node_shows_the_allow_list_and_nothing_else():
    assert orjson.loads(project_node(encode(node()))) == {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": "n1", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"kubernetes.io/hostname": "n1"},
        },
        "spec": {},
        "status": {
            "capacity": {"cpu": "3", "memory": "7Gi", "pods": "110"}, "allocatable": {},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}],
            "nodeInfo": {"kubeletVersion": "v1", "operatingSystem": "linux", "architecture": "amd64"},
        },
    }  # fmt: skip


async def test_a_tenant_watches_nodes_without_heartbeats(world):
    key = Key("nodes", ROOT, "", "n1")
    await world.store.commit([Put(key, encode(node()))])
    projected = Projected(world.store)
    page = await projected.list(Prefix("nodes", "acme"))
    assert [e.key for e in page.entries] == [Key("nodes", "acme", "", "n1")]
    assert await projected.get(Key("nodes", "acme", "", "n1")) == page.entries[0]
    assert (await projected.get(key)).value == encode(node()), "root sees the node itself"
    watch = projected.watch(Prefix("nodes", "acme"), page.revision)
    await world.store.commit([Put(key, encode(node(heartbeat="2")))])
    await world.store.commit([Put(key, encode(node(heartbeat="3", ready="False")))])
    await world.store.commit([Delete(key)])
    seen, last = [], await world.store.revision()
    async for batch in watch:
        seen += [(c.type.value, orjson.loads(c.value)["status"]["conditions"][0]["status"]) for c in batch.changes]
        if batch.revision == last:
            break
    await watch.aclose()
    assert seen == [("put", "False"), ("delete", "False")]


async def test_what_an_ending_tenant_has_instead_of_rows_goes_in_commits_of_any_backends_size(world):
    bootstrap = replace(world.bootstrap, store=world.store)
    keys = [Key(CLUSTER_ROLES, "acme", "", f"r{n}") for n in range(130)]
    await world.store.commit([Put(key, TOMBSTONE) for key in keys])
    # A deletion that is only tried removes nothing.
    assert len(await bootstrap.farewell(TenantName("acme"))) > 130
    assert len((await world.store.list(Prefix(CLUSTER_ROLES, "acme"))).entries) == 130
    row = await world.store.get(tenant_key(TenantName("acme")))
    raw = orjson.loads(row.value)
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await world.store.commit([Put(row.key, orjson.dumps(raw))])
    ends = await bootstrap.farewell(TenantName("acme"))
    assert len(ends) < 30
    await world.store.commit(ends)
    assert not (await world.store.list(Prefix(CLUSTER_ROLES, "acme"))).entries
