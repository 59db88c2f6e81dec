"""The scheduler on a real server: room made by preemption, gates, namespaces that are selected, unlucky tenants' turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import Namespace, Node, Pod
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta
from polder.api.storagefacts import Claim, Volume
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from tests.contract.controlled import ACME, GLOBEX, CuttableClient, add_node, add_tenant, client_of, find, until
from tests.contract.test_scheduler import events_of, node_of, running_scheduler

Raw = dict[str, Any]


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    yield found
    await found.close()


async def make(client: Client, name: str, tenant: TenantName = ACME, cpu: str = "1", **more: Any) -> Ref:
    """A pod that asks for so much; ``more``: labels, namespace, fields of the spec."""
    namespace = more.pop("namespace", "default")
    meta = {"name": name, "labels": more.pop("labels", {})}
    container = {"name": "main", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    body = {"metadata": meta, "spec": {"terminationGracePeriodSeconds": 5, "containers": [container], **more}}
    await client.raw("POST", f"/tenants/{tenant}/api/v1/namespaces/{namespace}/pods", json.dumps(body).encode())
    return Ref(tenant, namespace, name)


async def important(client: Client, tenant: TenantName, name: str, value: int, policy: str = "") -> None:
    body: Raw = {"metadata": {"name": name}, "value": value}
    if policy:
        body["preemptionPolicy"] = policy
    await client.raw("POST", f"/tenants/{tenant}/apis/scheduling.k8s.io/v1/priorityclasses", json.dumps(body).encode())


async def raw_of(client: Client, ref: Ref) -> Raw:
    path = f"/tenants/{ref.tenant}/api/v1/namespaces/{ref.namespace}/pods/{ref.name}"
    found: Raw = json.loads(await client.raw("GET", path))
    return found


def condition(pod: Raw, kind: str) -> Raw:
    return next((c for c in pod["status"].get("conditions") or [] if c["type"] == kind), {})


async def refusal(client: Client, ref: Ref) -> str:
    return str(condition(await raw_of(client, ref), "PodScheduled").get("message", ""))


async def test_room_is_made_among_the_tenant_s_own_pods(client: CuttableClient) -> None:
    await add_node(client, "one", cpu="3")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
        await important(client, tenant, "high", 1000)
    async with running_scheduler(client, parallel=8):
        theirs = await make(client, "theirs", GLOBEX)
        kept, goes = await make(client, "kept"), await make(client, "goes")
        for ref in (theirs, kept, goes):
            await until(lambda ref=ref: node_of(client, ref))
        urgent = await make(client, "urgent", priorityClassName="high")

        async def nominated() -> Any:
            return (await raw_of(client, urgent))["status"].get("nominatedNodeName")

        assert await until(nominated) == "one"

        async def left() -> Raw:
            """The pod that has to go; there is no agent that ends it."""
            found = [await raw_of(client, ref) for ref in (theirs, kept, goes)]
            going = [p for p in found if p["metadata"].get("deletionTimestamp")]
            assert len(going) <= 1
            return going[0] if going else {}

        victim = await until(left)
        assert victim["metadata"]["name"] in ("kept", "goes"), "no other tenant's pod"
        why = condition(victim, "DisruptionTarget")
        assert (why["status"], why["reason"], why["observedGeneration"]) == ("True", "PreemptionByScheduler", 1)
        assert victim["metadata"]["deletionGracePeriodSeconds"] == 5
        other = await make(client, "other", GLOBEX)
        assert "Insufficient cpu" in await until(lambda: refusal(client, other))
        assert condition(await raw_of(client, other), "PodScheduled")["observedGeneration"] == 1
        assert await node_of(client, urgent) == ""
        await client.delete(Pod, Ref(ACME, "default", victim["metadata"]["name"]), grace=0)
        assert await until(lambda: node_of(client, urgent)) == "one"
        await asyncio.sleep(1.2)
        assert await node_of(client, other) == "", "the room was acme's"
    texts = [e.message for e in await events_of(client, ACME)]
    uid = (await raw_of(client, urgent))["metadata"]["uid"]
    assert f"Preempted by pod {uid} on node one" in texts
    assert await events_of(client, GLOBEX) and not any("urgent" in e.message for e in await events_of(client, GLOBEX))


async def test_who_preempts_never_waits_and_says_so(client: CuttableClient) -> None:
    await add_node(client, "one", cpu="1")
    await add_tenant(client, ACME)
    await important(client, ACME, "gentle", 1000, "Never")
    async with running_scheduler(client, parallel=8):
        low = await make(client, "low")
        await until(lambda: node_of(client, low))
        gentle = await make(client, "gentle", priorityClassName="gentle")
        assert await until(lambda: refusal(client, gentle)) == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
        )
        assert "deletionTimestamp" not in (await raw_of(client, low))["metadata"]
        await client.delete(Pod, low, grace=0)
        await until(lambda: node_of(client, gentle))


async def test_a_gated_pod_waits_for_its_gates(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    async with running_scheduler(client, parallel=8):
        gated = await make(client, "gated", schedulingGates=[{"name": "a"}, {"name": "b"}])
        said = condition(await raw_of(client, gated), "PodScheduled")
        assert (said["status"], said["reason"]) == ("False", "SchedulingGated")
        plain = await make(client, "plain")
        await until(lambda: node_of(client, plain))
        assert await node_of(client, gated) == ""
        body = {"metadata": {"name": "gated"}, "target": {"kind": "Node", "name": "one"}}
        path = "/tenants/acme/api/v1/namespaces/default/pods/gated/binding"
        with pytest.raises(ApiError, match=r"non-empty \.spec\.schedulingGates"):
            await client.raw("POST", path, json.dumps(body).encode())
        for left in ([{"name": "b"}], []):
            patch = json.dumps({"spec": {"schedulingGates": left}}).encode()
            path = "/tenants/acme/api/v1/namespaces/default/pods/gated"
            await client.raw("PATCH", path, patch, content_type="application/merge-patch+json")
        await until(lambda: node_of(client, gated))


async def test_namespaces_are_followed_when_a_pod_selects_some(client: CuttableClient) -> None:
    await add_node(client, "one")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
        await client.create(tenant, Namespace(metadata=ObjectMeta(name="data", labels={"team": str(tenant)})))
        await make(client, "db", tenant, namespace="data", labels={"app": "db"})

    def wish(team: str) -> Raw:
        term = {
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app": "db"}},
            "namespaceSelector": {"matchLabels": {"team": team}},
        }
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}

    path = "/api/v1/nodes/one"
    patch = json.dumps({"metadata": {"labels": {"kubernetes.io/hostname": "one"}}}).encode()
    await client.raw("PATCH", f"/tenants/root{path}", patch, content_type="application/merge-patch+json")
    async with running_scheduler(client, parallel=8):
        near, lost = (
            await make(client, "near", affinity=wish("acme")),
            await make(client, "lost", affinity=wish("globex")),
        )
        await until(lambda: node_of(client, near))
        assert "didn't match pod affinity rules" in await until(lambda: refusal(client, lost))
        await client.patch(Namespace, Ref(ACME, "", "data"), {"metadata": {"labels": {"team": "globex"}}})
        await until(lambda: node_of(client, lost))


async def test_a_crowd_that_fits_nowhere_holds_up_nobody(client: CuttableClient) -> None:
    await add_node(client, "one")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    for number in range(60):
        await make(client, f"big-{number}", cpu="100")
    order: list[str] = []

    async def note(_method: str, path: str) -> None:
        if "/pods/" in path:
            order.append(path.split("/")[2])

    client.before = note
    async with running_scheduler(client, parallel=4):
        await until(lambda: asyncio.sleep(0, result=len(order) > 5))
        single = await make(client, "single", GLOBEX)
        begun = len(order)
        await until(lambda: node_of(client, single))
        assert order.index("globex") - begun <= 6, order
        await make(client, "next", GLOBEX)
        await until(lambda: node_of(client, Ref(GLOBEX, "default", "next")))
    client.before = None


async def test_a_pod_that_goes_while_room_is_made_for_it_is_no_trouble(client: CuttableClient) -> None:
    await add_node(client, "one", cpu="1")
    await add_tenant(client, ACME)
    await important(client, ACME, "high", 1000)
    async with running_scheduler(client, parallel=8):
        low = await make(client, "low")
        await until(lambda: node_of(client, low))
        urgent = await make(client, "urgent", priorityClassName="high")

        async def going() -> bool:
            return bool((await raw_of(client, low))["metadata"].get("deletionTimestamp"))

        await until(going)
        await client.delete(Pod, urgent, grace=0)
        await client.delete(Pod, low, grace=0)
        assert await find(client, Pod, urgent) is None
        after = await make(client, "after")
        await until(lambda: node_of(client, after))


async def test_the_platform_says_where_its_runtime_classes_run(client: CuttableClient) -> None:
    """By labels and taints that the tenant does not see; its own class says so in the pod."""
    for name in ("plain", "heavy"):
        await add_node(client, name)
    node = {"metadata": {"labels": {"runtime": "heavy"}},
            "spec": {"taints": [{"key": "heavy-only", "effect": "NoSchedule"}]}}  # fmt: skip
    await client.patch(Node, Ref(ROOT, "", "heavy"), node)
    await add_tenant(client, ACME)
    scheduling = {"nodeSelector": {"runtime": "heavy"}, "tolerations": [{"key": "heavy-only", "operator": "Exists"}]}
    await runtime_class(client, ROOT, {"metadata": {"name": "vm"}, "handler": "vm", "scheduling": scheduling})
    own = {"metadata": {"name": "own"}, "handler": "vm", "scheduling": {"nodeSelector": {"mine": "yes"}}}
    await runtime_class(client, ACME, own)
    async with running_scheduler(client, parallel=8):
        for number in range(3):
            heavy = await make(client, f"heavy-{number}", runtimeClassName="vm")
            assert await until(lambda ref=heavy: node_of(client, ref)) == "heavy"
            plain = await make(client, f"plain-{number}")
            assert await until(lambda ref=plain: node_of(client, ref)) == "plain"
        seen = (await raw_of(client, heavy))["spec"]
        assert "nodeSelector" not in seen and not any(t.get("key") == "heavy-only" for t in seen["tolerations"])
        lost = await make(client, "lost", runtimeClassName="own")
        assert (await raw_of(client, lost))["spec"]["nodeSelector"] == {"mine": "yes"}
        await until(lambda: refusal(client, lost))
        await client.patch(Node, Ref(ACME, "", "plain"), {"metadata": {"labels": {"mine": "yes"}}})
        assert await until(lambda: node_of(client, lost)) == "plain"


async def runtime_class(client: Client, tenant: TenantName, body: Raw) -> None:
    path = f"/tenants/{tenant}/apis/node.k8s.io/v1/runtimeclasses"
    await client.raw("POST", path, json.dumps(body).encode())


async def test_a_claim_that_waits_for_its_consumer_gets_a_node_and_then_the_pod_does(client: CuttableClient) -> None:
    for name in ("one", "two"):
        await add_node(client, name)
        labels = {"metadata": {"labels": {"kubernetes.io/hostname": name}}}
        await client.patch(Node, Ref(ROOT, "", name), labels)
    await add_tenant(client, ACME)
    for name, provisioner in (("made", "x.dev/p"), ("given", "kubernetes.io/no-provisioner")):
        storage = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
        await client.raw("POST", "/tenants/acme/apis/storage.k8s.io/v1/storageclasses", json.dumps(storage).encode())
        claim = {"metadata": {"name": name}, "spec": {"storageClassName": name, "accessModes": ["ReadWriteOnce"],
                                                      "resources": {"requests": {"storage": "1Gi"}}}}  # fmt: skip
        path = "/tenants/acme/api/v1/namespaces/default/persistentvolumeclaims"
        await client.raw("POST", path, json.dumps(claim).encode())
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["two"]}]}
    volume = {"metadata": {"name": "pv"}, "spec": {
        "storageClassName": "given", "capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
        "local": {"path": "/x"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}}  # fmt: skip
    await client.raw("POST", "/tenants/acme/api/v1/persistentvolumes", json.dumps(volume).encode())
    available = {"status": {"phase": "Available"}}
    await client.patch(Volume, Ref(ACME, "", "pv"), available, subresource="status")

    def user(name: str) -> Any:
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]
        return make(client, f"uses-{name}", volumes=volumes)

    async def claim_of(name: str) -> Claim:
        return await client.get(Claim, Ref(ACME, "default", name))

    async with running_scheduler(client, parallel=8):
        given, made = await user("given"), await user("made")

        async def kept() -> Any:
            found = (await client.get(Volume, Ref(ACME, "", "pv"))).spec.claim_ref
            return found if found and found.name == "given" else None

        assert (await until(kept)).uid == (await claim_of("given")).metadata.uid

        async def chosen() -> Any:
            return ((await claim_of("made")).metadata.annotations or {}).get("volume.kubernetes.io/selected-node")

        node = await until(chosen)
        assert await node_of(client, given) == "" == await node_of(client, made), "they wait for their claims"
        for name, held in (("given", "pv"), ("made", "later")):
            bound = {
                "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                "spec": {"volumeName": held},
            }
            await client.patch(Claim, Ref(ACME, "default", name), bound)
        assert await until(lambda: node_of(client, given)) == "two"
        assert await until(lambda: node_of(client, made)) == node
