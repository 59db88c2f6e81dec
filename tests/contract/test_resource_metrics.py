"""metrics.k8s.io: what pods and nodes use, told by nodes, shown to those whose pods they are; and `kubectl top`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from polder.api.resourcemetrics import NodeUsage, PodUsage, Usage
from polder.apiserver.authn import NODES
from polder.client.client import ClientSettings
from polder.node.stream import ServerStream
from tests.contract.conftest import Api, Kubectl, Running

API = "/apis/metrics.k8s.io/v1beta1"
NODE = {
    "metadata": {"name": "n1", "labels": {"zone": "a"}},
    "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "capacity": {"cpu": "4", "memory": "8Gi"}},
}
GIB = 1 << 30


class Node:
    """An agent that reports what it is told to."""

    def __init__(self) -> None:
        self.pods: dict[str, PodUsage] = {}

    async def usage(self, _: Any, stream: Any) -> None:
        await stream.write(msgspec.json.encode(NodeUsage(1000.0, 15.0, Usage(2_000_000_000, 4 * GIB), self.pods)))

    def uses(self, uid: str, **containers: tuple[int, int]) -> None:
        used = {name: Usage(milli * 1_000_000, mib << 20) for name, (milli, mib) in containers.items()}
        self.pods[uid] = PodUsage(1000.0, 15.0, used)


@pytest.fixture
async def node(running: Running) -> AsyncIterator[Node]:
    node, task = Node(), None
    certificate, key = running.folder / "n1.crt", running.folder / "n1.key"
    running.leaf("system:node:n1", NODES).write(certificate, key)
    settings = ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key)
    stream = ServerStream(settings, {"usage": node.usage})
    task = asyncio.create_task(stream.run())
    async with asyncio.timeout(20):
        await stream.wait_connected()
    yield node
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def make_pod(api: Api, tenant: str, name: str, node: str = "n1", **labels: str) -> str:
    """A pod of the tenant, bound as the scheduler does it; its UID."""
    body = {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    place = "/api/v1/namespaces/default/pods"
    made = await api.at(tenant).post(place, body)
    assert made.status == 201, made.body
    bound = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
    assert (await api.server.component().at(tenant).post(f"{place}/{name}/binding", bound)).status == 201
    return str(made.json["metadata"]["uid"])


@pytest.fixture
async def filled(running: Running, admin: Api, node: Node) -> tuple[Api, Api]:
    """The clients of two tenants, each with pods on the node."""
    assert (await admin.post("/api/v1/nodes", NODE)).status == 201
    assert await admin.call("PATCH", "/api/v1/nodes/n1/status", NODE, Content_Type="application/merge-patch+json")
    for name in ("acme", "other"):
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})).status == 201
    acme, other = await running.tenant_admin("acme"), await running.tenant_admin("other")
    node.uses(await make_pod(admin, "acme", "web", app="web"), c=(250, 64), side=(50, 16))
    node.uses(await make_pod(admin, "acme", "db", app="db"), c=(100, 512))
    await make_pod(admin, "acme", "new", app="web")
    node.uses(await make_pod(admin, "other", "theirs"), c=(900, 100))
    return acme, other


def names(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [item["metadata"]["name"] for item in answer.json["items"]]


async def test_pods_show_what_their_containers_use(filled: tuple[Api, Api]) -> None:
    acme, other = filled
    found = await acme.get(f"{API}/namespaces/default/pods")
    assert (found.json["kind"], found.json["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
    assert names(found) == ["db", "web"], "a pod that nothing is known of is left out"
    one = (await acme.get(f"{API}/namespaces/default/pods/web")).json
    assert one["kind"] == "PodMetrics" and one["metadata"]["labels"] == {"app": "web"}
    assert one["containers"] == [
        {"name": "c", "usage": {"cpu": "250000000n", "memory": "65536Ki"}},
        {"name": "side", "usage": {"cpu": "50000000n", "memory": "16384Ki"}},
    ]
    assert (one["timestamp"], one["window"]) == ("1970-01-01T00:16:40Z", "15s")
    assert names(await acme.get(f"{API}/pods?labelSelector=app%3Dweb")) == ["web"]
    assert names(await acme.get(f"{API}/pods?fieldSelector=metadata.name%3Ddb")) == ["db"]
    assert names(await acme.get(f"{API}/namespaces/kube-system/pods")) == []
    assert names(await other.get(f"{API}/pods")) == ["theirs"], "and nobody else's"
    for path in ("pods/new", "pods/theirs", "pods/none"):
        missing = await acme.get(f"{API}/namespaces/default/{path}")
        assert missing.status == 404 and missing.json["reason"] == "NotFound"
    assert (await acme.get(f"{API}/pods?labelSelector=((")).status == 400
    assert (await acme.post(f"{API}/namespaces/default/pods", {"metadata": {"name": "x"}})).status == 405
    assert (await acme.delete(f"{API}/namespaces/default/pods/web")).status == 405


async def test_a_node_s_whole_use_is_the_platform_s_and_a_tenant_sees_its_own_part(
    filled: tuple[Api, Api], admin: Api
) -> None:
    acme, other = filled
    whole = (await admin.get(f"{API}/nodes/n1")).json
    assert whole["usage"] == {"cpu": "2000000000n", "memory": f"{4 * GIB // 1024}Ki"}
    part = (await acme.get(f"{API}/nodes")).json["items"]
    assert [one["usage"] for one in part] == [{"cpu": "400000000n", "memory": f"{592 * 1024}Ki"}]
    assert (await other.get(f"{API}/nodes/n1")).json["usage"]["cpu"] == "900000000n"
    assert names(await admin.get(f"{API}/nodes?labelSelector=zone%3Da")) == ["n1"]
    assert names(await acme.get(f"{API}/nodes?labelSelector=zone%3Da")) == [], "root's labels are not the tenant's"
    assert (await admin.get(f"{API}/nodes/n2")).status == 404


async def test_over_all_tenants_each_pod_says_whose_it_is(
    filled: tuple[Api, Api], admin: Api, running: Running
) -> None:
    found = (await admin.at("*").get(f"{API}/pods")).json["items"]
    of = {item["metadata"]["name"]: item["metadata"]["annotations"]["polder.dev/tenant"] for item in found}
    assert of == {"web": "acme", "db": "acme", "theirs": "other"}
    for refused in (
        filled[0].at("*"),
        filled[0].at("other"),
        running.node("n1").at("*"),
        running.node("n1").at("acme"),
    ):
        assert (await refused.get(f"{API}/pods")).status == 403


async def test_a_node_tells_nothing_of_pods_that_are_not_its_own(
    filled: tuple[Api, Api], node: Node, admin: Api
) -> None:
    acme, _ = filled
    node.uses(await make_pod(admin, "acme", "away", node="n9"), c=(1, 1))
    assert "away" not in names(await acme.get(f"{API}/pods"))


async def test_kubectl_top_works_in_a_tenant_and_for_the_platform(
    filled: tuple[Api, Api], running: Running, kubectl_path: str, tmp_path: Any, kubectl: Kubectl
) -> None:
    leaf = await running.tenant_leaf("acme")
    tenant = Kubectl(kubectl_path, tmp_path / "t", running.kubeconfig(leaf, "acme"))
    pods = [line.split() for line in (await tenant("top", "pods")).splitlines()]
    assert pods[1:] == [["db", "100m", "512Mi"], ["web", "300m", "80Mi"]]
    assert ["web", "side", "50m", "16Mi"] in [
        x.split() for x in (await tenant("top", "pods", "--containers")).splitlines()
    ]
    shown = [line.split() for line in (await tenant("top", "nodes")).splitlines()]
    assert shown[1][:3] == ["n1", "400m", "10%"]
    assert [line.split()[:3] for line in (await kubectl("top", "nodes")).splitlines()][1] == ["n1", "2000m", "50%"]
    available = await tenant("get", "apiservices", "v1beta1.metrics.k8s.io")
    assert "True" in available and "Local" in available
    assert "web" in await tenant("get", "pods.metrics.k8s.io", "-l", "app=web")
