"""Autoscaling over a real server; a stand-in for the nodes says what pods use."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from polder.base.ref import Ref
from polder.controllers.autoscale import PERIOD, AutoscalerController
from polder.controllers.mapper import Mapper
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, CuttableClient, HandClock, add_tenant, client_of, until

NS = "/api/v1/namespaces/default"
APPS = "/apis/apps/v1/namespaces/default/deployments"
SCALERS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
METRICS = "/tenants/acme/apis/metrics.k8s.io/v1beta1/namespaces/default/pods"
AT = Ref(ACME, "default", "web")
LONG_AGO = "2026-01-01T00:00:00Z"


class MeteredClient(CuttableClient):
    """A real client but for metrics of pods, which no node gives here: ``used`` has millicores by the pod's name."""

    used: dict[str, int]

    async def raw(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str = "application/json"
    ) -> bytes:
        if not path.startswith(METRICS):
            return await super().raw(method, path, body, content_type=content_type)
        items = []
        for name, cpu in self.used.items():
            containers = [{"name": "c", "usage": {"cpu": f"{cpu}m", "memory": "1Mi"}}]
            meta = {"name": name, "namespace": "default"}
            items.append({"metadata": meta, "timestamp": LONG_AGO, "window": "15s", "containers": containers})
        return json.dumps({"metadata": {}, "items": items}).encode()


@dataclass
class Cluster:
    """A tenant's API, and the controller."""

    api: Api
    client: MeteredClient
    controller: AutoscalerController
    clock: HandClock = field(default_factory=HandClock)

    async def pass_(self) -> Any:
        """One pass; the autoscaler's status."""
        assert await self.controller.reconcile(AT) == PERIOD
        return (await self.api.get(f"{SCALERS}/web")).json["status"]

    async def pod(self, name: str) -> None:
        """A pod that has long been ready."""
        container = {"name": "c", "image": "one", "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}}
        body = {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [container]}}
        answer = await self.api.post(f"{NS}/pods", body)
        assert answer.status == 201, answer.json
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": LONG_AGO}]
        said = {"phase": "Running", "conditions": conditions, "startTime": LONG_AGO}
        await self.api.patch(f"{NS}/pods/{name}/status", {"status": said})


@pytest.fixture
async def cluster(running: Any, admin: Api) -> AsyncIterator[Cluster]:
    client = client_of(running)
    await add_tenant(client, ACME)
    client.__class__ = MeteredClient
    assert isinstance(client, MeteredClient)
    client.used = {}
    clock = HandClock()
    yield Cluster(admin.at("acme"), client, AutoscalerController(client, Mapper(client, clock), clock), clock)
    await client.close()


def conditions(status: Any) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


async def deployment(api: Api, replicas: int) -> None:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    wanted = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    await api.post(APPS, {"metadata": {"name": "web"}, "spec": wanted})


async def scaler(api: Api, name: str = "web", target: Any = None, **spec: Any) -> None:
    known = target or {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    answer = await api.post(
        SCALERS, {"metadata": {"name": name}, "spec": {"scaleTargetRef": known, "maxReplicas": 5, **spec}}
    )
    assert answer.status == 201, answer.json


async def test_a_deployment_follows_what_its_pods_use(cluster: Cluster):
    api = cluster.api
    await deployment(api, 2)
    await scaler(api)
    for name in ("a", "b"):
        await cluster.pod(name)
    cluster.client.used = {"a": 150, "b": 170}
    status = await cluster.pass_()
    assert (await api.get(f"{APPS}/web")).json["spec"]["replicas"] == 4
    assert (status["currentReplicas"], status["desiredReplicas"], "lastScaleTime" in status) == (2, 4, True)
    assert status["currentMetrics"][0]["resource"]["current"] == {"averageUtilization": 160, "averageValue": "160m"}
    assert conditions(status) == {
        "AbleToScale": ("True", "SucceededRescale"),
        "ScalingActive": ("True", "ValidMetricFound"),
        "ScalingLimited": ("False", "DesiredWithinRange"),
    }
    cluster.client.used = {"a": 5, "b": 5}
    held = await cluster.pass_()
    assert conditions(held)["AbleToScale"] == ("True", "ScaleDownStabilized")
    cluster.clock.ahead += 400
    free = await cluster.pass_()
    assert (free["currentReplicas"], free["desiredReplicas"]) == (4, 1)


async def test_bounds_hold_without_metrics(cluster: Cluster):
    await deployment(cluster.api, 9)
    await scaler(cluster.api, minReplicas=2)
    assert (await cluster.pass_())["desiredReplicas"] == 5
    await cluster.api.patch(f"{APPS}/web", {"spec": {"replicas": 1}})
    assert (await cluster.pass_())["desiredReplicas"] == 2
    await cluster.api.patch(f"{APPS}/web", {"spec": {"replicas": 0}})
    assert conditions(await cluster.pass_())["ScalingActive"] == ("False", "ScalingDisabled")


async def test_what_is_missing_is_told(cluster: Cluster):
    api = cluster.api
    await scaler(api)
    gone = await cluster.pass_()
    assert conditions(gone) == {"AbleToScale": ("False", "FailedGetScale")}
    await deployment(api, 1)
    await cluster.pod("a")
    silent = await cluster.pass_()
    assert conditions(silent)["ScalingActive"] == ("False", "FailedGetResourceMetric")
    external = {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "3"}}
    await api.patch(f"{SCALERS}/web", {"spec": {"metrics": [{"type": "External", "external": external}]}})
    told = await cluster.pass_()
    assert conditions(told)["ScalingActive"] == ("False", "FailedGetExternalMetric")
    words = next(c["message"] for c in told["conditions"] if c["type"] == "ScalingActive")
    assert "no external metrics API (external.metrics.k8s.io) has it" in words


async def test_two_that_size_the_same_pods_do_nothing(cluster: Cluster):
    api = cluster.api
    await deployment(api, 1)
    await cluster.pod("a")
    await scaler(api)
    await scaler(api, "other")
    cluster.client.used = {"a": 300}
    await cluster.controller.reconcile(Ref(ACME, "default", "other"))
    assert conditions(await cluster.pass_())["ScalingActive"] == ("False", "AmbiguousSelector")
    await api.delete(f"{SCALERS}/other")
    assert await cluster.controller.reconcile(Ref(ACME, "default", "other")) is None
    assert conditions(await cluster.pass_())["ScalingActive"] == ("True", "ValidMetricFound")


async def test_a_custom_kind_has_a_size_too(cluster: Cluster):
    api = cluster.api
    scale = {
        "specReplicasPath": ".spec.size",
        "statusReplicasPath": ".status.size",
        "labelSelectorPath": ".status.pods",
    }
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties = {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}, "status": schema}
    version = {
        "name": "v1", "served": True, "storage": True, "subresources": {"status": {}, "scale": scale},
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }  # fmt: skip
    names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet", "listKind": "FleetList"}
    spec = {"group": "sea.example", "scope": "Namespaced", "names": names, "versions": [version]}
    body = {"metadata": {"name": "fleets.sea.example"}, "spec": spec}
    answer = await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    assert answer.status == 201, answer.json
    fleets = "/apis/sea.example/v1/namespaces/default/fleets"
    fleet = {"apiVersion": "sea.example/v1", "kind": "Fleet", "metadata": {"name": "web"}, "spec": {"size": 1}}

    async def made() -> Any:
        return (await api.post(fleets, fleet)).status == 201

    await until(made)
    await api.patch(f"{fleets}/web/status", {"status": {"size": 1, "pods": "app=web"}})
    await cluster.pod("a")
    await scaler(api, target={"apiVersion": "sea.example/v1", "kind": "Fleet", "name": "web"})
    cluster.client.used = {"a": 240}
    status = await cluster.pass_()
    assert conditions(status)["AbleToScale"] == ("True", "SucceededRescale"), status
    assert (await api.get(f"{fleets}/web")).json["spec"]["size"] == 3
