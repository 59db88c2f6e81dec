"""Admission webhooks against real TLS servers: who is asked what, what an answer does, and what a bad one costs.

Transcribes the behaviours that upstream's test/e2e/apimachinery/webhook.go checks.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.conftest import Answer, Api, Running
from tests.contract.hooked import Site, site

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as found:
        yield found


def allow(**more: Any) -> Any:
    """An answerer that admits."""

    def answer(_: web.BaseRequest, review: Any) -> Any:
        return reply(review, allowed=True, **more)

    return answer


def deny(message: str = "", **result: Any) -> Any:
    def answer(_: web.BaseRequest, review: Any) -> Any:
        status = {**({"message": message} if message else {}), **result}
        return reply(review, allowed=False, **({"status": status} if status else {}))

    return answer


def patch(*operations: Any) -> Any:
    def answer(_: web.BaseRequest, review: Any) -> Any:
        encoded = base64.b64encode(json.dumps(operations).encode()).decode()
        return reply(review, allowed=True, patchType="JSONPatch", patch=encoded)

    return answer


def reply(review: Any, **response: Any) -> Any:
    return {
        "apiVersion": review["apiVersion"],
        "kind": "AdmissionReview",
        "response": {"uid": review["request"]["uid"], **response},
    }


def add(key: str, value: str) -> Any:
    return {"op": "add", "path": f"/data/{key}", "value": value}


RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}


def hook(name: str, client: Any, **more: Any) -> Any:
    return {
        "name": name,
        "clientConfig": client,
        "rules": [RULE],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 2,
        **more,
    }


async def register(api: Api, kind: str, name: str, *webhooks: Any) -> None:
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": list(webhooks),
    }
    made = await api.post(f"{GROUP}/{kind.lower()}webhookconfigurations", configuration)
    assert made.status == 201, made.body


def config_map(name: str = "m", **more: Any) -> Any:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}, **more}


def message(answer: Answer) -> str:
    return str(answer.json["message"])


async def test_a_validating_webhook_sees_the_request_and_may_refuse_it(admin: Api, hooks: Site) -> None:
    hooks.paths["/check"] = deny("no maps today", code=403, reason="Forbidden")
    await register(admin, "Validating", "v", hook("maps.example.com", hooks.url("/check")))
    refused = await admin.post(MAPS + "?fieldManager=me", config_map())
    assert (refused.status, refused.json["reason"]) == (403, "Forbidden")
    assert message(refused) == 'admission webhook "maps.example.com" denied the request: no maps today'
    [(path, review)] = hooks.asked
    assert path == "/check"
    assert hooks.requests[0].query_string == "timeout=2s"
    request = review["request"]
    assert request["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert request["resource"] == request["requestResource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (request["operation"], request["name"], request["namespace"]) == ("CREATE", "m", "default")
    assert request["object"]["data"] == {"a": "1"}
    assert request["oldObject"] is None
    assert request["dryRun"] is False
    assert request["userInfo"]["username"] == "admin"
    assert request["options"] == {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me"}
    assert (await admin.get(f"{MAPS}/m")).status == 404


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


async def test_mutating_webhooks_run_in_order_of_their_configurations_names(admin: Api, hooks: Site) -> None:
    hooks.paths["/1"] = patch(add("first", "yes"))
    hooks.paths["/2"] = patch(add("second", "yes"))
    await register(admin, "Mutating", "b", hook("two.example.com", hooks.url("/2")))
    await register(admin, "Mutating", "a", hook("one.example.com", hooks.url("/1")))
    made = await admin.post(MAPS, config_map())
    assert made.json["data"] == {"a": "1", "first": "yes", "second": "yes"}
    assert [path for path, _ in hooks.asked] == ["/1", "/2"]
    assert hooks.asked[1][1]["request"]["object"]["data"] == {"a": "1", "first": "yes"}
    assert (await admin.get(f"{MAPS}/m")).json["data"] == made.json["data"]


async def test_a_webhook_is_asked_again_if_another_changed_the_object_and_it_wants_to(admin: Api, hooks: Site) -> None:
    hooks.paths["/1"] = allow()
    hooks.paths["/2"] = patch(add("second", "yes"))
    again = hook("one.example.com", hooks.url("/1"), reinvocationPolicy="IfNeeded")
    never = hook("never.example.com", hooks.url("/1"), reinvocationPolicy="Never")
    await register(admin, "Mutating", "a", again, never)
    await register(admin, "Mutating", "b", hook("two.example.com", hooks.url("/2"), reinvocationPolicy="IfNeeded"))
    assert (await admin.post(MAPS, config_map())).status == 201
    assert [path for path, _ in hooks.asked] == ["/1", "/1", "/2", "/1"]
    assert hooks.asked[3][1]["request"]["object"]["data"]["second"] == "yes"


async def test_what_a_patch_makes_is_defaulted_and_validated(admin: Api, hooks: Site) -> None:
    rule = {**RULE, "resources": ["services"]}
    port = {"op": "add", "path": "/spec/ports/-", "value": {"name": "more", "port": 81}}
    hooks.paths["/"] = patch(port)
    await register(admin, "Mutating", "a", hook("s.example.com", hooks.url(), rules=[rule]))
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
               "spec": {"clusterIP": "None", "ports": [{"name": "one", "port": 80}], "selector": {"a": "b"}}}  # fmt: skip
    made = await admin.post("/api/v1/namespaces/default/services", service)
    assert made.json["spec"]["ports"][1] == {"name": "more", "port": 81, "protocol": "TCP", "targetPort": 81}
    port["value"] = {"name": "Not A Name", "port": 99999}
    refused = await admin.post("/api/v1/namespaces/default/services", {**service, "metadata": {"name": "t"}})
    assert refused.status == 422
    assert "99999" in message(refused)


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


async def test_selectors_choose_by_object_and_namespace(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("marked")
    await register(
        admin, "Validating", "v", hook("o.example.com", hooks.url(), objectSelector={"matchLabels": {"check": "me"}}),
    )  # fmt: skip
    assert (await admin.post(MAPS, config_map("plain"))).status == 201
    marked = config_map("marked")
    marked["metadata"]["labels"] = {"check": "me"}
    assert (await admin.post(MAPS, marked)).status == 400
    relabelled = await admin.patch(f"{MAPS}/plain", {"metadata": {"labels": {"check": "me"}}})
    assert relabelled.status == 400, "the new object has the label"
    await admin.delete(f"{GROUP}/validatingwebhookconfigurations/v")
    selector = {"matchExpressions": [{"key": "guard", "operator": "Exists"}]}
    await register(admin, "Validating", "n", hook("n.example.com", hooks.url(), namespaceSelector=selector))
    for name, labels in (("free", {}), ("guarded", {"guard": "on"})):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        assert (await admin.post("/api/v1/namespaces", space)).status == 201
    assert (await admin.post("/api/v1/namespaces/free/configmaps", config_map())).status == 201
    assert (await admin.post("/api/v1/namespaces/guarded/configmaps", config_map())).status == 400


async def test_deletions_and_status_are_asked_about_where_the_rules_say_so(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("keep")
    rule = {**RULE, "operations": ["DELETE"]}
    await register(admin, "Validating", "v", hook("keep.example.com", hooks.url(), rules=[rule]))
    assert (await admin.post(MAPS, config_map())).status == 201
    refused = await admin.delete(f"{MAPS}/m")
    assert "keep" in message(refused)
    request = hooks.asked[-1][1]["request"]
    assert (request["operation"], request["object"], request["oldObject"]["data"]) == ("DELETE", None, {"a": "1"})
    assert request["options"]["kind"] == "DeleteOptions"
    collection = await admin.delete(MAPS)
    assert collection.status == 400
    assert (await admin.get(f"{MAPS}/m")).status == 200


async def test_dry_run_is_only_for_webhooks_without_side_effects(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url(), sideEffects="NoneOnDryRun"))
    assert (await admin.post(MAPS + "?dryRun=All", config_map())).status == 201
    assert hooks.asked[-1][1]["request"]["dryRun"] is True
    assert hooks.asked[-1][1]["request"]["options"]["dryRun"] == ["All"]


async def test_warnings_reach_the_caller(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow(warnings=["careful", "x" * 1000])
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url()))
    made = await admin.post(MAPS, config_map())
    warnings = made.headers.getall("Warning")
    assert warnings[0] == '299 - "careful"'
    assert len(warnings[1]) < 300


async def test_what_is_registered_is_never_asked_about_itself(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("nothing may change")
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url(), rules=[everything]))
    await register(admin, "Mutating", "m", hook("m.example.com", hooks.url(), rules=[everything]))
    assert (await admin.post(MAPS, config_map())).status == 400
    assert (
        await admin.patch(f"{GROUP}/validatingwebhookconfigurations/v", {"metadata": {"labels": {"a": "b"}}})
    ).status == 200
    assert (await admin.delete(f"{GROUP}/mutatingwebhookconfigurations/m")).status == 200
    assert (await admin.delete(f"{GROUP}/validatingwebhookconfigurations/v")).status == 200
    assert (await admin.post(MAPS, config_map())).status == 201


async def test_an_equivalent_version_is_asked_about_in_the_form_of_the_rule(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = patch({"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}})
    rule = {"apiGroups": ["autoscaling"], "apiVersions": ["v1"], "resources": ["horizontalpodautoscalers"],
            "operations": ["CREATE"]}  # fmt: skip
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
              "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                       "metrics": [{"type": "Resource", "resource": {
                           "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}}  # fmt: skip
    path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
    await register(admin, "Mutating", "e", hook("e.example.com", hooks.url(), rules=[rule], matchPolicy="Exact"))
    assert (await admin.post(path, scaler)).status == 201
    assert hooks.asked == []
    await admin.delete(f"{GROUP}/mutatingwebhookconfigurations/e")
    await register(admin, "Mutating", "f", hook("f.example.com", hooks.url(), rules=[rule]))
    made = await admin.post(path, {**scaler, "metadata": {"name": "i"}})
    request = hooks.asked[-1][1]["request"]
    assert request["kind"]["version"] == request["resource"]["version"] == "v1"
    assert request["requestKind"]["version"] == request["requestResource"]["version"] == "v2"
    assert request["object"]["spec"]["targetCPUUtilizationPercentage"] == 70
    assert made.json["metadata"]["labels"] == {"seen": "yes"}
    assert made.json["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70


async def test_connections_to_a_webhook_are_used_again(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = allow()
    await register(admin, "Validating", "v", hook("x.example.com", hooks.url()))
    for number in range(5):
        assert (await admin.post(MAPS, config_map(f"m{number}"))).status == 201
    assert len(hooks.asked) == 5
    assert len(hooks.connections) == 1


async def test_a_tenants_webhook_is_not_called_from_the_server(running: Running, admin: Api, hooks: Site) -> None:
    """The tenant has no pod on any node, so there is no way to it: the platform's own addresses stay out of reach."""
    hooks.paths["/"] = deny("never asked")
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    acme = await running.tenant_admin("acme")
    await register(acme, "Validating", "v", hook("x.example.com", hooks.url()))
    refused = await acme.post(MAPS, config_map())
    assert refused.status == 500
    assert "no node that runs pods of this tenant is connected" in message(refused)
    assert (await admin.post(MAPS, config_map())).status == 201, "another tenant's webhooks are nobody else's"
    assert hooks.asked == []


async def test_match_conditions_decide_who_is_asked(admin: Api, hooks: Site) -> None:
    """The behaviour of upstream's spec of everything but the skip-me config maps."""
    hooks.paths["/"] = patch(add("mutated", "yes"))
    conditions = [
        {"name": "named", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "asker", "expression": "request.userInfo.username == 'admin'"},
        {"name": "may", "expression": "authorizer.group('').resource('configmaps').check('create').allowed()"},
    ]
    await register(admin, "Mutating", "m", hook("x.example.com", hooks.url(), matchConditions=conditions))
    assert (await admin.post(MAPS, config_map("skip-me"))).json["data"] == {"a": "1"}
    assert (await admin.post(MAPS, config_map("other"))).json["data"] == {"a": "1", "mutated": "yes"}
    assert len(hooks.asked) == 1


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
