"""One row, several forms: events of core and events.k8s.io, autoscalers of v1 and v2."""

from __future__ import annotations

import json
from typing import Any

CORE = "/api/v1/namespaces/default/events"
NEW = "/apis/events.k8s.io/v1/namespaces/default/events"
V1 = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
V2 = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
EVENT = {
    "metadata": {"name": "e"},
    "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    "eventTime": "2026-01-01T00:00:00.000000Z",
    "reportingController": "example.com/c",
    "reportingInstance": "c-1",
    "action": "Look",
    "reason": "Seen",
    "note": "there it is",
    "type": "Normal",
}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}


async def test_an_event_has_two_forms(admin: Any) -> None:
    made = await admin.post(NEW, EVENT)
    assert made.status == 201, made.body
    assert (made.json["apiVersion"], made.json["note"]) == ("events.k8s.io/v1", "there it is")
    old = (await admin.get(f"{CORE}/e")).json
    assert (old["apiVersion"], old["message"], old["involvedObject"]["name"]) == ("v1", "there it is", "p")
    assert old["reportingComponent"] == "example.com/c" and "note" not in old
    changed = await admin.patch(f"{NEW}/e", {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}})
    assert changed.status == 200 and changed.json["series"]["count"] == 2, changed.body
    listed = (await admin.get(f"{NEW}?fieldSelector=regarding.name%3Dp")).json
    assert (listed["apiVersion"], listed["items"][0]["regarding"]["kind"]) == ("events.k8s.io/v1", "Pod")
    assert (await admin.get(f"{NEW}?fieldSelector=regarding.name%3Dq")).json["items"] == []
    assert (await admin.get(f"{CORE}?fieldSelector=regarding.name%3Dp")).status == 400
    async with admin.watch(f"{NEW}?watch=1&resourceVersion={old['metadata']['resourceVersion']}") as stream:
        event = json.loads(await stream.content.readline())
    assert (event["type"], event["object"]["note"]) == ("MODIFIED", "there it is")


async def test_an_autoscaler_keeps_in_v1_what_only_v2_has_fields_for(admin: Any) -> None:
    metrics = [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
    ]
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 10}}
    spec = {"scaleTargetRef": TARGET, "maxReplicas": 5, "metrics": metrics, "behavior": behavior}
    made = await admin.post(V2, {"metadata": {"name": "a"}, "spec": spec})
    assert made.status == 201, made.body
    old = (await admin.get(f"{V1}/a")).json
    assert old["spec"]["targetCPUUtilizationPercentage"] == 50 and "metrics" not in old["spec"]
    assert "hits" in old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"]
    put = await admin.put(f"{V1}/a", {**old, "spec": {**old["spec"], "targetCPUUtilizationPercentage": 60}})
    assert put.status == 200, put.body
    new = (await admin.get(f"{V2}/a")).json
    assert new["metadata"].get("annotations") is None
    assert {metric["type"] for metric in new["spec"]["metrics"]} == {"Resource", "Pods"}
    assert new["spec"]["metrics"][1]["resource"]["target"]["averageUtilization"] == 60
    assert new["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 10


async def test_an_autoscaler_of_v1_without_a_target_aims_at_eighty_percent(admin: Any) -> None:
    made = await admin.post(V1, {"metadata": {"name": "a"}, "spec": {"scaleTargetRef": TARGET, "maxReplicas": 5}})
    assert made.json["spec"]["targetCPUUtilizationPercentage"] == 80, made.body
    patched = await admin.patch(f"{V1}/a", {"spec": {"maxReplicas": 7}})
    assert (patched.json["apiVersion"], patched.json["spec"]["maxReplicas"]) == ("autoscaling/v1", 7)
    watched = f"{V1}?watch=1&timeoutSeconds=1&resourceVersion={made.json['metadata']['resourceVersion']}"
    async with admin.watch(watched) as stream:
        assert json.loads(await stream.content.readline())["object"]["apiVersion"] == "autoscaling/v1"
