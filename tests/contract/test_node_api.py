"""What an agent asks of the API for its pods, on a real API server with a node's credential."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from polder.api.core import Node, NodeStatus, Pod, PodStatus
from polder.api.discovery import Lease
from polder.api.errors import ApiError
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN
from polder.base.clock import SystemClock
from polder.base.errors import PermanentError
from polder.base.ids import ROOT, NodeName, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.node import status as status_module
from polder.node.machine import Capacity
from polder.node.pods.cluster import ApiCluster
from polder.node.pods.status import Facts, build_status
from polder.node.status import LEASE_NAMESPACE, NodeReporter, NodeSettings, Told
from polder.node.supervisor import Supervisor, SupervisorSettings
from polder.system.containerd import ContainerdPaths
from polder.system.cri import CriClient
from tests.unit.node.podkit import container, view

ACME = TenantName("acme")
PODS = "/tenants/acme/api/v1/namespaces/default/pods"


@dataclass
class Place:
    admin: Client
    node: Client
    cluster: ApiCluster

    async def pod(self, name: str, node: str = "n1") -> Pod:
        volumes = [{"name": "m", "configMap": {"name": "mine"}}]
        spec = {"nodeName": node, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**spec, "volumes": volumes}}
        await self.admin.raw("POST", PODS, json.dumps(body).encode())
        return await self.admin.get(Pod, Ref(ACME, "default", name))


@pytest.fixture
async def place(typed: Callable[..., Client]) -> Place:
    admin, node = typed("admin", PLATFORM_ADMINS, ROOT_URN), typed("system:node:n1", NODES)
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    await admin.raw("POST", "/apis/polder.dev/v1alpha1/tenants", json.dumps(tenant).encode())
    return Place(admin, node, ApiCluster(node, NodeName("n1"), SystemClock()))


async def test_a_status_is_written_whole(place: Place) -> None:
    pod = await place.pod("p")
    now = SystemClock().now()
    await place.cluster.write_status(pod, build_status(pod, Facts(view(container("a", code=0)), now, "192.0.2.1")))
    shown = json.loads(await place.admin.raw("GET", f"{PODS}/p"))["status"]
    assert shown["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    assert shown["containerStatuses"][1]["restartCount"] == 0
    assert shown["podIP"] == "10.0.0.5"
    full = build_status(pod, Facts(view(container("a"), container("b")), now, "192.0.2.1"))
    await place.cluster.write_status(pod, full)
    after = await place.admin.get(Pod, Ref(ACME, "default", "p"))
    assert after.status == full
    await place.cluster.write_status(after, PodStatus(phase="Failed", reason="Evicted", message="why"))
    gone = (await place.admin.get(Pod, Ref(ACME, "default", "p"))).status
    assert (gone.reason, gone.pod_ip, gone.container_statuses) == ("Evicted", "", None)


async def test_what_others_say_of_a_pod_stays_as_they_said_it_last(place: Place) -> None:
    pod = await place.pod("p")
    now, where = SystemClock().now(), Ref(ACME, "default", "p")
    gate = {"type": "example.com/gate", "status": "True"}
    await place.admin.patch(Pod, where, {"status": {"conditions": [gate]}}, how="strategic", subresource="status")
    stale = build_status(pod, Facts(view(container("a"), container("b", code=1)), now, "192.0.2.1"))
    await place.cluster.write_status(pod, stale)
    await place.cluster.write_status(
        pod, build_status(pod, Facts(view(container("a"), container("b")), now, "192.0.2.1"))
    )
    after = {c.type: c for c in (await place.admin.get(Pod, where)).status.conditions or []}
    assert after["example.com/gate"].status == "True"
    assert (after["Ready"].status, after["Ready"].reason, after["Ready"].message) == ("True", "", "")
    assert len((await place.admin.get(Pod, where)).status.pod_ips or []) == 1


async def test_another_pod_of_the_name_is_left_alone(place: Place) -> None:
    first = await place.pod("p")
    await place.admin.delete(Pod, Ref(ACME, "default", "p"), grace=0)
    second = await place.pod("p")
    with pytest.raises(ApiError) as error:
        await place.cluster.write_status(first, PodStatus(phase="Failed"))
    assert error.value.is_conflict
    await place.cluster.forget(first)
    ref = Ref(ACME, "default", "p")
    assert await place.cluster.pod_exists(ref, second.metadata.uid)
    assert not await place.cluster.pod_exists(ref, first.metadata.uid)
    await place.cluster.forget(second)
    await place.cluster.forget(second)
    assert not await place.cluster.pod_exists(ref, second.metadata.uid)
    assert not await place.cluster.pod_exists(Ref(TenantName("none"), "default", "p"), "u")


async def test_a_pods_objects(place: Place) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"}, "data": {"k": "v"}}
    await place.pod("p")
    assert await place.cluster.config_map(Ref(ACME, "default", "mine")) is None
    await place.admin.raw("POST", "/tenants/acme/api/v1/namespaces/default/configmaps", json.dumps(body).encode())
    found = await place.cluster.config_map(Ref(ACME, "default", "mine"))
    assert found is not None and found.data == {"k": "v"}
    service = await place.cluster.kubernetes_service(ACME)
    assert service is not None and service.spec.cluster_ip == "10.96.0.1"
    with pytest.raises(ApiError):
        await place.cluster.secret(Ref(ACME, "default", "not-the-pods"))


async def test_a_token_is_the_pods(place: Place) -> None:
    pod = await place.pod("p")
    claims = (await place.cluster.token(pod, "", 3600)).split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert said["kubernetes.io"]["pod"]["uid"] == pod.metadata.uid
    assert said["sub"] == "system:serviceaccount:default:default"


async def test_a_node_presents_itself_and_says_that_containerd_is_down(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ContainerdPaths(tmp_path / "c", tmp_path, tmp_path)
    settings = NodeSettings(NodeName("n1"), "192.0.2.1", "v0", 110, tmp_path, Capacity(1500, 1 << 30, 1 << 33))
    cri = CriClient(paths.socket)
    supervisor = Supervisor(SupervisorSettings(paths))
    task = asyncio.create_task(NodeReporter(settings, place.node, supervisor, cri, Told(SystemClock())).run())
    ref = Ref(ROOT, "", "n1")
    try:
        async with asyncio.timeout(10):
            while not (await _status(place, ref)).conditions:  # noqa: ASYNC110  the server is what changes
                await asyncio.sleep(0.05)
        found = await place.admin.get(Node, ref)
        assert (found.metadata.labels or {})["kubernetes.io/hostname"] == "n1"
        assert (found.status.capacity or {})["cpu"] == "1500m"
        ready = next(c for c in found.status.conditions or [] if c.type == "Ready")
        assert (ready.status, ready.reason) == ("False", "KubeletNotReady")
        assert "containerd has not been started yet" in ready.message
        lease = await place.admin.get(Lease, Ref(ROOT, LEASE_NAMESPACE, "n1"))
        assert lease.spec.holder_identity == "n1"
        monkeypatch.setattr(status_module, "COMPARE_EVERY", 0.2)
        unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        await place.admin.patch(Node, ref, {"status": {"conditions": [unknown]}}, how="strategic", subresource="status")
        async with asyncio.timeout(10):
            while _ready(await _status(place, ref)) != "False":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await place.admin.delete(Node, ref)
        async with asyncio.timeout(10):
            while _ready(await _status(place, ref)) != "False":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cri.close()


def _ready(status: NodeStatus) -> str:
    return next((c.status for c in status.conditions or [] if c.type == "Ready"), "")


async def _status(place: Place, ref: Ref) -> NodeStatus:
    try:
        return (await place.admin.get(Node, ref)).status
    except ApiError as error:
        assert error.is_not_found
        return Node().status


async def test_a_tenants_class_names_only_handlers_that_the_platforms_name(place: Place) -> None:
    """Which handlers keep tenants apart well enough is the platform's to say."""
    await place.pod("p")

    async def classed(tenant: str, name: str, handler: str) -> None:
        body = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler}
        path = f"/tenants/{tenant}/apis/node.k8s.io/v1/runtimeclasses"
        await place.admin.raw("POST", path, json.dumps(body).encode())

    for tenant, name, handler in (("acme", "own", "crun"), ("acme", "plain", "runc"), (ROOT, "ours", "runsc")):
        await classed(tenant, name, handler)
    assert await place.cluster.runtime_handler(ACME, "plain") == "runc", "the default is everybody's"
    assert await place.cluster.runtime_handler(ACME, "ours") == "runsc", "the platform's class is every tenant's"
    assert await place.cluster.runtime_handler(ACME, "none") is None
    with pytest.raises(
        PermanentError, match='"own": handler: is none that the platform\'s RuntimeClasses name: "crun"'
    ):
        await place.cluster.runtime_handler(ACME, "own")
    await classed(ROOT, "fast", "crun")
    assert await place.cluster.runtime_handler(ACME, "own") == "crun"
    assert await place.cluster.runtime_handler(ROOT, "fast") == "crun"
