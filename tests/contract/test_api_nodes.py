"""A node's view over all tenants: its pods, the tenants present on it, and 410 when that changes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

TENANTS = "/apis/polder.dev/v1alpha1/tenants"
PODS = "/api/v1/namespaces/default/pods"
NETS = "/apis/polder.dev/v1alpha1/networks"


async def bind(admin: Any, tenant: str, name: str, node: str) -> None:
    made = await admin.at(tenant).post(
        PODS, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )
    assert made.status == 201, made.body
    target = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
    assert (await admin.at(tenant).post(f"{PODS}/{name}/binding", target)).status == 201


async def tenants_of(api: Any, path: str) -> list[str]:
    found = await api.at("*").get(path)
    assert found.status == 200, found.body
    return sorted({o["metadata"]["annotations"]["polder.dev/tenant"] for o in found.json["items"]})


async def test_a_node_sees_its_share(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
    await bind(admin, "acme", "here", "n1")
    await bind(admin, "globex", "there", "n2")
    await asyncio.sleep(0.1)
    node = running.node("n1")
    assert await tenants_of(node, "/api/v1/pods") == ["acme"]
    assert await tenants_of(node, NETS) == ["acme", "root"]
    assert (await node.get(TENANTS)).status in {200, 403}
    assert (await node.at("*").get("/api/v1/secrets")).status == 403
    assert (await node.at("globex").get(f"{PODS}/there")).status == 403
    assert (await node.at("acme").get(f"{PODS}/here")).status == 200
    status = await node.at("acme").patch(f"{PODS}/here/status", {"status": {"phase": "Running"}})
    assert status.status == 200, status.body


async def test_the_watch_ends_when_a_tenant_arrives(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
    await bind(admin, "acme", "here", "n1")
    await asyncio.sleep(0.1)
    node = running.node("n1")
    listed = (await node.at("*").get(NETS)).json
    path = f"{NETS}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
    async with node.at("*").watch(path) as stream:
        await asyncio.sleep(0.1)
        await bind(admin, "globex", "new", "n1")
        said = json.loads(await asyncio.wait_for(stream.content.readline(), 5))
        assert (said["type"], said["object"]["code"]) == ("ERROR", 410)
        assert await asyncio.wait_for(stream.content.readline(), 5) == b""
    assert await tenants_of(node, NETS) == ["acme", "globex", "root"]


async def test_pods_appear_when_they_are_bound(admin: Any, running: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    node = running.node("n1")
    listed = (await node.at("*").get("/api/v1/pods")).json
    path = f"/api/v1/pods?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
    async with node.at("*").watch(path) as stream:
        await bind(admin, "acme", "mine", "n1")
        await bind(admin, "acme", "other", "n2")
        first = json.loads(await asyncio.wait_for(stream.content.readline(), 5))
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "mine")
        assert first["object"]["metadata"]["annotations"]["polder.dev/tenant"] == "acme"
        await admin.at("acme").delete(f"{PODS}/other", {"gracePeriodSeconds": 0})
        await admin.at("acme").delete(f"{PODS}/mine", {"gracePeriodSeconds": 0})
        last = json.loads(await asyncio.wait_for(stream.content.readline(), 5))
        assert (last["type"], last["object"]["metadata"]["name"]) == ("DELETED", "mine")


async def test_tenants_see_nodes_and_cannot_delete_them(admin: Any, running: Any) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    node = {
        "metadata": {"name": "n1"},
        "status": {"capacity": {"cpu": "3", "memory": "9Gi"}, "images": [{"names": ["x"]}]},
    }
    assert (await admin.post("/api/v1/nodes", node)).status == 201
    acme = await running.tenant_admin("acme")
    (seen,) = (await acme.get("/api/v1/nodes")).json["items"]
    assert seen["status"]["capacity"]["cpu"] == "3" and "images" not in seen["status"]
    assert (await acme.delete("/api/v1/nodes/n1")).status == 403
    assert (await admin.at("acme").delete("/api/v1/nodes/n1")).status == 403
    assert (await admin.get("/api/v1/nodes/n1")).status == 200


async def test_a_tenant_that_arrives_between_two_pages_is_not_missed(admin: Any, running: Any) -> None:
    for name in ("acme", "globex"):
        await admin.post(TENANTS, {"metadata": {"name": name}})
    await bind(admin, "acme", "here", "n1")
    await asyncio.sleep(0.1)
    node = running.node("n1")
    first = (await node.at("*").get(f"{NETS}?limit=1")).json
    await bind(admin, "globex", "new", "n1")
    await asyncio.sleep(0.1)
    rest = (await node.at("*").get(f"{NETS}?limit=1&continue={first['metadata']['continue']}")).json
    path = f"{NETS}?watch=1&resourceVersion={rest['metadata']['resourceVersion']}"
    async with node.at("*").watch(path) as stream:
        said = json.loads(await asyncio.wait_for(stream.content.readline(), 5))
        assert (said["type"], said["object"]["code"]) == ("ERROR", 410)


async def test_a_node_decides_nothing_of_what_runs_on_it(admin: Any, running: Any) -> None:
    node, path = running.node("n1"), "/api/v1/nodes/n1"
    body: dict[str, Any] = {"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "rack": "r"}}}
    for label in ("node-restriction.kubernetes.io/for", "x.k8s.io/y", "node-role.kubernetes.io/infra"):
        made = await node.post("/api/v1/nodes", {"metadata": {"name": "n1", "labels": {label: "x"}}})
        assert (made.status, label in made.json["message"]) == (403, True), made.json
    assert (await node.post("/api/v1/nodes", body)).status == 201
    kept = {"metadata": {"labels": {"example.node-restriction.kubernetes.io/for": "acme"}}}
    taints = {"spec": {"taints": [{"key": "kept", "effect": "NoExecute"}]}}
    for change in (kept, taints):
        assert (await admin.patch(path, change)).status == 200
    owner = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}
    for change, word in [
        ({"spec": {"taints": None}}, "taints"),
        ({"metadata": {"labels": {"example.node-restriction.kubernetes.io/for": None}}}, "labels"),
        ({"metadata": {"labels": {"node-restriction.kubernetes.io/for": "acme"}}}, "labels"),
        ({"metadata": {"ownerReferences": [owner]}}, "ownerReferences"),
    ]:
        said = await node.patch(path, change)
        assert (said.status, f"modify {word}" in said.json.get("message", "")) == (403, True), (change, said.json)
        assert (await node.patch(f"{path}/status", change)).status in {200, 403}, "which leaves these alone"
    found = (await admin.get(path)).json
    assert [t["key"] for t in found["spec"]["taints"]] == ["kept"] and "ownerReferences" not in found["metadata"]
    assert found["metadata"]["labels"].keys() == {"kubernetes.io/hostname", "rack", *kept["metadata"]["labels"]}
    own = {"labels": {"topology.kubernetes.io/zone": "z", "disk.node.kubernetes.io/fast": "yes", "example.com/a": "b"}}
    changed = await node.patch(path, {"metadata": own, "status": {"phase": "Running"}})
    assert changed.status == 200, changed.json
