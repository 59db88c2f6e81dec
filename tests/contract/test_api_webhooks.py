"""Admission webhooks against real TLS servers: who is asked what, and what an answer does.

Transcribes the behaviours that upstream's test/e2e/apimachinery/webhook.go checks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from tests.contract.conftest import Api, Running
from tests.contract.hooked import (
    GROUP,
    MAPS,
    RULE,
    Site,
    add,
    allow,
    config_map,
    deny,
    hook,
    message,
    patch,
    register,
    reply,
)


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


def definition(*versions: str) -> Any:
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"data": {
        "type": "object", "additionalProperties": {"type": "string"}}}}}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crons.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crons", "kind": "Cron"}, "versions": [
            {"name": version, "served": True, "storage": version == versions[-1], "schema": schema}
            for version in versions]},
    }  # fmt: skip


async def test_custom_objects_are_changed_pruned_and_refused(admin: Api, hooks: Site) -> None:
    """The behaviours of upstream's specs of custom resources: mutated, with pruning, with another stored version."""
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await admin.post(definitions, definition("v1", "v2"))).status == 201
    rule = {
        "apiGroups": ["example.com"],
        "apiVersions": ["v2"],
        "resources": ["crons"],
        "operations": ["CREATE", "UPDATE"],
    }
    hooks.paths["/change"] = patch(add("by", "webhook"), {"op": "add", "path": "/unknown", "value": 1})
    hooks.paths["/check"] = lambda _, review: reply(review, allowed="bad" not in review["request"]["object"]["data"])
    await register(admin, "Mutating", "m", hook("m.example.com", hooks.url("/change"), rules=[rule]))
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url("/check"), rules=[rule]))
    path = "/apis/example.com/v1/namespaces/default/crons"
    cron = {"apiVersion": "example.com/v1", "kind": "Cron", "metadata": {"name": "c"}, "data": {"a": "b"}}
    made = await admin.post(path, cron)
    assert made.status == 201, made.body
    assert made.json["apiVersion"] == "example.com/v1"
    assert made.json["data"] == {"a": "b", "by": "webhook"}
    assert "unknown" not in made.json
    request = hooks.asked[0][1]["request"]
    assert (request["resource"]["version"], request["requestResource"]["version"]) == ("v2", "v1")
    assert request["object"]["apiVersion"] == "example.com/v2"
    refused = await admin.patch(f"{path}/c", {"data": {"bad": "yes"}})
    assert (refused.status, message(refused)) == (
        400, 'admission webhook "v.example.com" denied the request without explanation',
    )  # fmt: skip


async def test_definitions_can_be_refused(admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("no definitions")
    rule = {"apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE"],
            "resources": ["customresourcedefinitions"]}  # fmt: skip
    await register(admin, "Validating", "v", hook("crd.example.com", hooks.url(), rules=[rule]))
    refused = await admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition("v1"))
    assert message(refused) == 'admission webhook "crd.example.com" denied the request: no definitions'
    assert (await admin.get("/apis/example.com/v1")).status == 404


async def test_what_keeps_the_platform_going_is_never_asked_about(running: Running, admin: Api, hooks: Site) -> None:
    hooks.paths["/"] = deny("nothing goes")
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url(), rules=[everything]))
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    assert (await admin.post(leases, lease)).status == 400, "control: users' writes are asked about"
    component, node = running.component(), running.node("n1")
    assert (await component.post(leases, lease)).status == 201
    registered = await node.post("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    assert registered.status == 201, registered.body
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}}
    assert (await component.post("/api/v1/namespaces/default/events", event)).status == 201
    before = len(hooks.asked)
    assert (await component.post(MAPS, config_map())).status == 400, "what controllers do for users is asked about"
    assert len(hooks.asked) == before + 1


async def test_a_tenant_that_is_deleted_is_asked_nothing(running: Running, admin: Api) -> None:
    tenant = {
        "apiVersion": "polder.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": "acme", "finalizers": ["x.dev/y"]},
    }
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    acme = await running.tenant_admin("acme")
    assert (await acme.post(MAPS, config_map())).status == 201
    rule = {**RULE, "operations": ["*"]}
    client = {"url": "https://203.0.113.1/"}
    await register(acme, "Validating", "v", hook("v.example.com", client, rules=[rule], timeoutSeconds=30))
    assert (await acme.delete(f"{MAPS}/m")).status == 500, "control: nothing is there that could answer"
    assert (await admin.delete("/apis/polder.dev/v1alpha1/tenants/acme")).status == 200
    assert (await admin.at("acme").delete(f"{MAPS}/m")).status == 200


async def test_polders_own_controllers_wait_but_little_and_not_again(running: Running, hooks: Site, admin: Api) -> None:
    async def slow(_: web.BaseRequest, review: Any) -> Any:
        await asyncio.sleep(30)
        return reply(review, allowed=True)

    hooks.paths["/"] = slow
    await register(admin, "Validating", "v", hook("v.example.com", hooks.url(), timeoutSeconds=30))
    component, clock = running.component(), asyncio.get_running_loop().time
    began = clock()
    assert "deadline" in message(await component.post(MAPS, config_map()))
    first = clock() - began
    assert "too slow for the platform's own writes a moment ago" in message(await component.post(MAPS, config_map()))
    assert (first < 5, clock() - began - first < 1) == (True, True)
