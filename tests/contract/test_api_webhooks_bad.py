"""Admission webhooks that fail: slow, broken, unreachable, untrusted ones, and what a failure policy makes of that."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from tests.contract.conftest import Api, Kubectl
from tests.contract.hooked import (
    GROUP,
    MAPS,
    RULE,
    Site,
    allow,
    config_map,
    deny,
    hook,
    message,
    patch,
    register,
    reply,
)


@pytest.mark.parametrize(
    ("result", "code", "said"),
    [
        ({}, 400, "without explanation"),
        ({"reason": "TooSad"}, 400, ": TooSad"),
        ({"code": 200, "message": "x", "status": "Success"}, 400, ": x"),
        ({"code": 418, "message": "tea"}, 418, ": tea"),
    ],
)
async def test_a_refusal_is_always_a_failure(admin: Api, hooks: Site, result: Any, code: int, said: str) -> None:
    hooks.paths["/"] = deny(**result)
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url()))
    refused = await admin.post(MAPS, config_map())
    sep = "" if said.startswith(":") else " "
    assert (refused.status, message(refused)) == (
        code,
        f'admission webhook "x.example.com" denied the request{sep}{said}',
    )
    assert refused.json["status"] == "Failure"


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "replace", "path": "/metadata/name", "value": "other"}],
        [{"op": "remove", "path": "/metadata"}],
        [{"op": "remove", "path": "/data/missing"}],
        [{"op": "replace", "path": "/data", "value": 7}],
        [{"op": "add", "path": "", "value": []}],
    ],
)
async def test_a_patch_that_cannot_be_applied_is_an_error_and_no_other_object(
    admin: Api, hooks: Site, operations: Any
) -> None:
    hooks.paths["/"] = patch(*operations)
    await register(admin, "Mutating", "a", hook("bad.example.com", hooks.url()))
    refused = await admin.post(MAPS, config_map())
    assert refused.status == 500
    assert "bad.example.com" in message(refused)
    assert {m["metadata"]["name"] for m in (await admin.get(MAPS)).json["items"]} <= {"kube-root-ca.crt"}
    assert (await admin.get(f"{MAPS}/m")).status == 404


async def test_failure_policy_decides_what_an_unreachable_webhook_does(admin: Api, hooks: Site) -> None:
    hooks.paths["/broken"] = lambda *_: web.Response(status=500, text="oops")
    await register(admin, "Validating", "v", hook("open.example.com", hooks.url("/broken"), failurePolicy="Ignore"))
    assert (await admin.post(MAPS, config_map("m1"))).status == 201
    await register(admin, "Validating", "w", hook("closed.example.com", hooks.url("/broken"), failurePolicy="Fail"))
    refused = await admin.post(MAPS, config_map("m2"))
    assert refused.status == 500
    assert message(refused).startswith(
        'Internal error occurred: failed calling webhook "closed.example.com": failed to call webhook: '
    )
    assert (await admin.get(f"{MAPS}/m2")).status == 404


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _, review: {}, "webhook response was absent"),
        (
            lambda _, review: reply({"apiVersion": "v1", "request": {"uid": "x"}}, allowed=True),
            "expected response.uid=",
        ),
        (lambda _, review: {**reply(review, allowed=True), "kind": "Else"}, "expected webhook response of"),
        (lambda _, review: web.Response(text="{"), "the answer is no JSON"),
        (
            lambda _, review: reply(review, allowed=True, patch="W10="),
            "validating webhook may not return response.patch",
        ),
        (lambda _, review: web.Response(status=302, headers={"Location": "https://localhost/x"}), "redirect"),
        (lambda _, review: web.Response(body=b" " * (4 << 20)), "the answer is longer than"),
    ],
)
async def test_an_answer_that_is_none_is_a_failure(admin: Api, hooks: Site, answer: Any, said: str) -> None:
    hooks.paths["/"] = answer
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url()))
    refused = await admin.post(MAPS, config_map())
    assert refused.status == 500
    assert said in message(refused)
    assert len(hooks.asked) == 1


async def test_a_slow_webhook_is_waited_for_as_long_as_it_says(admin: Api, hooks: Site) -> None:
    async def slow(_: web.BaseRequest, review: Any) -> Any:
        await asyncio.sleep(5)
        return reply(review, allowed=True)

    hooks.paths["/"] = slow
    began = asyncio.get_running_loop().time()
    await register(admin, "Validating", "v", hook("slow.example.com", hooks.url(), timeoutSeconds=1))
    refused = await admin.post(MAPS, config_map())
    assert refused.status == 500
    assert message(refused).endswith(f'Post "https://localhost:{hooks.port}/?timeout=1s": context deadline exceeded')
    assert asyncio.get_running_loop().time() - began < 3
    await admin.delete(f"{GROUP}/validatingwebhookconfigurations/v")
    assert (await admin.post(MAPS, config_map())).status == 201


@pytest.mark.parametrize("change", [{"caBundle": ""}, {"caBundle": "bm90IGEgY2VydA=="}])
async def test_a_webhook_must_show_a_certificate_of_its_authority(admin: Api, hooks: Site, change: Any) -> None:
    hooks.paths["/"] = allow()
    await register(admin, "Validating", "v", hook("x.example.com", {**hooks.url(), **change}))
    refused = await admin.post(MAPS, config_map())
    assert refused.status == 500
    assert "certificate" in message(refused)
    assert hooks.asked == []


async def test_a_certificate_for_another_name_is_none(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    client = {**hooks.url(), "url": f"https://127.0.0.2:{hooks.port}/"}
    await register(admin, "Validating", "v", hook("x.example.com", client))
    assert (await admin.post(MAPS, config_map())).status == 500
    assert hooks.asked == []


async def test_dry_run_is_only_for_webhooks_without_side_effects(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url(), sideEffects="NoneOnDryRun"))
    assert (await admin.post(MAPS + "?dryRun=All", config_map())).status == 201
    assert hooks.asked[-1][1]["request"]["dryRun"] is True
    assert hooks.asked[-1][1]["request"]["options"]["dryRun"] == ["All"]


async def test_connections_to_a_webhook_are_used_again(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url()))
    for number in range(5):
        assert (await admin.post(MAPS, config_map(f"m{number}"))).status == 201
    assert len(hooks.asked) == 5
    assert len(hooks.connections) == 1


async def test_match_conditions_that_fail_follow_the_failure_policy(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("asked")
    broken = [{"name": "broken", "expression": "object.data.missing == 'x'"}]
    await register(
        admin, "Validating", "i", hook("i.example.com", hooks.url(), matchConditions=broken, failurePolicy="Ignore")
    )
    assert (await admin.post(MAPS, config_map("m1"))).status == 201
    await register(
        admin, "Validating", "f", hook("f.example.com", hooks.url(), matchConditions=broken, failurePolicy="Fail")
    )
    refused = await admin.post(MAPS, config_map("m2"))
    assert refused.status == 403
    assert "resulted in error: no such key: missing" in message(refused)
    assert hooks.asked == []


async def test_bindings_evictions_and_scales_are_asked_about_as_what_they_are(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("stay")
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
            "resources": ["pods/binding", "pods/eviction", "deployments/scale"]}  # fmt: skip
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url(), rules=[rule]))
    pods = "/api/v1/namespaces/default/pods"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}  # fmt: skip
    assert (await admin.post(pods, pod)).status == 201
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "n1"},
    }
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    for path, body, group in ((f"{pods}/p/binding", binding, ""), (f"{pods}/p/eviction", eviction, "policy")):
        assert "denied the request: stay" in message(await admin.post(path, body))
        request = hooks.asked[-1][1]["request"]
        assert (request["operation"], request["kind"]["kind"], request["kind"]["group"]) == (
            "CREATE",
            body["kind"],
            group,
        )
        assert (request["resource"]["resource"], request["subResource"]) == ("pods", path.rpartition("/")[2])
        assert request["object"]["kind"] == body["kind"]
    assert (await admin.get(f"{pods}/p")).json["spec"].get("nodeName") is None
    labels = {"app": "d"}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": pod["spec"]}}}  # fmt: skip
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    assert (await admin.post(deployments, deployment)).status == 201
    assert "stay" in message(await admin.patch(f"{deployments}/d/scale", {"spec": {"replicas": 3}}))
    request = hooks.asked[-1][1]["request"]
    assert (request["operation"], request["kind"]["kind"]) == ("UPDATE", "Scale")
    assert request["object"]["spec"]["replicas"] == 3


async def test_a_deletion_carries_the_warnings_too(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow(warnings=["gone for good"])
    await register(
        admin, "Validating", "v", hook("v.example.com", hooks.url(), rules=[{**RULE, "operations": ["DELETE"]}])
    )
    for name in ("m1", "m2"):
        assert (await admin.post(MAPS, config_map(name))).status == 201
    assert (await admin.delete(f"{MAPS}/m1")).headers["Warning"] == '299 - "gone for good"'
    assert (await admin.delete(MAPS)).headers.getall("Warning") == ['299 - "gone for good"']


async def test_kubectl_shows_what_a_webhook_says(admin: Api, hooks: Site, kubectl: Kubectl) -> None:
    hooks.paths["/"] = deny("not on a Friday", code=403)
    hooks.paths["/warn"] = allow(warnings=["mind the gap"])
    await register(
        admin, "Validating", "v", hook("v.example.com", hooks.url(), objectSelector={"matchLabels": {"a": "b"}})
    )
    await register(admin, "Validating", "w", hook("w.example.com", hooks.url("/warn")))
    labelled = {**config_map(), "metadata": {"name": "m", "namespace": "default", "labels": {"a": "b"}}}
    said = await kubectl.refused("create", "-f", "-", stdin=json.dumps(labelled))
    assert 'admission webhook "v.example.com" denied the request: not on a Friday' in said
    plain = {**config_map(), "metadata": {"name": "m", "namespace": "default"}}
    done = await kubectl.run("create", "-f", "-", stdin=json.dumps(plain))
    assert (done.code, "Warning: mind the gap" in done.err) == (0, True), done


async def test_a_connection_that_ended_meanwhile_costs_no_call(admin: Api, hooks: Site) -> None:
    def once(request: web.BaseRequest, review: Any) -> Any:
        asyncio.get_running_loop().call_later(0.05, request.transport.close)
        return reply(review, allowed=True)

    hooks.paths["/"] = once
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url()))
    for number, pause in enumerate((0.1, 0.0, 0.04, 0.045, 0.05, 0.055, 0.06, 0.0)):
        made = await admin.post(MAPS, config_map(f"m{number}"))
        assert made.status == 201, made.body
        await asyncio.sleep(pause)


async def test_an_eviction_is_asked_about_once(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["pods", "pods/eviction"]}
    pods = "/api/v1/namespaces/default/pods"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
           "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}  # fmt: skip
    assert (await admin.post(pods, pod)).status == 201
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url(), rules=[rule]))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (await admin.post(f"{pods}/p/eviction", eviction)).status == 201
    assert [(r["request"]["operation"], r["request"].get("subResource")) for _, r in hooks.asked] == [
        ("CREATE", "eviction")
    ]
    assert (await admin.get(f"{pods}/p")).status == 404
