"""StatefulSets and DaemonSets under the whole of the controllers; a stand-in makes pods ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.controllers.run import run_controllers
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, SETTINGS, add_node, add_tenant, client_of, controlled, until

NS = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default"
SETS, DAEMONS, REVISIONS = f"{APPS}/statefulsets", f"{APPS}/daemonsets", f"{APPS}/controllerrevisions"


@pytest.fixture
async def api(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running) as client:
        for name in ("n1", "n2", "n3"):
            await add_node(client, name)
        yield admin.at("acme")


@pytest.fixture
async def nodes(api: Api) -> AsyncIterator[set[str]]:
    """Makes every pod ready soon, as a node would; but not those that are named here."""
    held: set[str] = set()

    async def work() -> None:
        while True:
            for pod in await pods(api):
                if not pod["status"].get("conditions") and pod["metadata"]["name"] not in held:
                    await says(api, pod["metadata"]["name"])
            await asyncio.sleep(0.02)

    task = asyncio.create_task(work())
    yield held
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def pods(api: Api) -> list[Any]:
    return (await api.get(f"{NS}/pods")).json["items"]  # type: ignore[no-any-return]


async def says(api: Api, name: str, phase: str = "Running", status: str = "True") -> None:
    said = {"phase": phase, "conditions": [{"type": "Ready", "status": status}]}
    await api.patch(f"{NS}/pods/{name}/status", {"status": said})


def template(image: str = "one", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}


def stateful(replicas: int, **spec: Any) -> dict[str, Any]:
    wanted = {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}}
    return {"metadata": {"name": "db"}, "spec": {**wanted, "template": template(), **spec}}


def daemons(**spec: Any) -> dict[str, Any]:
    wanted = {"selector": {"matchLabels": {"app": "db"}}, "template": template(), **spec}
    return {"metadata": {"name": "every"}, "spec": wanted}


async def status_is(api: Api, path: str, **wanted: Any) -> Any:
    async def check() -> Any:
        status = (await api.get(path)).json.get("status") or {}
        return all((status.get(name) or 0) == value for name, value in wanted.items()) and status

    try:
        return await until(check)
    except AssertionError as error:
        raise AssertionError(f"{wanted}: {(await api.get(path)).json}") from error


def images(found: list[Any]) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in found}


async def test_pods_come_in_order_with_an_identity_and_go_in_reverse(api: Api, nodes: set[str]) -> None:
    nodes.add("db-1")
    assert (await api.post(SETS, stateful(3, ordinals={"start": 0}))).status == 201
    await status_is(api, f"{SETS}/db", replicas=2, readyReplicas=1)
    await asyncio.sleep(0.2)
    assert sorted(images(await pods(api))) == ["db-0", "db-1"], "db-2 waits for db-1"
    nodes.clear()
    await status_is(api, f"{SETS}/db", replicas=3, readyReplicas=3, availableReplicas=3, updatedReplicas=3)
    first = (await api.get(f"{NS}/pods/db-0")).json
    (revision,) = (await api.get(REVISIONS)).json["items"]
    assert first["metadata"]["labels"] == {
        "app": "db", "statefulset.kubernetes.io/pod-name": "db-0", "apps.kubernetes.io/pod-index": "0",
        "controller-revision-hash": revision["metadata"]["name"],
    }  # fmt: skip
    assert (first["spec"]["hostname"], first["spec"]["subdomain"]) == ("db-0", "db")
    assert first["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet"
    await says(api, "db-0", status="False")
    await status_is(api, f"{SETS}/db", readyReplicas=2)
    await api.patch(f"{SETS}/db/scale", {"spec": {"replicas": 1}})
    await asyncio.sleep(0.2)
    assert len(await pods(api)) == 3, "the highest goes only while the others are well"
    await says(api, "db-0")
    await status_is(api, f"{SETS}/db", replicas=1, readyReplicas=1)
    assert sorted(images(await pods(api))) == ["db-0"]


async def test_an_update_goes_down_to_the_partition_and_back(api: Api, nodes: set[str]) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    assert (await api.post(SETS, stateful(3, updateStrategy=rolling))).status == 201
    before = await status_is(api, f"{SETS}/db", readyReplicas=3, currentReplicas=3)
    assert before["currentRevision"] == before["updateRevision"]
    await api.patch(f"{SETS}/db", {"spec": {"template": template("two")}})
    now = await status_is(api, f"{SETS}/db", updatedReplicas=1, readyReplicas=3, currentReplicas=2)
    assert now["currentRevision"] == before["currentRevision"] != now["updateRevision"]
    assert images(await pods(api)) == {"db-0": "one", "db-1": "one", "db-2": "two"}
    first = (await api.get(f"{NS}/pods/db-0")).json
    await api.delete(f"{NS}/pods/db-0")

    async def again() -> Any:
        found = await api.get(f"{NS}/pods/db-0")
        return found.status == 200 and found.json["metadata"]["uid"] != first["metadata"]["uid"] and found.json

    pod = await until(again)
    assert images([pod]) == {"db-0": "one"}, "below the partition pods keep their revision"
    await api.patch(f"{SETS}/db", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    done = await status_is(api, f"{SETS}/db", updatedReplicas=3, readyReplicas=3, currentReplicas=3)
    assert done["currentRevision"] == now["updateRevision"]
    await api.patch(f"{SETS}/db", {"spec": {"template": template("one")}})

    async def back() -> Any:
        status = (await api.get(f"{SETS}/db")).json["status"]
        return status["currentRevision"] == before["currentRevision"] and status.get("readyReplicas") == 3

    await until(back)
    numbers = {r["metadata"]["name"]: r["revision"] for r in (await api.get(REVISIONS)).json["items"]}
    assert numbers == {now["updateRevision"]: 2, before["currentRevision"]: 3}, (
        "no third revision for the same template"
    )


async def test_in_parallel_all_come_at_once_and_the_failed_are_replaced(api: Api, nodes: set[str]) -> None:
    nodes |= {f"db-{number}" for number in range(4, 8)}
    body = stateful(4, podManagementPolicy="Parallel", ordinals={"start": 4})
    assert (await api.post(SETS, body)).status == 201
    await status_is(api, f"{SETS}/db", replicas=4, readyReplicas=0)
    assert sorted(images(await pods(api))) == ["db-4", "db-5", "db-6", "db-7"]
    old = (await api.get(f"{NS}/pods/db-5")).json["metadata"]["uid"]
    await says(api, "db-5", "Failed", "False")

    async def replaced() -> Any:
        found = await api.get(f"{NS}/pods/db-5")
        return found.status == 200 and found.json["metadata"]["uid"] != old

    await until(replaced)
    nodes.clear()
    await status_is(api, f"{SETS}/db", readyReplicas=4)
    await api.patch(f"{SETS}/db/scale", {"spec": {"replicas": 0}})
    await status_is(api, f"{SETS}/db", replicas=0)


async def test_history_is_kept_to_its_limit(api: Api, nodes: set[str]) -> None:
    await api.post(SETS, stateful(1, revisionHistoryLimit=1))
    await status_is(api, f"{SETS}/db", readyReplicas=1)
    for image in ("two", "three", "four"):
        await api.patch(f"{SETS}/db", {"spec": {"template": template(image)}})

        async def rolled(image: str = image) -> Any:
            found = await pods(api)
            return found and images(found)["db-0"] == image and found[0]["status"].get("conditions")

        await until(rolled)

    async def trimmed() -> Any:
        return sorted(r["revision"] for r in (await api.get(REVISIONS)).json["items"]) == [3, 4]

    await until(trimmed)
    data = max((await api.get(REVISIONS)).json["items"], key=lambda r: int(r["revision"]))["data"]
    assert data["spec"]["template"]["$patch"] == "replace"


async def test_claims_come_before_their_pod_and_go_as_the_policy_says(api: Api, nodes: set[str]) -> None:
    claim = {"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}  # fmt: skip
    policy = {"whenScaled": "Delete", "whenDeleted": "Delete"}
    body = stateful(2, volumeClaimTemplates=[claim], persistentVolumeClaimRetentionPolicy=policy)
    assert (await api.post(SETS, body)).status == 201
    await status_is(api, f"{SETS}/db", readyReplicas=2)

    async def owners() -> dict[str, list[str]]:
        found = (await api.get(f"{NS}/persistentvolumeclaims")).json["items"]
        return {
            item["metadata"]["name"]: [ref["kind"] for ref in item["metadata"].get("ownerReferences") or ()]
            for item in found
            if "deletionTimestamp" not in item["metadata"]
        }

    async def are(wanted: dict[str, list[str]]) -> Any:
        return await owners() == wanted

    await until(lambda: are({"data-db-0": ["StatefulSet"], "data-db-1": ["StatefulSet"]}))
    volumes = (await api.get(f"{NS}/pods/db-1")).json["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-1"}} in volumes
    await api.patch(f"{SETS}/db/scale", {"spec": {"replicas": 1}})
    await until(lambda: are({"data-db-0": ["StatefulSet"]}))
    keep = {"spec": {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Retain"}}}
    await api.patch(f"{SETS}/db", keep)
    await until(lambda: are({"data-db-0": []}))
    await api.delete(f"{SETS}/db", {"propagationPolicy": "Foreground"})

    async def gone() -> Any:
        return not await pods(api) and (await api.get(f"{SETS}/db")).status == 404

    await until(gone)
    assert await owners() == {"data-db-0": []}


async def targets(api: Api) -> dict[str, str]:
    """Image by node."""
    found = {}
    for pod in await pods(api):
        required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = required["nodeSelectorTerms"]
        found[term["matchFields"][0]["values"][0]] = pod["spec"]["containers"][0]["image"]
    return found


async def test_a_daemon_is_made_for_each_node_that_fits(api: Api, admin: Api, nodes: set[str]) -> None:
    assert (await api.post(DAEMONS, daemons())).status == 201
    await status_is(api, f"{DAEMONS}/every", desiredNumberScheduled=3, numberReady=3, updatedNumberScheduled=3)
    assert set(await targets(api)) == {"n1", "n2", "n3"}
    assert {"node.kubernetes.io/unschedulable", "node.kubernetes.io/unreachable"} <= {
        t.get("key") for t in (await pods(api))[0]["spec"]["tolerations"]
    }
    await admin.patch("/api/v1/nodes/n1", {"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}})
    await status_is(api, f"{DAEMONS}/every", desiredNumberScheduled=2, currentNumberScheduled=2, numberMisscheduled=0)
    assert set(await targets(api)) == {"n2", "n3"}
    await admin.patch("/api/v1/nodes/n1", {"spec": {"taints": None}})
    await status_is(api, f"{DAEMONS}/every", desiredNumberScheduled=3, numberReady=3)


async def test_a_tenant_s_daemon_goes_by_the_labels_that_the_tenant_sees(api: Api, admin: Api, nodes: set[str]) -> None:
    await admin.patch("/api/v1/nodes/n1", {"metadata": {"labels": {"rack": "secret"}}})
    await api.patch("/api/v1/nodes/n2", {"metadata": {"labels": {"rack": "mine"}}})
    for name, rack, wanted in (("theirs", "secret", 0), ("own", "mine", 1)):
        body = daemons(template=template(nodeSelector={"rack": rack}))
        body["metadata"]["name"] = name
        assert (await api.post(DAEMONS, body)).status == 201
        await status_is(api, f"{DAEMONS}/{name}", observedGeneration=1, desiredNumberScheduled=wanted)
    await api.patch("/api/v1/nodes/n3", {"metadata": {"labels": {"rack": "mine"}}})
    await status_is(api, f"{DAEMONS}/own", desiredNumberScheduled=2, numberReady=2)


async def test_a_daemon_is_rolled_out_within_its_limits_and_back_without_restarts(api: Api, nodes: set[str]) -> None:
    await api.post(DAEMONS, daemons())
    await status_is(api, f"{DAEMONS}/every", numberReady=3)
    least = [3]

    async def watch() -> None:
        while True:
            least[0] = min(least[0], sum(bool(p["status"].get("conditions")) for p in await pods(api)))
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    await api.patch(f"{DAEMONS}/every", {"spec": {"template": template("two")}})
    await status_is(api, f"{DAEMONS}/every", updatedNumberScheduled=3, numberReady=3, observedGeneration=2)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert least[0] == 2
    await api.patch(f"{DAEMONS}/every", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}})
    await api.patch(f"{DAEMONS}/every", {"spec": {"template": template("three")}})
    await status_is(api, f"{DAEMONS}/every", updatedNumberScheduled=0, numberReady=3)
    known = {pod["metadata"]["uid"] for pod in await pods(api)}
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}
    back = {"template": template("two"), "updateStrategy": update}
    await api.patch(f"{DAEMONS}/every", {"spec": back})
    await status_is(api, f"{DAEMONS}/every", updatedNumberScheduled=3, numberReady=3)
    assert {pod["metadata"]["uid"] for pod in await pods(api)} == known


async def test_with_surge_the_old_pod_goes_when_the_new_one_is_there(api: Api, nodes: set[str]) -> None:
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await api.post(DAEMONS, daemons(updateStrategy=update))
    await status_is(api, f"{DAEMONS}/every", numberReady=3)
    least, most = [3], [3]

    async def watch() -> None:
        while True:
            found = await pods(api)
            least[0] = min(least[0], sum(bool(p["status"].get("conditions")) for p in found))
            most[0] = max(most[0], len(found))
            await asyncio.sleep(0.005)

    watcher = asyncio.create_task(watch())
    await api.patch(f"{DAEMONS}/every", {"spec": {"template": template("two")}})
    await status_is(api, f"{DAEMONS}/every", updatedNumberScheduled=3, numberReady=3, observedGeneration=2)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert (least, most) == ([3], [4])


async def test_a_failed_daemon_is_replaced_with_a_pause(api: Api, nodes: set[str]) -> None:
    await api.post(DAEMONS, daemons())
    await status_is(api, f"{DAEMONS}/every", numberReady=3)
    for again in range(2):
        pod = (await pods(api))[0]
        await says(api, pod["metadata"]["name"], "Failed", "False")

        async def replaced(uid: str = pod["metadata"]["uid"]) -> Any:
            return uid not in {p["metadata"]["uid"] for p in await pods(api)}

        begun = asyncio.get_running_loop().time()
        await until(replaced)
        await status_is(api, f"{DAEMONS}/every", numberReady=3)
        assert asyncio.get_running_loop().time() - begun < 5, f"failure {again} waits a second at most"


async def test_nothing_is_doubled_wherever_the_controllers_are_broken_off(running: Any, admin: Api) -> None:
    client = client_of(running)
    await add_tenant(client, ACME)
    for name in ("n1", "n2", "n3"):
        await add_node(client, name)
    api = admin.at("acme")
    await api.post(DAEMONS, daemons())
    await api.post(SETS, stateful(3, podManagementPolicy="Parallel", selector={"matchLabels": {"app": "q"}},
                                  template={**template(), "metadata": {"labels": {"app": "q"}}}))  # fmt: skip
    for at in range(1, 9):
        client.cut(at, after=at % 2 == 0)
        part = asyncio.create_task(run_controllers(client, SETTINGS))
        await asyncio.sleep(0.2)
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)
        assert len(await pods(api)) <= 6
    client.cut(None)
    part = asyncio.create_task(run_controllers(client, SETTINGS))
    await status_is(api, f"{DAEMONS}/every", currentNumberScheduled=3)
    await status_is(api, f"{SETS}/db", replicas=3)
    await asyncio.sleep(0.3)
    found = await pods(api)
    assert len(found) == 6
    assert len((await api.get(REVISIONS)).json["items"]) == 2
    part.cancel()
    await asyncio.gather(part, return_exceptions=True)
    await client.close()
