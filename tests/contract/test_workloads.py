"""ReplicaSets, ReplicationControllers and Deployments under the whole of the controllers; a stand-in makes pods ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.controllers.run import run_controllers
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, SETTINGS, add_node, add_tenant, client_of, controlled, until

NS = "/api/v1/namespaces/default"
RCS = f"{NS}/replicationcontrollers"
APPS = "/apis/apps/v1/namespaces/default"


@pytest.fixture
async def api(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running):
        yield admin.at("acme")


@pytest.fixture
async def nodes(api: Api) -> AsyncIterator[None]:
    """Makes every pod ready soon, as a node would."""

    async def work() -> None:
        while True:
            for pod in await pods(api):
                if not (pod["status"].get("conditions")):
                    await ready(api, pod["metadata"]["name"])
            await asyncio.sleep(0.02)

    task = asyncio.create_task(work())
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def pods(api: Api, selector: str = "") -> list[Any]:
    return (await api.get(f"{NS}/pods?labelSelector={selector}")).json["items"]  # type: ignore[no-any-return]


async def ready(api: Api, name: str, status: str = "True") -> None:
    said = {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}
    await api.patch(f"{NS}/pods/{name}/status", {"status": said})


def template(image: str = "one", **labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "shop", **labels}}, "spec": {"containers": [{"name": "c", "image": image}]}}


def controller(name: str, replicas: int) -> dict[str, Any]:
    spec = {"replicas": replicas, "selector": {"app": "shop"}, "template": template()}
    return {"metadata": {"name": name}, "spec": spec}


def workload(name: str, replicas: int, image: str = "one", **spec: Any) -> dict[str, Any]:
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": "shop"}}, "template": template(image), **spec}
    return {"metadata": {"name": name}, "spec": wanted}


async def status_is(api: Api, path: str, **wanted: Any) -> Any:
    async def check() -> Any:
        status = (await api.get(path)).json.get("status") or {}
        return all((status.get(name) or 0) == value for name, value in wanted.items()) and status

    return await until(check)


async def test_a_controller_keeps_its_number_of_pods(api: Api, nodes: None) -> None:
    assert (await api.post(RCS, controller("rc", 3))).status == 201
    await status_is(api, f"{RCS}/rc", replicas=3, readyReplicas=3, availableReplicas=3, fullyLabeledReplicas=3)
    first = (await pods(api))[0]
    assert first["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController"
    await api.delete(f"{NS}/pods/{first['metadata']['name']}")
    await status_is(api, f"{RCS}/rc", replicas=3, readyReplicas=3)
    for size in (7, 2):
        scale = {"spec": {"replicas": size}}
        assert (await api.patch(f"{RCS}/rc/scale", scale)).status == 200
        await status_is(api, f"{RCS}/rc", replicas=size, readyReplicas=size)
    assert len(await pods(api)) == 2


async def test_pods_are_adopted_and_released(api: Api) -> None:
    await api.post(f"{NS}/pods", {"metadata": {"name": "orphan", "labels": {"app": "shop"}}, **template()} | {
        "metadata": {"name": "orphan", "labels": {"app": "shop"}}})  # fmt: skip
    set_ = workload("rs", 1)
    assert (await api.post(f"{APPS}/replicasets", set_)).status == 201

    async def adopted() -> Any:
        return (await api.get(f"{NS}/pods/orphan")).json["metadata"].get("ownerReferences")

    assert (await until(adopted))[0]["name"] == "rs"
    assert len(await pods(api)) == 1
    await api.patch(f"{NS}/pods/orphan", {"metadata": {"labels": {"app": "else"}}})

    async def released() -> Any:
        orphan = (await api.get(f"{NS}/pods/orphan")).json
        return not orphan["metadata"].get("ownerReferences") and len(await pods(api, "app=shop")) == 1

    await until(released)


async def test_a_quota_s_refusal_shows_and_goes(api: Api) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "2"}}}
    assert (await api.post(f"{NS}/resourcequotas", quota)).status == 201
    assert (await api.post(RCS, controller("rc", 3))).status == 201

    async def failed() -> Any:
        status = (await api.get(f"{RCS}/rc")).json.get("status") or {}
        return [c for c in status.get("conditions") or () if c["type"] == "ReplicaFailure"]

    (condition,) = await until(failed)
    assert condition["reason"] == "FailedCreate" and "exceeded quota: q" in condition["message"]
    await api.patch(f"{RCS}/rc", {"spec": {"replicas": 2}})

    async def fine() -> Any:
        return not await failed()

    await until(fine)
    assert len(await pods(api)) == 2


async def test_owners_go_in_the_foreground_background_and_alone(api: Api, nodes: None) -> None:
    for name, policy, left in (("a", "Background", 0), ("b", "Foreground", 0), ("c", "Orphan", 3)):
        body = controller(name, 3)
        body["spec"]["selector"] = {"of": name}
        body["spec"]["template"] = template(of=name)
        assert (await api.post(RCS, body)).status == 201
        await status_is(api, f"{RCS}/{name}", readyReplicas=3)
        await api.delete(f"{RCS}/{name}", {"propagationPolicy": policy})

        async def gone(name: str = name, left: int = left) -> Any:
            found = (await api.get(f"{RCS}/{name}")).status
            return found == 404 and len(await pods(api, f"of={name}")) == left

        await until(gone)
    assert all(not pod["metadata"].get("ownerReferences") for pod in await pods(api, "of=c"))


async def test_a_deployment_rolls_a_new_template_out(api: Api, nodes: None) -> None:
    assert (await api.post(f"{APPS}/deployments", workload("web", 4))).status == 201
    done = await status_is(api, f"{APPS}/deployments/web", updatedReplicas=4, availableReplicas=4, observedGeneration=1)
    assert {c["type"]: c["reason"] for c in done["conditions"]} == {
        "Available": "MinimumReplicasAvailable", "Progressing": "NewReplicaSetAvailable",
    }  # fmt: skip
    least = [4]

    async def watch() -> None:
        while True:
            up = [
                p
                for p in await pods(api)
                if p["status"].get("conditions") and not p["metadata"].get("deletionTimestamp")
            ]
            least[0] = min(least[0], len(up))
            assert len(await pods(api)) <= 5, "one at most comes on top: 25 % of 4"
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    assert (await api.patch(f"{APPS}/deployments/web", {"spec": {"template": template("two")}})).status == 200
    await status_is(
        api, f"{APPS}/deployments/web", updatedReplicas=4, availableReplicas=4, replicas=4, observedGeneration=2
    )
    watcher.cancel()
    assert isinstance((await asyncio.gather(watcher, return_exceptions=True))[0], asyncio.CancelledError)
    assert least[0] >= 3
    sets = {s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]: s for s in
            (await api.get(f"{APPS}/replicasets")).json["items"]}  # fmt: skip
    assert {r: s["spec"]["replicas"] for r, s in sets.items()} == {"1": 0, "2": 4}
    assert {p["spec"]["containers"][0]["image"] for p in await pods(api)} == {"two"}
    await api.patch(f"{APPS}/deployments/web", {"spec": {"template": template("one")}})

    async def back() -> Any:
        found = (await api.get(f"{APPS}/replicasets/{sets['1']['metadata']['name']}")).json
        return found["spec"]["replicas"] == 4 and found["metadata"]["annotations"]

    annotations = await until(back)

    async def told() -> bool:
        events = (await api.get(f"{NS}/events")).json["items"]
        reasons = {(e["involvedObject"]["kind"], e["reason"]) for e in events}
        return {("Deployment", "ScalingReplicaSet"), ("ReplicaSet", "SuccessfulCreate")} <= reasons

    await until(told)
    assert annotations["deployment.kubernetes.io/revision"] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"
    await status_is(api, f"{APPS}/deployments/web", updatedReplicas=4, availableReplicas=4)
    await api.patch(f"{APPS}/deployments/web/scale", {"spec": {"replicas": 1}})
    await status_is(api, f"{APPS}/deployments/web", replicas=1, availableReplicas=1)
    await api.delete(f"{APPS}/deployments/web", {"propagationPolicy": "Foreground"})

    async def gone() -> Any:
        return not await pods(api) and (await api.get(f"{APPS}/deployments/web")).status == 404

    await until(gone)


async def test_pods_that_are_asked_to_end_are_counted(running: Any, api: Api, nodes: None) -> None:
    client = client_of(running)
    await add_node(client, "n1")
    await client.close()
    held = template()
    held["metadata"]["finalizers"] = ["a.dev/held"]
    assert (await api.post(f"{APPS}/deployments", workload("web", 2, template=held))).status == 201
    await status_is(api, f"{APPS}/deployments/web", availableReplicas=2)
    for pod in await pods(api):
        binding = {"metadata": {"name": pod["metadata"]["name"]}, "target": {"kind": "Node", "name": "n1"}}
        assert (await api.post(f"{NS}/pods/{pod['metadata']['name']}/binding", binding)).status == 201
    await api.patch(f"{APPS}/deployments/web", {"spec": {"replicas": 1}})
    status = await status_is(api, f"{APPS}/deployments/web", replicas=1, terminatingReplicas=1)
    assert status["terminatingReplicas"] == 1
    for pod in await pods(api):
        await api.patch(f"{NS}/pods/{pod['metadata']['name']}", {"metadata": {"finalizers": None}})
        if "deletionTimestamp" in pod["metadata"]:
            await api.delete(f"{NS}/pods/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    await status_is(api, f"{APPS}/deployments/web", replicas=1, availableReplicas=1, terminatingReplicas=0)


async def test_recreate_ends_all_before_it_begins_and_a_pause_holds(api: Api, nodes: None) -> None:
    body = workload("web", 3, strategy={"type": "Recreate"})
    assert (await api.post(f"{APPS}/deployments", body)).status == 201
    await status_is(api, f"{APPS}/deployments/web", availableReplicas=3, updatedReplicas=3)
    await api.patch(f"{APPS}/deployments/web", {"spec": {"paused": True, "template": template("two")}})

    async def paused() -> Any:
        status = (await api.get(f"{APPS}/deployments/web")).json["status"]
        return any(c["reason"] == "DeploymentPaused" for c in status["conditions"])

    await until(paused)
    assert {p["spec"]["containers"][0]["image"] for p in await pods(api)} == {"one"}
    mixed = []

    async def watch() -> None:
        while True:
            mixed.append({p["spec"]["containers"][0]["image"] for p in await pods(api)})
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    await api.patch(f"{APPS}/deployments/web", {"spec": {"paused": False}})
    await status_is(api, f"{APPS}/deployments/web", availableReplicas=3, updatedReplicas=3, replicas=3)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert {"one", "two"} not in mixed and {"two"} in mixed


async def test_no_pod_too_many_wherever_the_controller_is_broken_off(running: Any, admin: Api) -> None:
    client = client_of(running)
    await add_tenant(client, ACME)
    api = admin.at("acme")
    await api.post(RCS, controller("rc", 5))
    for at in (2, 3, 4, 5):
        client.cut(at, after=at % 2 == 0)
        part = asyncio.create_task(run_controllers(client, SETTINGS))
        await asyncio.sleep(0.25)
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)
        assert len(await pods(api)) <= 5
    client.cut(None)
    part = asyncio.create_task(run_controllers(client, SETTINGS))
    await status_is(api, f"{RCS}/rc", replicas=5)
    await asyncio.sleep(0.3)
    assert len(await pods(api)) == 5
    part.cancel()
    await asyncio.gather(part, return_exceptions=True)
    await client.close()
