"""Claims, volumes and news of changes between a node and a real API server: what it may read, hears and is asked to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from polder.api.errors import ApiError
from polder.apiserver.authn import NODES
from polder.base.clock import SystemClock
from polder.base.ids import NodeName, TenantName
from polder.base.ref import Ref
from polder.client.client import Client, ClientSettings
from polder.node.changes import Changes
from polder.node.pods.cluster import ApiCluster
from polder.node.stream import ServerStreams
from polder.node.volumes.storage import Storage
from tests.contract.conftest import Api, Running

ACME = TenantName("acme")
HERE = "/tenants/acme/api/v1/namespaces/default"
WIDE = "/tenants/acme/api/v1"


@dataclass
class Agent:
    """The parts of an agent that talk about storage."""

    cluster: ApiCluster
    streams: ServerStreams
    storage: Storage
    told: list[Any] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, what: Iterable[tuple[str, Ref]] | None) -> None:
        self.told.append(None if what is None else sorted(what))
        self.news.set()

    async def until(self, wanted: Any) -> None:
        async with asyncio.timeout(10):
            while wanted not in self.told:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def agent(running: Running, admin: Api, tmp_path: Path) -> AsyncIterator[Agent]:
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    certificate, key = tmp_path / "n1.crt", tmp_path / "n1.key"
    running.leaf("system:node:n1", NODES).write(certificate, key)
    where = ClientSettings(f"https://127.0.0.1:{running.port}", running.pki.serving_ca, certificate, key)
    client, storage = Client(where), Storage(tmp_path / "storage", lambda name: f"u-{name}")
    streams = ServerStreams(where, {"discard": storage.serve})
    made = Agent(ApiCluster(client, NodeName("n1"), SystemClock()), streams, storage)
    tasks = [asyncio.create_task(one) for one in (streams.run(), Changes(streams.open, made.tell).run(), storage.run())]
    await made.until(None)
    yield made
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def pod(name: str, *volumes: Any, node: str = "n1") -> Any:
    spec = {"nodeName": node, "containers": [{"name": "a", "image": "i"}], "volumes": list(volumes)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def claim(name: str) -> Any:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Mi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def volume(name: str, kept_for: str) -> Any:
    spec = {
        "capacity": {"storage": "1Mi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "local.polder.dev", "volumeHandle": name},
        "claimRef": {"namespace": "default", "name": kept_for},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


async def test_a_node_reads_the_claims_of_its_pods_and_their_volumes(agent: Agent, admin: Api) -> None:
    for name in ("data", "other", "p-own"):
        assert (await admin.post(f"{HERE}/persistentvolumeclaims", claim(name))).status == 201
        assert (await admin.post(f"{WIDE}/persistentvolumes", volume(f"v-{name}", name))).status == 201
    template = {"spec": claim("x")["spec"]}
    mine = pod(
        "p",
        {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "own", "ephemeral": {"volumeClaimTemplate": template}},
    )
    assert (await admin.post(f"{HERE}/pods", mine)).status == 201
    for name in ("data", "p-own"):
        found = await agent.cluster.claim(Ref(ACME, "default", name))
        held = await agent.cluster.volume(ACME, f"v-{name}")
        assert found is not None and held is not None
        assert held.spec.csi is not None and held.spec.csi.volume_handle == f"v-{name}"
    for ask in (agent.cluster.claim(Ref(ACME, "default", "other")), agent.cluster.volume(ACME, "v-other")):
        with pytest.raises(ApiError) as refused:
            await ask
        assert refused.value.is_forbidden
    with pytest.raises(ApiError) as refused:
        await agent.cluster.volume(ACME, "none")
    assert refused.value.is_forbidden, "whether there is another is not told"


async def test_a_node_hears_of_changes_of_what_its_pods_show(agent: Agent, admin: Api) -> None:
    shown = pod("p", {"name": "m", "configMap": {"name": "mine"}}, {"name": "s", "secret": {"secretName": "mine"}})
    assert (await admin.post(f"{HERE}/pods", shown)).status == 201
    for kind, plural in (("ConfigMap", "configmaps"), ("Secret", "secrets")):
        for name in ("other", "mine"):
            body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
            assert (await admin.post(f"{HERE}/{plural}", body)).status == 201
        await agent.until([(plural, Ref(ACME, "default", "mine"))])
    assert "other" not in repr(agent.told)


async def test_a_node_gives_up_what_a_volume_held_when_the_platform_says_so(
    agent: Agent, admin: Api, running: Running
) -> None:
    path = "/tenants/acme/polder/v1/discard?node=n1&handle=pvc-1"
    (agent.storage.directory(ACME, "pvc-1") / "f").touch()
    kept = agent.storage.directory(ACME, "pvc-2")
    assert (await admin.post(path, {})).status == 404, "for Polder's own components"
    tenant = await running.tenant_admin("acme")
    assert (await tenant.post("/polder/v1/discard?node=n1&handle=pvc-1", {})).status in (403, 404)
    component = running.component()
    assert (await component.post(path, {})).status == 200
    assert (await component.post(path, {})).status == 200, "once more is no error"
    assert kept.is_dir() and not (kept.parent / "pvc-1").exists()
    assert (await component.post(path.replace("n1", "n2"), {})).status == 503
    assert (await component.post(path.replace("pvc-1", "..%2Fx"), {})).status == 503
    assert (await component.post("/tenants/acme/polder/v1/discard", {})).status == 400
