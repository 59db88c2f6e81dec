"""ResourceQuota and LimitRange over the API: charged in the commit that writes, given back in the one that removes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.quantity import parse
from polder.apiserver.quota import guard_key
from polder.store.protocol import Put
from tests.contract.conftest import Api

NS = "/api/v1/namespaces/default"


@pytest.fixture
async def api(admin: Api) -> AsyncIterator[Api]:
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    yield admin.at("acme")


def quota(name: str = "q", **spec: Any) -> dict[str, Any]:
    hard = spec.pop("hard")
    return {"metadata": {"name": name}, "spec": {"hard": hard, **spec}}


def pod(name: str, requests: Any = None, limits: Any = None, **spec: Any) -> dict[str, Any]:
    resources = {k: v for k, v in (("requests", requests), ("limits", limits)) if v}
    container = {"name": "main", "image": "toolbox", "resources": resources}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def used(api: Api, name: str = "q") -> dict[str, str]:
    found = (await api.get(f"{NS}/resourcequotas/{name}")).json
    return found.get("status", {}).get("used", {})  # type: ignore[no-any-return]


async def test_a_quota_follows_the_life_of_a_pod(api: Api) -> None:
    hard = {"cpu": "1", "memory": "500Mi", "pods": "2", "requests.example.com/dongle": "3", "count/pods": "3"}
    assert (await api.post(f"{NS}/resourcequotas", quota(hard=hard))).status == 201
    asked = {"cpu": "500m", "memory": "252Mi", "example.com/dongle": "2"}
    made = await api.post(f"{NS}/pods", pod("one", asked, {"example.com/dongle": "2"}))
    assert made.status == 201, made.json
    assert await used(api) == {
        "cpu": "500m", "memory": "252Mi", "pods": "1", "requests.example.com/dongle": "2", "count/pods": "1",
    }  # fmt: skip
    refused = await api.post(f"{NS}/pods", pod("two", {"cpu": "600m", "memory": "100Mi"}))
    assert (refused.status, refused.json["message"]) == (
        403,
        'pods "two" is forbidden: exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1',
    )
    asks_nothing = await api.post(f"{NS}/pods", pod("three"))
    assert asks_nothing.json["message"] == (
        'pods "three" is forbidden: failed quota: q: must specify cpu for: main; memory for: main'
    )
    dry = await api.post(f"{NS}/pods?dryRun=All", pod("two", {"cpu": "600m", "memory": "1Mi"}))
    assert dry.status == 403
    assert (await api.post(f"{NS}/pods?dryRun=All", pod("two", {"cpu": "100m", "memory": "1Mi"}))).status == 201
    assert (await used(api))["pods"] == "1"
    assert (await api.patch(f"{NS}/pods/one/status", {"status": {"phase": "Succeeded"}})).status == 200
    assert await used(api) == {
        "cpu": "0", "memory": "0", "pods": "0", "requests.example.com/dongle": "0", "count/pods": "1",
    }  # fmt: skip
    assert (await api.delete(f"{NS}/pods/one")).status == 200
    assert set((await used(api)).values()) == {"0"}


async def test_services_claims_and_anything_by_count(api: Api) -> None:
    hard = {
        "services": "3", "services.nodeports": "1", "services.loadbalancers": "0", "persistentvolumeclaims": "1",
        "requests.storage": "1Gi", "gold.storageclass.storage.k8s.io/requests.storage": "1Gi", "configmaps": "3",
        "count/replicasets.apps": "1", "secrets": "1",
    }  # fmt: skip
    assert (await api.post(f"{NS}/resourcequotas", quota(hard=hard))).status == 201

    def service(name: str, kind: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}], "selector": {"a": "b"}}}

    assert (await api.post(f"{NS}/services", service("plain", "ClusterIP"))).status == 201
    assert (await api.post(f"{NS}/services", service("outside", "NodePort"))).status == 201
    over = await api.post(f"{NS}/services", service("third", "ClusterIP"))
    assert over.status == 403 and "exceeded quota: q, requested: services=1, used: services=" in over.json["message"]
    found = await used(api)
    assert found["services.nodeports"] == "1" and found["services.loadbalancers"] == "0"
    changed = await api.patch(f"{NS}/services/plain", {"spec": {"type": "NodePort"}})
    assert changed.status == 403 and "services.nodeports=1" in changed.json["message"], changed.json
    assert (await api.patch(f"{NS}/services/outside", {"spec": {"type": "ClusterIP"}})).status == 200
    assert (await used(api))["services.nodeports"] == "0"
    size = {"requests": {"storage": "1Gi"}}
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "gold",
             "resources": size}}  # fmt: skip
    assert (await api.post(f"{NS}/persistentvolumeclaims", claim)).status == 201
    found = await used(api)
    assert found["gold.storageclass.storage.k8s.io/requests.storage"] == found["requests.storage"] == "1Gi"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    work = {"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    assert (await api.post("/apis/apps/v1/namespaces/default/replicasets", work)).status == 201
    assert (await used(api))["count/replicasets.apps"] == "1"
    work["metadata"]["name"] = "v"
    assert (await api.post("/apis/apps/v1/namespaces/default/replicasets", work)).status == 403


async def test_a_quota_counts_what_is_there_when_it_comes(api: Api) -> None:
    for number in range(3):
        await api.post(f"{NS}/secrets", {"metadata": {"name": f"s{number}"}})
    assert (await api.post(f"{NS}/resourcequotas", quota(hard={"secrets": "4"}))).status == 201
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "four"}})).status == 201
    assert await used(api) == {"secrets": "4"}
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "five"}})).status == 403
    assert (await api.patch(f"{NS}/resourcequotas/q", {"spec": {"hard": {"secrets": "5"}}})).status == 200
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "five"}})).status == 201
    assert (await api.delete(f"{NS}/resourcequotas/q")).status == 200
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "six"}})).status == 201


async def test_scopes_say_which_pods_are_meant(api: Api) -> None:
    scopes = {
        "ending": {"scopes": ["Terminating"]},
        "lasting": {"scopes": ["NotTerminating"]},
        "poor": {"scopes": ["BestEffort"]},
        "rich": {"scopes": ["NotBestEffort"]},
    }
    for name, spec in scopes.items():
        made = await api.post(f"{NS}/resourcequotas", quota(name, hard={"pods": "5"}, **spec))
        assert made.status == 201, made.json
    assert (await api.post(f"{NS}/pods", pod("plain"))).status == 201
    assert (await api.post(f"{NS}/pods", pod("deadline", {"cpu": "1"}, activeDeadlineSeconds=5))).status == 201
    found = {name: (await used(api, name)).get("pods") for name in scopes}
    assert found == {"ending": "1", "lasting": "1", "poor": "1", "rich": "1"}
    assert (await api.patch(f"{NS}/pods/plain", {"spec": {"activeDeadlineSeconds": 9}})).status == 200
    assert ((await used(api, "ending"))["pods"], (await used(api, "lasting"))["pods"]) == ("2", "0")


async def test_many_at_once_never_get_more_than_there_is(api: Api) -> None:
    await api.post(f"{NS}/resourcequotas", quota("a", hard={"pods": "7", "requests.cpu": "10"}))
    await api.post(f"{NS}/resourcequotas", quota("b", hard={"count/pods": "100"}))
    chance = random.Random(7)
    sizes = {f"p{number}": chance.choice(["500m", "1", "2"]) for number in range(30)}

    async def one(name: str, cpu: str) -> int:
        status = (await api.post(f"{NS}/pods", pod(name, {"cpu": cpu}))).status
        if status == 201 and chance.random() < 0.4:
            assert (await api.delete(f"{NS}/pods/{name}")).status == 200
        return status

    statuses = await asyncio.gather(*(one(name, cpu) for name, cpu in sizes.items()))
    assert set(statuses) <= {201, 403}
    there = (await api.get(f"{NS}/pods")).json["items"]
    cpu = sum(parse(sizes[p["metadata"]["name"]]).value for p in there)
    found = await used(api, "a")
    assert int(found["pods"]) == len(there) <= 7
    assert parse(found["requests.cpu"]).value == cpu <= 10
    assert int((await used(api, "b"))["count/pods"]) == len(there)


async def test_a_quota_that_comes_amid_writes_misses_none(api: Api) -> None:
    async def maps(start: int) -> None:
        for number in range(start, start + 8):
            answer = await api.post(f"{NS}/configmaps", {"metadata": {"name": f"m{number}"}})
            assert answer.status == 201

    async def limit() -> None:
        await asyncio.sleep(0.01)
        assert (await api.post(f"{NS}/resourcequotas", quota(hard={"configmaps": "999"}))).status == 201

    await asyncio.gather(*(maps(start) for start in range(0, 80, 8)), limit())
    await api.post(f"{NS}/configmaps", {"metadata": {"name": "last"}})
    there = (await api.get(f"{NS}/configmaps")).json["items"]
    assert int((await used(api))["configmaps"]) == len(there) == 82  # one is every namespace's own


async def test_the_status_a_user_writes_stands_until_it_is_counted_anew(running: Any, api: Api) -> None:
    await api.post(f"{NS}/resourcequotas", quota(hard={"pods": "2"}))
    written = await api.patch(f"{NS}/resourcequotas/q/status", {"status": {"hard": {"pods": "9"}}})
    assert written.status == 200 and written.json["status"]["hard"] == {"pods": "9"}
    assert (await api.post(f"{NS}/pods", pod("one"))).status == 201
    status = (await api.get(f"{NS}/resourcequotas/q")).json["status"]
    assert status == {"hard": {"pods": "2"}, "used": {"pods": "1"}}


async def test_limits_complete_and_bound_what_containers_ask(api: Api) -> None:
    limits = [
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "default": {"cpu": "1", "memory": "1Gi"},
         "defaultRequest": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"memory": "2Gi"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}},
    ]  # fmt: skip
    made = await api.post(f"{NS}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}})
    assert made.status == 201, made.json
    plain = (await api.post(f"{NS}/pods", pod("plain"))).json
    assert plain["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"},
    }  # fmt: skip
    assert plain["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container main; cpu, memory limit for container main"
    )
    cases = {
        "small": (pod("x", {"cpu": "50m"}), "minimum cpu usage per Container is 100m, but request is 50m"),
        "big": (pod("x", {"cpu": "1"}, {"cpu": "3"}), "maximum cpu usage per Container is 2, but limit is 3"),
        "wide": (
            pod("x", {"cpu": "200m"}, {"cpu": "1"}),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
        ),
        "fat": (pod("x", None, {"memory": "3Gi"}), "maximum memory usage per Pod is 2Gi, but limit is 3Gi"),
    }
    for body, said in cases.values():
        refused = await api.post(f"{NS}/pods", body)
        assert refused.status == 403 and said in refused.json["message"], refused.json
    claim = {"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    for size, status in (("500Mi", 403), ("3Gi", 403), ("1Gi", 201)):
        claim["spec"]["resources"] = {"requests": {"storage": size}}  # type: ignore[index]
        assert (await api.post(f"{NS}/persistentvolumeclaims", claim)).status == status, size


CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


async def test_priority_comes_from_the_class(api: Api) -> None:
    high = {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}
    assert (await api.post(CLASSES, high)).status == 201
    spec = (await api.post(f"{NS}/pods", pod("a", priorityClassName="high"))).json["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    spec = (await api.post(f"{NS}/pods", pod("b"))).json["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    refused = await api.post(f"{NS}/pods", pod("c", priorityClassName="none"))
    assert refused.status == 403 and "no PriorityClass with name none was found" in refused.json["message"]
    refused = await api.post(f"{NS}/pods", pod("c", priorityClassName="high", priority=7))
    assert refused.status == 403 and "the integer value of priority (7) must not be provided" in refused.json["message"]
    usual = {"metadata": {"name": "usual"}, "value": 5, "globalDefault": True}
    assert (await api.post(CLASSES, usual)).status == 201
    second = await api.post(CLASSES, {**usual, "metadata": {"name": "second"}})
    assert second.status == 403 and "PriorityClass usual is already marked as default" in second.json["message"]
    spec = (await api.post(f"{NS}/pods", pod("c"))).json["spec"]
    assert (spec["priority"], spec["priorityClassName"]) == (5, "usual")


async def test_a_priority_class_scope_of_a_quota(api: Api) -> None:
    await api.post(CLASSES, {"metadata": {"name": "high"}, "value": 1000})
    of = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}
    assert (await api.post(f"{NS}/resourcequotas", quota(hard={"pods": "1"}, scopeSelector=of))).status == 201
    assert (await api.post(f"{NS}/pods", pod("low"))).status == 201
    assert (await api.post(f"{NS}/pods", pod("one", priorityClassName="high"))).status == 201
    assert (await api.post(f"{NS}/pods", pod("two", priorityClassName="high"))).status == 403
    assert await used(api) == {"pods": "1"}


async def test_no_row_of_a_quota_outlives_its_namespace(running: Any, api: Api) -> None:
    await api.post("/api/v1/namespaces", {"metadata": {"name": "short"}})
    for name in ("a", "b"):
        await api.post("/api/v1/namespaces/short/resourcequotas", quota(name, hard={"pods": "1"}))
    assert (await running.store.resources("acme", "short"))["quota-guards"] == 1
    gone = [api.delete(f"/api/v1/namespaces/short/resourcequotas/{name}") for name in ("a", "b")]
    assert [a.status for a in await asyncio.gather(*gone)] == [200, 200]
    assert "quota-guards" not in await running.store.resources("acme", "short")
    await running.store.commit([Put(guard_key("acme", "short"), b"{}")])  # what two that went at once may leave
    await api.delete("/api/v1/namespaces/short")
    done = {"metadata": {"name": "short"}, "spec": {"finalizers": []}}
    assert (await api.put("/api/v1/namespaces/short/finalize", done)).status == 200
    assert "quota-guards" not in await running.store.resources("acme", "short")
