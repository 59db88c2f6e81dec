"""What upstream's specs check of single kinds and is held nowhere else, in root and in a tenant.

Transcribes test/e2e/{common/node,common/storage,network,node,scheduling,auth,apps}: immutability, classes, tokens, services.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from tests.contract.conftest import Answer, Api

NS = "/api/v1/namespaces/default"
PODS = f"{NS}/pods"
STRATEGIC = "strategic-merge-patch"


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i:1"}], **spec}}


async def good(call: Any) -> dict[str, Any]:
    """The object of an answer that must be one."""
    answer: Answer = await call
    assert answer.status in {200, 201}, answer.body
    return dict(answer.json)


async def refused(call: Any, *words: str) -> None:
    answer: Answer = await call
    assert (answer.status, answer.json["reason"]) == (422, "Invalid"), answer.body
    for word in words:
        assert word in answer.json["message"], answer.body


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
async def test_what_is_immutable_stays_so(either: Api, plural: str) -> None:
    """Data cannot change and the mark cannot be taken back; labels can change, and the object can go."""
    value, other = (base64.b64encode(text).decode() for text in (b"one", b"two"))
    await good(either.post(f"{NS}/{plural}", {"metadata": {"name": "x"}, "data": {"a": value}}))
    await good(either.patch(f"{NS}/{plural}/x", {"data": {"a": other}}))
    await good(either.patch(f"{NS}/{plural}/x", {"immutable": True}))
    await refused(either.patch(f"{NS}/{plural}/x", {"data": {"a": value}}), "immutable when `immutable` is set")
    await refused(either.patch(f"{NS}/{plural}/x", {"data": {"b": value}}))
    await refused(either.patch(f"{NS}/{plural}/x", {"immutable": False}), "immutable when `immutable` is set")
    await refused(either.patch(f"{NS}/{plural}/x", {"immutable": None}))
    await good(either.patch(f"{NS}/{plural}/x", {"metadata": {"labels": {"a": "b"}}}))
    assert (await either.delete(f"{NS}/{plural}/x")).status == 200


@pytest.mark.parametrize("plural", ["configmaps", "secrets"])
async def test_a_key_is_not_empty(either: Api, plural: str) -> None:
    value = base64.b64encode(b"one").decode()
    await refused(
        either.post(f"{NS}/{plural}", {"metadata": {"name": "x"}, "data": {"": value}}), 'data[]: Invalid value: ""'
    )


async def test_a_pods_runtime_class_is_there(either: Api) -> None:
    """A pod that names a class that is not there, or not there any more, is refused."""
    classes = "/apis/node.k8s.io/v1/runtimeclasses"
    await good(either.post(classes, {"metadata": {"name": "heavy"}, "handler": "runc"}))
    assert (await either.delete(f"{classes}/heavy")).status == 200
    for name in ("heavy", "never"):
        answer = await either.post(PODS, pod(runtimeClassName=name))
        assert answer.status == 403 and f'"{name}" not found' in answer.json["message"], answer.body


async def test_a_priority_keeps_its_value(either: Api) -> None:
    """The value cannot change; what describes the class can."""
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    made = await good(either.post(classes, {"metadata": {"name": "p1"}, "value": 1}))
    assert made["preemptionPolicy"] == "PreemptLowerPriority"
    described = await good(either.patch(f"{classes}/p1", {"description": "first"}))
    assert described["description"] == "first"
    changed = await either.put(f"{classes}/p1", {**described, "value": 2})
    assert changed.status == 422 and "may not be changed in an update" in changed.json["message"], changed.body
    assert (await good(either.get(f"{classes}/p1")))["value"] == 1


async def test_a_history_keeps_its_data(either: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/controllerrevisions"
    await good(either.post(path, {"metadata": {"name": "r"}, "revision": 1, "data": {"a": "b"}}))
    assert (await good(either.patch(f"{path}/r", {"revision": 2})))["revision"] == 2
    await refused(either.patch(f"{path}/r", {"data": {"a": "c"}}), "field is immutable")


async def test_a_pods_deadline_may_come_nearer_only(either: Api) -> None:
    await good(either.post(PODS, pod()))
    assert (await good(either.patch(f"{PODS}/p", {"spec": {"activeDeadlineSeconds": 30}}, STRATEGIC)))["spec"][
        "activeDeadlineSeconds"
    ] == 30
    await good(either.patch(f"{PODS}/p", {"spec": {"activeDeadlineSeconds": 5}}, STRATEGIC))
    await refused(
        either.patch(f"{PODS}/p", {"spec": {"activeDeadlineSeconds": 60}}, STRATEGIC), "activeDeadlineSeconds"
    )
    await refused(either.patch(f"{PODS}/p", {"spec": {"activeDeadlineSeconds": None}}))


async def test_a_pods_generation_counts_changes_of_its_spec(either: Api) -> None:
    """It begins at 1 whatever was sent, and labels and status leave it alone."""
    sent = pod()
    sent["metadata"]["generation"] = 99
    assert (await good(either.post(PODS, sent)))["metadata"]["generation"] == 1
    image = {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}
    assert (await good(either.patch(f"{PODS}/p", image, STRATEGIC)))["metadata"]["generation"] == 2
    assert (await good(either.patch(f"{PODS}/p", image, STRATEGIC)))["metadata"]["generation"] == 2
    labelled = await good(either.patch(f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}}))
    assert labelled["metadata"]["generation"] == 2
    observed = {"status": {"phase": "Running", "observedGeneration": 2}}
    assert (await good(either.patch(f"{PODS}/p/status", observed)))["metadata"]["generation"] == 2


async def test_a_service_changes_its_type_there_and_back(either: Api) -> None:
    """ExternalName, ClusterIP and NodePort become each other; each keeps only what it has a use for."""
    services = f"{NS}/services"
    spec = {"type": "ExternalName", "externalName": "foo.example.com"}
    made = await good(either.post(services, {"metadata": {"name": "s"}, "spec": spec}))
    assert "clusterIP" not in made["spec"]
    ports = [{"port": 80, "protocol": "TCP", "name": "http"}]

    async def become(**spec: Any) -> dict[str, Any]:
        return dict((await good(either.patch(f"{services}/s", {"spec": spec})))["spec"])

    inside = await become(type="ClusterIP", externalName=None, ports=ports)
    assert inside["clusterIP"] and "externalName" not in inside and "nodePort" not in inside["ports"][0]
    named = await become(type="ExternalName", externalName="bar.example.com", clusterIP=None, clusterIPs=None)
    assert "clusterIP" not in named and named["externalName"] == "bar.example.com"
    status = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}}
    patched = await good(either.patch(f"{services}/s/status", status))
    assert patched["status"] == {"loadBalancer": {}}, "only a load balancer has the address of one"


async def test_an_account_and_its_token(either: Api) -> None:
    """The token says who it is in a review, for the audience it was made for, and names the pod that it is bound to."""
    accounts = f"{NS}/serviceaccounts"
    await good(either.post(accounts, {"metadata": {"name": "robot"}}))
    bound = (await good(either.post(PODS, pod(serviceAccountName="robot"))))["metadata"]
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": bound["uid"]}
    spec = {"boundObjectRef": reference, "expirationSeconds": 600}
    issued = await good(either.post(f"{accounts}/robot/token", {"spec": spec}))
    token = issued["status"]["token"]
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    said = (await good(either.post(reviews, {"spec": {"token": token}})))["status"]
    assert said["authenticated"] and said["user"]["username"] == "system:serviceaccount:default:robot"
    assert set(said["user"]["groups"]) == {
        "system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated",
    }  # fmt: skip
    assert said["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    other = {"spec": {"token": token, "audiences": ["elsewhere"]}}
    assert not (await good(either.post(reviews, other)))["status"].get("authenticated")
    await either.delete(f"{PODS}/p", {"gracePeriodSeconds": 0})
    gone = (await good(either.post(reviews, {"spec": {"token": token}})))["status"]
    assert not gone.get("authenticated"), "it was good as long as its pod"


async def test_the_issuer_is_found_by_its_tokens(either: Api) -> None:
    """The discovery document names the issuer in the token, and the keys hold the one that signed it."""
    issued = await good(either.post(f"{NS}/serviceaccounts/default/token", {"spec": {}}))
    head, claims = (
        json.loads(base64.urlsafe_b64decode(part + "==")) for part in issued["status"]["token"].split(".")[:2]
    )
    document = await either.get("/.well-known/openid-configuration")
    assert document.status == 200 and document.headers["Content-Type"].startswith("application/json")
    found = document.json
    assert found["issuer"] == claims["iss"]
    assert {"response_types_supported", "subject_types_supported"} <= set(found)
    assert head["alg"] in found["id_token_signing_alg_values_supported"]
    keys = await either.get("/openid/v1/jwks")
    assert keys.headers["Content-Type"] == "application/jwk-set+json"
    assert head["kid"] in [key["kid"] for key in keys.json["keys"]]


async def test_events_are_chosen_by_field(either: Api) -> None:
    """The new form of events, chosen by what reported them, and cleared as a collection by that choice."""
    events = "/apis/events.k8s.io/v1/namespaces/default/events"
    for number, reporter in enumerate(("one", "two")):
        await good(either.post(events, {
            "metadata": {"name": f"e{number}"}, "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal",
            "reportingController": f"example.com/{reporter}", "reportingInstance": reporter, "action": "Do",
            "reason": "Test", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        }))  # fmt: skip
    chosen = f"{events}?fieldSelector=reportingController%3Dexample.com/one"
    assert [item["metadata"]["name"] for item in (await good(either.get(chosen)))["items"]] == ["e0"]
    series = {"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}
    assert (await good(either.patch(f"{events}/e0", series)))["series"]["count"] == 2
    assert (await either.delete(chosen)).status == 200
    assert [item["metadata"]["name"] for item in (await good(either.get(events)))["items"]] == ["e1"]


async def test_the_version_is_upstreams(either: Api) -> None:
    version = await good(either.get("/version"))
    assert (version["major"], version["minor"]) == ("1", "36")


async def test_many_watchers_see_one_order(either: Api) -> None:
    """Watches begun at each other's revisions while objects change see the rest of one and the same history."""
    maps = f"{NS}/configmaps"
    start = (await good(either.get(maps)))["metadata"]["resourceVersion"]

    async def watched(version: str, number: int) -> list[str]:
        async with either.watch(f"{maps}?watch=1&timeoutSeconds=20&resourceVersion={version}") as stream:
            lines = [json.loads(await stream.content.readline()) for _ in range(number)]
        return [line["object"]["metadata"]["resourceVersion"] for line in lines]

    whole = asyncio.create_task(watched(start, 12))
    for number in range(4):
        await good(either.post(maps, {"metadata": {"name": f"m{number}"}}))
        await good(either.patch(f"{maps}/m{number}", {"data": {"a": str(number)}}))
        assert (await either.delete(f"{maps}/m{number}")).status == 200
    history = await asyncio.wait_for(whole, 20)
    assert history == sorted(history, key=int)
    parts = [watched(version, len(history) - at - 1) for at, version in enumerate(history[:-1])]
    assert await asyncio.gather(*parts) == [history[at + 1 :] for at in range(len(history) - 1)]
