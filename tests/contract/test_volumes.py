"""Claims and volumes over a real server under the whole of the controllers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import ACME, GLOBEX, controlled, until

NS = "/api/v1/namespaces/default"
CLAIMS = f"{NS}/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


@pytest.fixture
async def api(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running, tenants=(ACME, GLOBEX)):
        yield admin.at("acme")


async def volume(api: Api, name: str, size: str = "1Gi", **spec: Any) -> None:
    base = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    answer = await api.post(
        VOLUMES, {"metadata": {"name": name}, "spec": {**base, "storageClassName": "manual", **spec}}
    )
    assert answer.status == 201, answer.json


async def claim(api: Api, name: str, size: str = "1Gi", **spec: Any) -> None:
    base = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    answer = await api.post(
        CLAIMS, {"metadata": {"name": name}, "spec": {**base, "storageClassName": "manual", **spec}}
    )
    assert answer.status == 201, answer.json


async def phase(api: Api, path: str, wanted: str) -> Any:
    async def check() -> Any:
        answer = await api.get(path)
        return answer.status == 200 and (answer.json.get("status") or {}).get("phase") == wanted and answer.json

    return await until(check)


async def gone(api: Api, path: str) -> None:
    async def check() -> bool:
        return (await api.get(path)).status == 404

    await until(check)


async def test_a_claim_gets_the_smallest_volume_that_fits_and_nobody_else_s(api: Api, admin: Api):
    await volume(admin.at("globex"), "theirs", "1Gi")
    for name, size in (("big", "9Gi"), ("right", "3Gi"), ("small", "1Gi")):
        await volume(api, name, size)
    await claim(api, "data", "2Gi")
    found = await phase(api, f"{CLAIMS}/data", "Bound")
    assert found["spec"]["volumeName"] == "right"
    assert found["status"]["capacity"] == {"storage": "3Gi"}
    bound = await phase(api, f"{VOLUMES}/right", "Bound")
    assert bound["spec"]["claimRef"]["uid"] == found["metadata"]["uid"]
    await phase(api, f"{VOLUMES}/big", "Available")
    await phase(admin.at("globex"), f"{VOLUMES}/theirs", "Available")


async def test_a_claim_waits_for_a_volume_and_takes_the_one_that_comes(api: Api):
    await claim(api, "data", accessModes=["ReadWriteMany"])
    await volume(api, "other")
    await phase(api, f"{VOLUMES}/other", "Available")
    assert (await api.get(f"{CLAIMS}/data")).json["status"]["phase"] == "Pending"
    await volume(api, "shared", accessModes=["ReadWriteMany"])
    assert (await phase(api, f"{CLAIMS}/data", "Bound"))["spec"]["volumeName"] == "shared"


async def test_volumes_and_claims_that_name_each_other(api: Api):
    await volume(api, "kept", claimRef={"namespace": "default", "name": "mine"})
    await volume(api, "named", "5Gi")
    await claim(api, "other")
    assert (await phase(api, f"{CLAIMS}/other", "Bound"))["spec"]["volumeName"] == "named"
    await claim(api, "mine")
    assert (await phase(api, f"{CLAIMS}/mine", "Bound"))["spec"]["volumeName"] == "kept"
    await claim(api, "third", volumeName="kept")
    await asyncio.sleep(0.3)
    assert (await api.get(f"{CLAIMS}/third")).json["status"]["phase"] == "Pending"


async def test_a_volume_is_released_and_a_lost_one_is_told(api: Api):
    await volume(api, "v")
    await claim(api, "c")
    await phase(api, f"{CLAIMS}/c", "Bound")
    await api.delete(f"{CLAIMS}/c")
    await gone(api, f"{CLAIMS}/c")
    await phase(api, f"{VOLUMES}/v", "Released")
    await claim(api, "c")
    await asyncio.sleep(0.3)
    assert (await api.get(f"{CLAIMS}/c")).json["status"]["phase"] == "Pending"  # it holds another claim's data
    await api.patch(f"{VOLUMES}/v", {"spec": {"claimRef": None}})
    await phase(api, f"{CLAIMS}/c", "Bound")
    await api.delete(f"{VOLUMES}/v")
    held = (await api.get(f"{VOLUMES}/v")).json
    assert held["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    await api.patch(f"{VOLUMES}/v", {"metadata": {"finalizers": None}})
    await gone(api, f"{VOLUMES}/v")
    await phase(api, f"{CLAIMS}/c", "Lost")


async def test_a_claim_stays_while_a_pod_uses_it(api: Api):
    await volume(api, "v")
    await claim(api, "c")
    await phase(api, f"{CLAIMS}/c", "Bound")
    container = {"name": "c", "image": "one"}
    using = [{"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]
    answer = await api.post(
        f"{NS}/pods", {"metadata": {"name": "p"}, "spec": {"containers": [container], "volumes": using}}
    )
    assert answer.status == 201, answer.json
    await api.delete(f"{CLAIMS}/c")
    await asyncio.sleep(0.3)
    assert (await api.get(f"{CLAIMS}/c")).json["metadata"]["deletionTimestamp"]
    await api.delete(f"{NS}/pods/p?gracePeriodSeconds=0")
    await gone(api, f"{CLAIMS}/c")


async def test_a_pod_s_own_claim_comes_and_goes_with_it(api: Api):
    shown = (await api.get(f"{CLASSES}/local")).json  # the platform's, which every tenant sees
    assert (shown["provisioner"], shown["volumeBindingMode"]) == ("local.polder.dev", "WaitForFirstConsumer")
    asked = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    template = {"metadata": {"labels": {"a": "b"}}, "spec": asked}
    volumes = [{"name": "d", "ephemeral": {"volumeClaimTemplate": template}}]
    container = {"name": "c", "image": "one"}
    body = {"metadata": {"name": "p"}, "spec": {"containers": [container], "volumes": volumes}}
    pod = (await api.post(f"{NS}/pods", body)).json
    made = await phase(api, f"{CLAIMS}/p-d", "Pending")
    assert made["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert made["metadata"]["labels"] == {"a": "b"}
    node = {"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "node-1"}}}
    await api.patch(f"{CLAIMS}/p-d", node)
    bound = await phase(api, f"{CLAIMS}/p-d", "Bound")
    held = (await api.get(f"{VOLUMES}/{bound['spec']['volumeName']}")).json["spec"]
    assert held["csi"] == {"driver": "local.polder.dev", "volumeHandle": f"pvc-{bound['metadata']['uid']}"}
    term = held["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0]
    assert (term["key"], term["values"]) == ("kubernetes.io/hostname", ["node-1"])
    await api.delete(f"{NS}/pods/p?gracePeriodSeconds=0")
    await gone(api, f"{CLAIMS}/p-d")
    await gone(api, f"{VOLUMES}/{bound['spec']['volumeName']}")  # its node is no more, and with it the directory


async def test_what_nobody_provides_says_so(api: Api):
    for name, provisioner in (("abroad", "csi.example.com"), ("none", "kubernetes.io/no-provisioner")):
        await api.post(CLASSES, {"metadata": {"name": name}, "provisioner": provisioner})
        await claim(api, name, storageClassName=name)
    await claim(api, "unknown", storageClassName="unheard-of")

    async def told() -> Any:
        events = (await api.get(f"{NS}/events")).json["items"]
        return {
            e["involvedObject"]["name"]: e["reason"] for e in events if e["involvedObject"]["kind"].endswith("Claim")
        }

    wanted = {"abroad": "ExternalProvisioning", "none": "ProvisioningFailed", "unknown": "ProvisioningFailed"}

    async def all_told() -> bool:
        return await told() == wanted

    await until(all_told)
    notes = (await api.get(f"{CLAIMS}/abroad")).json["metadata"]["annotations"]
    assert notes["volume.kubernetes.io/storage-provisioner"] == "csi.example.com"
