"""What every tenant has without rows: built-in objects, root's nodes and classes, as if they were rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polder.store.protocol import Prefix
from tests.contract.conftest import Api, Kubectl, Running

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES = f"{RBAC}/clusterroles"
TENANTS = "/apis/polder.dev/v1alpha1/tenants"
NODES = "/api/v1/nodes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


@pytest.fixture
async def acme(admin: Api, running: Running) -> Api:
    for name in ("acme", "globex"):
        assert (await admin.post(TENANTS, {"metadata": {"name": name}})).status == 201
    return await running.tenant_admin("acme")


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json["items"]]


@asynccontextmanager
async def watching(client: Api, path: str, since: str) -> AsyncIterator[Any]:
    sign = "&" if "?" in path else "?"
    async with client.watch(f"{path}{sign}watch=1&resourceVersion={since}") as stream:

        async def event() -> tuple[str, Any]:
            async with asyncio.timeout(5):
                said = json.loads(await stream.content.readline())
            return said["type"], said["object"]

        yield event


async def test_built_in_objects_are_there_without_rows(acme: Api, running: Running) -> None:
    listed = await acme.get(ROLES)
    assert {"admin", "cluster-admin", "edit", "view", "system:discovery"} <= set(names(listed))
    assert names(listed) == sorted(names(listed))
    found = (await acme.get(f"{ROLES}/view")).json
    again = next(item for item in listed.json["items"] if item["metadata"]["name"] == "view")
    assert found["metadata"] == again["metadata"] and found["rules"] == again["rules"]
    assert found["metadata"]["uid"] and found["metadata"]["creationTimestamp"] and found["metadata"]["resourceVersion"]
    other = (await (await running.tenant_admin("globex")).get(f"{ROLES}/view")).json
    assert other["metadata"]["uid"] != found["metadata"]["uid"]
    admin_rules = (await acme.get(f"{ROLES}/admin")).json["rules"]
    assert any("rolebindings" in r.get("resources", ()) for r in admin_rules), "gathered from what is marked"
    assert any("configmaps" in r.get("resources", ()) and "get" in r["verbs"] for r in admin_rules)
    assert names(await acme.get("/apis/scheduling.k8s.io/v1/priorityclasses")) == [
        "system-cluster-critical", "system-node-critical",
    ]  # fmt: skip
    flow = "/apis/flowcontrol.apiserver.k8s.io/v1"
    assert names(await acme.get(f"{flow}/flowschemas")) == ["catch-all", "exempt"]
    assert names(await acme.get(f"{flow}/prioritylevelconfigurations")) == ["catch-all", "exempt"]
    (cidr,) = (await acme.get("/apis/networking.k8s.io/v1/servicecidrs")).json["items"]
    assert (cidr["metadata"]["name"], cidr["spec"]["cidrs"]) == ("kubernetes", ["10.96.0.0/16"])
    for resource in ("clusterroles.rbac.authorization.k8s.io", "priorityclasses.scheduling.k8s.io"):
        assert not (await running.store.list(Prefix(resource))).entries


async def test_lists_in_chunks_and_by_selector(acme: Api) -> None:
    everything = names(await acme.get(ROLES))
    for name in ("aa", "mm", "zz"):
        await acme.post(ROLES, {"metadata": {"name": name, "labels": {"mine": "yes"}}})
    await acme.delete(f"{ROLES}/system:heapster")
    wanted = sorted({*everything, "aa", "mm", "zz"} - {"system:heapster"})
    for limit in (1, 7, 40, 500):
        found, token, left = [], "", None
        while True:
            page = (await acme.get(f"{ROLES}?limit={limit}{f'&continue={token}' if token else ''}")).json
            assert len(page["items"]) <= limit
            found += [item["metadata"]["name"] for item in page["items"]]
            token, remaining = page["metadata"].get("continue"), page["metadata"].get("remainingItemCount")
            if not token:
                assert remaining is None
                break
            assert remaining == len(wanted) - len(found) or limit == 1
            left = remaining
        assert found == wanted, limit
    del left
    assert names(await acme.get(f"{ROLES}?labelSelector=mine=yes")) == ["aa", "mm", "zz"]
    assert names(await acme.get(f"{ROLES}?labelSelector=kubernetes.io/bootstrapping&limit=500")) == sorted(
        set(wanted) - {"aa", "mm", "zz", "system:polder:none"}
    )
    assert names(await acme.get(f"{ROLES}?fieldSelector=metadata.name=view")) == ["view"]


async def test_a_write_makes_a_row_and_a_deletion_stays(acme: Api, running: Running) -> None:
    role = (await acme.get(f"{ROLES}/system:basic-user")).json
    since = (await acme.get(ROLES)).json["metadata"]["resourceVersion"]
    async with watching(acme, ROLES, since) as event:
        changed = await acme.patch(f"{ROLES}/system:basic-user", {"metadata": {"labels": {"x": "y"}}})
        assert changed.status == 200 and changed.json["metadata"]["uid"] == role["metadata"]["uid"]
        kind, seen = await event()
        assert (kind, seen["metadata"]["labels"]["x"]) == ("MODIFIED", "y")
        stale = await acme.put(f"{ROLES}/system:basic-user", role)
        assert stale.status == 409
        assert (await acme.delete(f"{ROLES}/system:basic-user")).status == 200
        assert (await event())[0] == "DELETED"
        assert (await acme.get(f"{ROLES}/system:basic-user")).status == 404
        assert (await acme.delete(f"{ROLES}/system:basic-user")).status == 404
        assert "system:basic-user" not in names(await acme.get(ROLES))
        made = await acme.post(ROLES, {"metadata": {"name": "system:basic-user"}})
        assert made.status == 201 and made.json["metadata"]["uid"] != role["metadata"]["uid"]
        assert (await event())[0] == "ADDED"
        assert (await acme.post(ROLES, {"metadata": {"name": "view"}})).status == 409
    assert (await (await running.tenant_admin("globex")).get(f"{ROLES}/system:basic-user")).json["rules"] == role[
        "rules"
    ]
    exact = await acme.get(f"{ROLES}?resourceVersion={since}&resourceVersionMatch=Exact")
    assert "system:basic-user" in names(exact)


async def test_what_is_deleted_grants_nothing(acme: Api, running: Running) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    pod = running.client(token=(await acme.post(path, {"spec": {}})).json["status"]["token"])
    assert (await pod.get("/apis")).status == 200
    await acme.delete(f"{RBAC}/clusterrolebindings/system:discovery")
    assert (await pod.get("/apis")).status == 403


async def test_marked_roles_are_gathered(acme: Api, running: Running) -> None:
    since = (await acme.get(ROLES)).json["metadata"]["resourceVersion"]
    rules = [{"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]}]
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    async with watching(acme, ROLES, since) as event:
        await acme.post(ROLES, {"metadata": {"name": "widgets-view", "labels": labels}, "rules": rules})
        seen = [await event() for _ in range(4)]
    assert sorted((kind, obj["metadata"]["name"]) for kind, obj in seen) == [
        ("ADDED", "widgets-view"), ("MODIFIED", "admin"), ("MODIFIED", "edit"), ("MODIFIED", "view"),
    ]  # fmt: skip
    view = (await acme.get(f"{ROLES}/view")).json
    assert rules[0] in view["rules"]
    assert rules[0] not in (await (await running.tenant_admin("globex")).get(f"{ROLES}/view")).json["rules"]
    spec = {"user": "jane", "resourceAttributes": {"verb": "get", "group": "example.com", "resource": "widgets"}}
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}
    subject = {"kind": "User", "name": "jane"}
    await acme.post(f"{RBAC}/clusterrolebindings", {"metadata": {"name": "b"}, "roleRef": ref, "subjects": [subject]})
    sar = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert (await acme.post(sar, {"spec": spec})).json["status"]["allowed"]
    await acme.delete(f"{ROLES}/widgets-view")
    assert not (await acme.post(sar, {"spec": spec})).json["status"]["allowed"]
    put = await acme.put(f"{ROLES}/view", {**view, "metadata": {**view["metadata"], "annotations": {"a": "b"}}})
    assert put.status == 409, "what was gathered is another version now"


async def node(admin: Api, name: str, **labels: str) -> None:
    status = {"capacity": {"cpu": "3", "memory": "9Gi", "pods": "110"}, "images": [{"names": ["x"]}]}
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, "secret": "rack-7", **labels}}
    assert (await admin.post(NODES, {"metadata": meta, "status": status})).status == 201


async def test_a_tenants_labels_and_taints_on_nodes_are_its_own(admin: Api, acme: Api, running: Running) -> None:
    await node(admin, "n1")
    globex = await running.tenant_admin("globex")
    since = (await acme.get(NODES)).json["metadata"]["resourceVersion"]
    async with watching(acme, f"{NODES}?labelSelector=disk=ssd", since) as event:
        taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
        put = {"metadata": {"labels": {"disk": "ssd"}, "annotations": {"a": "b"}}, "spec": {"taints": [taint]}}
        assert (await acme.patch(f"{NODES}/n1", put)).status == 200
        kind, seen = await event()
        assert (kind, seen["spec"]["taints"]) == ("ADDED", [taint])
        await admin.patch(f"{NODES}/n1/status", {"status": {"capacity": {"cpu": "5"}}})
        kind, seen = await event()
        assert (kind, seen["status"]["capacity"]["cpu"], seen["metadata"]["labels"]["disk"]) == ("MODIFIED", "5", "ssd")
        await acme.patch(f"{NODES}/n1", {"metadata": {"labels": {"disk": None}}})
        assert (await event())[0] == "DELETED"
    mine, theirs = (await acme.get(f"{NODES}/n1")).json, (await globex.get(f"{NODES}/n1")).json
    assert mine["metadata"]["annotations"] == {"a": "b"} and mine["spec"]["taints"] == [taint]
    assert "annotations" not in theirs["metadata"] and "taints" not in theirs["spec"]
    for seen in (mine, theirs):
        assert seen["metadata"]["labels"] == {"kubernetes.io/hostname": "n1"}
        assert "images" not in seen["status"]
    root = (await admin.get(f"{NODES}/n1")).json
    assert root["metadata"]["labels"]["secret"] == "rack-7" and "taints" not in root["spec"]
    for wrong in ({"metadata": {"labels": {"kubernetes.io/hostname": "x"}}}, {"spec": {"podCIDR": "10.0.0.0/24"}}):
        assert (await acme.patch(f"{NODES}/n1", wrong)).status == 403
    assert (await acme.patch(f"{NODES}/n1/status", {"status": {"capacity": {"cpu": "99"}}})).status == 403
    assert (await acme.delete(f"{NODES}/n1")).status == 403
    typed = {**mine, "status": {**mine["status"], "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "phase": ""}}
    assert (await acme.put(f"{NODES}/n1/status", typed)).status == 200, "a typed client sends empty fields too"


async def test_a_zone_is_the_platforms_where_it_names_one_else_the_tenants(admin: Api, acme: Api) -> None:
    zone = "topology.kubernetes.io/zone"
    await node(admin, "n1", **{zone: "a"})
    await node(admin, "n2")
    assert (await acme.get(f"{NODES}/n1")).json["metadata"]["labels"][zone] == "a"
    assert (await acme.patch(f"{NODES}/n1", {"metadata": {"labels": {zone: "mine"}}})).status == 403
    assert (await acme.patch(f"{NODES}/n2", {"metadata": {"labels": {zone: "mine"}}})).status == 200
    assert (await acme.get(f"{NODES}/n2")).json["metadata"]["labels"][zone] == "mine"
    assert zone not in (await admin.get(f"{NODES}/n2")).json["metadata"]["labels"]
    assert (await admin.patch(f"{NODES}/n2", {"metadata": {"labels": {zone: "b"}}})).status == 200
    assert (await acme.get(f"{NODES}/n2")).json["metadata"]["labels"][zone] == "b", "the platform's word stands"
    assert (await acme.patch(f"{NODES}/n2", {"metadata": {"labels": {"x": "y"}}})).status == 200


async def test_a_tenants_own_node_is_its_own_and_inert(admin: Api, acme: Api, running: Running) -> None:
    await node(admin, "n1")
    made = {"metadata": {"name": "mine", "labels": {"x": "y"}}, "status": {"capacity": {"cpu": "99"}}}
    assert (await acme.post(NODES, made)).status == 201
    assert names(await acme.get(NODES)) == ["mine", "n1"]
    assert names(await admin.get(NODES)) == ["n1"] == names(await admin.at("*").get(NODES))
    assert names(await (await running.tenant_admin("globex")).get(NODES)) == ["n1"]
    assert (await acme.patch(f"{NODES}/mine", {"metadata": {"labels": {"x": "z"}}})).status == 200
    assert (await acme.delete(f"{NODES}?labelSelector=x=z")).status == 200
    assert names(await acme.get(NODES)) == ["n1"]
    assert (await acme.post(NODES, {"metadata": {"name": "n1"}})).status == 409


async def test_roots_classes_beside_ones_own(admin: Api, acme: Api, running: Running) -> None:
    since = (await acme.get(CLASSES)).json["metadata"]["resourceVersion"]
    fast = {"metadata": {"name": "fast"}, "provisioner": "example.com/p", "parameters": {"pool": "secret"}}
    async with watching(acme, CLASSES, since) as event:
        assert (await admin.post(CLASSES, fast)).status == 201
        kind, seen = await event()
        assert (kind, seen["metadata"]["name"]) == ("ADDED", "fast") and "parameters" not in seen
        assert (await acme.post(CLASSES, {"metadata": {"name": "own"}, "provisioner": "x.io/y"})).status == 201
        assert (await event())[1]["metadata"]["name"] == "own"
        await admin.patch(f"{CLASSES}/fast", {"allowVolumeExpansion": True})
        kind, seen = await event()
        assert (kind, seen["allowVolumeExpansion"]) == ("MODIFIED", True)
    assert names(await acme.get(CLASSES)) == ["fast", "local", "own"], "a new platform has one of its own"
    assert names(await admin.get(CLASSES)) == ["fast", "local"]
    assert names(await (await running.tenant_admin("globex")).get(CLASSES)) == ["fast", "local"]
    assert (await acme.post(CLASSES, fast)).status == 409
    for refused in (await acme.patch(f"{CLASSES}/fast", {"metadata": {"labels": {"a": "b"}}}),
                    await acme.delete(f"{CLASSES}/fast")):  # fmt: skip
        assert (refused.status, "it is the platform's" in refused.json["message"]) == (403, True)
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    refused = await acme.delete(f"{classes}/system-node-critical")
    assert refused.status == 403 and "system priority class" in refused.json["message"]


async def test_mandatory_objects_come_back(acme: Api) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt"
    assert (await acme.patch(path, {"metadata": {"labels": {"a": "b"}}})).status == 200
    assert (await acme.delete(path)).status == 200
    again = await acme.get(path)
    assert again.status == 200 and "labels" not in again.json["metadata"]


async def test_nothing_of_it_outlives_the_tenant(admin: Api, acme: Api, running: Running) -> None:
    await node(admin, "n1")
    await acme.patch(f"{NODES}/n1", {"metadata": {"labels": {"a": "b"}}})
    await acme.delete(f"{ROLES}/view")
    await admin.patch(f"{TENANTS}/acme", {"metadata": {"finalizers": ["example.com/wait"]}})
    await admin.delete(f"{TENANTS}/acme")
    for path in (ROLES, NODES, CLASSES, "/apis/scheduling.k8s.io/v1/priorityclasses"):
        assert names(await admin.at("acme").get(path)) == []
    left = await running.store.resources("acme")
    assert left["nodes"] == left["clusterroles.rbac.authorization.k8s.io"] == 1
    gone = await admin.patch(f"{TENANTS}/acme", {"metadata": {"finalizers": None}})
    assert gone.status == 200, gone.body
    left = await running.store.resources("acme")
    assert not {"nodes", "clusterroles.rbac.authorization.k8s.io"} & set(left)


async def test_kubectl_labels_and_taints_nodes(
    admin: Api, acme: Api, running: Running, kubectl_paths: dict[str, str], tmp_path: Any
) -> None:
    await node(admin, "n1")
    kubectl = Kubectl(kubectl_paths["path"], tmp_path, running.kubeconfig(await running.tenant_leaf("acme"), "acme"))
    await kubectl("label", "node", "n1", "disk=ssd")
    await kubectl("taint", "node", "n1", "dedicated=x:NoSchedule")
    await kubectl("cordon", "n1")
    assert "SchedulingDisabled" in await kubectl("get", "nodes", "-l", "disk=ssd")
    await kubectl("taint", "node", "n1", "dedicated-")
    await kubectl("uncordon", "n1")
    await kubectl("label", "node", "n1", "disk-")
    assert "n1" in await kubectl("get", "nodes")
    assert "disk" not in (await acme.get(f"{NODES}/n1")).json["metadata"]["labels"]
