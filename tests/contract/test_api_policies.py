"""Admission policies: expressions that refuse, warn and change, with bindings, params, variables and the authorizer.

Transcribes the behaviours that upstream's e2e tests of validating and mutating admission policies check.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Answer, Api, Running

GROUP = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
MAP_RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}


async def make(api: Api, plural: str, kind: str, name: str, spec: Any) -> Answer:
    body = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return await api.post(f"{GROUP}/{plural}", body)


async def validating(api: Api, *validations: Any, name: str = "p", bind: Any = None, **spec: Any) -> None:
    said = {"matchConstraints": {"resourceRules": [MAP_RULE]}, "validations": list(validations), **spec}
    made = await make(api, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", name, said)
    assert made.status == 201, made.body
    binding = {"policyName": name, "validationActions": ["Deny"], **(bind or {})}
    made = await make(
        api, "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", f"{name}-binding", binding
    )
    assert made.status == 201, made.body


async def mutating(api: Api, *mutations: Any, name: str = "p", bind: Any = None, **spec: Any) -> None:
    said = {
        "matchConstraints": {"resourceRules": [MAP_RULE]}, "mutations": list(mutations),
        "reinvocationPolicy": "Never", **spec,
    }  # fmt: skip
    made = await make(api, "mutatingadmissionpolicies", "MutatingAdmissionPolicy", name, said)
    assert made.status == 201, made.body
    binding = {"policyName": name, **(bind or {})}
    made = await make(
        api, "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", f"{name}-binding", binding
    )
    assert made.status == 201, made.body


def config_map(name: str = "m", labels: Any = None, **data: str) -> Any:
    meta = {"name": name, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def apply_configuration(expression: str) -> Any:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def json_patch(expression: str) -> Any:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


def deployment(name: str, replicas: int, **more: Any) -> Any:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}, **more},
    }  # fmt: skip


async def refused(api: Api, obj: Any, path: str = MAPS) -> str:
    answer = await api.post(path, obj)
    assert answer.status >= 400, answer.body
    return str(answer.json["message"])


# --- validating -------------------------------------------------------------------------------------------------------


async def test_a_policy_refuses_in_upstreams_words(admin: Api) -> None:
    rule = {
        "apiGroups": ["apps"],
        "apiVersions": ["v1"],
        "resources": ["deployments"],
        "operations": ["CREATE", "UPDATE"],
    }
    await validating(
        admin,
        {"expression": "object.spec.replicas > 1",
         "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)"},
        {"expression": "namespaceObject.metadata.name == 'default'", "message": "wrong place", "reason": "Forbidden"},
        matchConstraints={"resourceRules": [rule]},
    )  # fmt: skip
    path = "/apis/apps/v1/namespaces/default/deployments"
    answer = await admin.post(path, deployment("d", 1))
    assert (answer.status, answer.json["reason"]) == (422, "Invalid")
    sentence = "ValidatingAdmissionPolicy 'p' with binding 'p-binding' denied request: wants replicas > 1, got 1"
    assert answer.json["message"] == f'deployments.apps "d" is forbidden: {sentence}'
    assert answer.json["details"]["causes"] == [{"message": sentence}]
    assert (await admin.post(path, deployment("d", 2))).status == 201
    assert (await admin.patch(f"{path}/d", {"spec": {"replicas": 1}})).status == 422
    other = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "o"}}
    assert (await admin.post("/api/v1/namespaces", other)).status == 201
    elsewhere = await admin.post("/apis/apps/v1/namespaces/o/deployments", deployment("d", 2))
    assert (elsewhere.status, elsewhere.json["reason"]) == (403, "Forbidden")
    assert elsewhere.json["message"].endswith("denied request: wrong place")


async def test_without_a_binding_a_policy_does_nothing(admin: Api) -> None:
    await validating(admin, {"expression": "false"})
    assert "failed expression: false" in await refused(admin, config_map())
    await admin.delete(f"{GROUP}/validatingadmissionpolicybindings/p-binding")
    assert (await admin.post(MAPS, config_map())).status == 201


async def test_variables_are_computed_when_they_are_used(admin: Api) -> None:
    await validating(
        admin,
        {"expression": "!has(object.data) || variables.even", "messageExpression": "string(variables.count) + ' is odd'"},
        variables=[
            {"name": "count", "expression": "int(object.data.count)"},
            {"name": "even", "expression": "variables.count % 2 == 0"},
        ],
    )  # fmt: skip
    assert (await admin.post(MAPS, config_map("m0"))).status == 201, "the failing variable is not used"
    assert (await admin.post(MAPS, config_map("m1", count="4"))).status == 201
    assert (await refused(admin, config_map("m2", count="5"))).endswith("denied request: 5 is odd")
    said = await refused(admin, config_map("m3", count="x"))
    assert 'composited variable "even" fails to evaluate' in said


async def test_match_conditions_and_selectors_narrow_a_policy(admin: Api) -> None:
    await validating(
        admin,
        {"expression": "false"},
        matchConditions=[
            {"name": "c", "expression": "request.userInfo.username != 'nobody' && object.metadata.name != 'exempt'"}
        ],
        bind={"matchResources": {"objectSelector": {"matchLabels": {"check": "yes"}}}},
    )  # fmt: skip
    assert (await admin.post(MAPS, config_map("plain"))).status == 201
    assert (await admin.post(MAPS, config_map("exempt", {"check": "yes"}))).status == 201
    assert "failed expression" in await refused(admin, config_map("checked", {"check": "yes"}))


async def test_excluded_resources_and_names(admin: Api) -> None:
    excluded = [{**MAP_RULE, "resourceNames": ["free"]}]
    constraints = {"resourceRules": [MAP_RULE], "excludeResourceRules": excluded}
    await validating(admin, {"expression": "false"}, matchConstraints=constraints)
    assert (await admin.post(MAPS, config_map("free"))).status == 201
    assert await refused(admin, config_map("caught"))


async def test_failure_policy_decides_what_an_error_does(admin: Api) -> None:
    await validating(admin, {"expression": "object.data.missing == 'x'"}, failurePolicy="Ignore")
    assert (await admin.post(MAPS, config_map("m1", a="b"))).status == 201
    await validating(admin, {"expression": "object.data.missing == 'x'"}, name="strict", failurePolicy="Fail")
    said = await refused(admin, config_map("m2", a="b"))
    assert "strict" in said
    assert said.endswith("expression 'object.data.missing == 'x'' resulted in error: no such key: missing")


async def test_warn_and_audit_let_pass(admin: Api) -> None:
    await validating(admin, {"expression": "false", "message": "hm"}, bind={"validationActions": ["Warn", "Audit"]})
    made = await admin.post(MAPS, config_map())
    assert made.status == 201
    assert made.headers["Warning"] == (
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p-binding': hm\""
    )


async def test_params_by_name_and_by_selector(admin: Api) -> None:
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE"]}
    await validating(
        admin,
        {"expression": "object.metadata.name.startsWith(params.data.prefix)", "messageExpression": "'not ' + params.data.prefix"},
        paramKind=kind, matchConstraints={"resourceRules": [rule]},
        bind={"paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"}},
    )  # fmt: skip
    secrets = "/api/v1/namespaces/default/secrets"

    def secret(name: str) -> Any:
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}

    assert "no params found for policy binding with `Deny` parameterNotFoundAction" in await refused(
        admin, secret("a"), secrets
    )
    assert (await admin.post(MAPS, config_map("limits", {"for": "names"}, prefix="good-"))).status == 201
    assert (await refused(admin, secret("bad"), secrets)).endswith("denied request: not good-")
    assert (await admin.post(secrets, secret("good-1"))).status == 201
    binding = f"{GROUP}/validatingadmissionpolicybindings/p-binding"
    by_label = {"selector": {"matchLabels": {"for": "names"}}, "parameterNotFoundAction": "Allow", "name": None}
    assert (await admin.patch(binding, {"spec": {"paramRef": by_label}})).status == 200
    assert (await admin.post(MAPS, config_map("more", {"for": "names"}, prefix="good-2"))).status == 201
    assert (await refused(admin, secret("good-1x"), secrets)).endswith("denied request: not good-2")
    assert (await admin.post(secrets, secret("good-2x"))).status == 201
    for name in ("limits", "more"):
        await admin.delete(f"{MAPS}/{name}")
    assert (await admin.post(secrets, secret("anything"))).status == 201


async def test_a_param_kind_that_is_not_there_is_an_error_of_the_policy(admin: Api) -> None:
    await validating(
        admin, {"expression": "true"}, paramKind={"apiVersion": "example.com/v1", "kind": "Rule"},
        bind={"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}},
    )  # fmt: skip
    said = await refused(admin, config_map())
    assert said.endswith(
        "failed to configure policy: failed to find resource referenced by paramKind: 'example.com/v1, Kind=Rule'"
    )


async def test_old_object_and_operation_are_known(admin: Api) -> None:
    rule = {**MAP_RULE, "operations": ["*"]}
    await validating(
        admin,
        {"expression": "request.operation != 'UPDATE' || object.data.a == oldObject.data.a", "message": "a is immutable"},
        {"expression": "request.operation != 'DELETE' || !has(oldObject.data.keep)", "message": "keep"},
        matchConstraints={"resourceRules": [rule]},
    )  # fmt: skip
    assert (await admin.post(MAPS, config_map("m", a="1", keep="x"))).status == 201
    assert "a is immutable" in (await admin.patch(f"{MAPS}/m", {"data": {"a": "2"}})).json["message"]
    assert "denied request: keep" in (await admin.delete(f"{MAPS}/m")).json["message"]
    assert (await admin.patch(f"{MAPS}/m", {"data": {"keep": None}})).status == 200
    assert (await admin.delete(f"{MAPS}/m")).status == 200


async def test_the_authorizer_is_asked_about_the_user(running: Running, admin: Api) -> None:
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    acme = await running.tenant_admin("acme")
    account = "authorizer.serviceAccount('default', 'default')"
    await validating(
        acme,
        {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"},
        {"expression": "authorizer.requestResource.check('create').allowed()"},
        {"expression": f"!{account}.group('').resource('pods').check('delete').allowed()"},
    )  # fmt: skip
    made = await acme.post(MAPS, config_map())
    assert made.status == 201, made.body


async def test_an_expression_that_costs_too_much_is_stopped(admin: Api) -> None:
    ten, costly = "[0,1,2,3,4,5,6,7,8,9]", "true"
    for depth in range(7):
        costly = f"{ten}.all(x{depth}, {costly})"
    await validating(admin, {"expression": costly})
    said = await refused(admin, config_map())
    assert "cost" in said


async def test_policies_are_never_asked_about_policies(admin: Api) -> None:
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}
    await validating(admin, {"expression": "false"}, matchConstraints={"resourceRules": [everything]})
    assert await refused(admin, config_map())
    assert (await admin.delete(f"{GROUP}/validatingadmissionpolicies/p")).status == 200
    assert (await admin.post(MAPS, config_map())).status == 201


# --- mutating ---------------------------------------------------------------------------------------------------------


async def test_an_apply_configuration_is_merged(admin: Api) -> None:
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"], "operations": ["CREATE"]}
    expression = """Object{
      metadata: Object.metadata{annotations: {"by": "policy", "was": string(object.spec.replicas)}},
      spec: Object.spec{replicas: object.spec.replicas + 1, template: Object.spec.template{spec: Object.spec.template.spec{
        containers: [Object.spec.template.spec.containers{name: "side", image: "proxy"}]}}}}"""
    await mutating(admin, apply_configuration(expression), matchConstraints={"resourceRules": [rule]})
    made = await admin.post("/apis/apps/v1/namespaces/default/deployments", deployment("d", 1))
    assert made.status == 201, made.body
    assert made.json["spec"]["replicas"] == 2
    assert made.json["metadata"]["annotations"]["was"] == "1"
    containers = made.json["spec"]["template"]["spec"]["containers"]
    assert [c["name"] for c in containers] == ["c", "side"]
    assert containers[1]["terminationMessagePath"] == "/dev/termination-log", "what is added is defaulted"


async def test_a_json_patch_is_applied_and_a_failed_test_changes_nothing(admin: Api) -> None:
    expression = """[
      JSONPatch{op: 'test', path: '/data/a', value: '1'},
      JSONPatch{op: 'add', path: '/metadata/annotations', value: {'x': 'y'}},
      JSONPatch{op: 'copy', from: '/data/a', path: '/metadata/annotations/' + jsonpatch.escapeKey('example.com/z~1')}]"""
    await mutating(admin, json_patch(expression))
    made = await admin.post(MAPS, config_map("m1", a="1"))
    assert made.status == 422, "the key is none, and what a patch makes is validated"
    assert "example.com/z~1" in made.json["message"]
    await admin.patch(
        f"{GROUP}/mutatingadmissionpolicies/p",
        {"spec": {"mutations": [json_patch(expression.replace("z~1", "z"))]}},
    )
    made = await admin.post(MAPS, config_map("m1", a="1"))
    assert made.json["metadata"]["annotations"] == {"x": "y", "example.com/z": "1"}
    assert "annotations" not in (await admin.post(MAPS, config_map("m2", a="2"))).json["metadata"]


async def test_mutations_see_each_other_and_policies_run_by_name(admin: Api) -> None:
    first = json_patch("[JSONPatch{op: 'add', path: '/data/one', value: '1'}]")
    second = apply_configuration("Object{data: Object.data{two: object.data.one + '2'}}")
    await mutating(admin, first, second, name="a")
    await mutating(admin, apply_configuration("Object{data: Object.data{three: object.data.two + '3'}}"), name="b")
    made = await admin.post(MAPS, config_map(z="z"))
    assert made.status == 201, made.body
    assert made.json["data"] == {"z": "z", "one": "1", "two": "12", "three": "123"}


async def test_a_policy_runs_again_where_a_later_one_changed_the_object(admin: Api) -> None:
    count = "string(has(object.data.a) ? int(object.data.a) + 1 : 1)"
    await mutating(
        admin,
        apply_configuration(f"Object{{data: Object.data{{a: {count}}}}}"),
        name="a",
        reinvocationPolicy="IfNeeded",
    )
    await mutating(
        admin, apply_configuration("Object{data: Object.data{b: 'x'}}"), name="b", reinvocationPolicy="Never"
    )
    made = await admin.post(MAPS, config_map(z="z"))
    assert made.json["data"] == {"z": "z", "a": "2", "b": "x"}


@pytest.mark.parametrize(
    ("mutation", "said"),
    [
        (apply_configuration("Object{metadata: Object.metadata{name: 'other'}}"), "may not change"),
        (json_patch("[JSONPatch{op: 'remove', path: '/data/missing'}]"), "JSON Patch: "),
        (apply_configuration("Object{nonsense: 1}"), "field not declared in schema"),
        (apply_configuration("Object{data: Object.wrong{a: 'b'}}"), "type mismatch: unexpected type name"),
        (apply_configuration("Object{metadata: Object.metadata{labels: {'a': object.data.missing}}}"), "no such key: missing"),
    ],
)  # fmt: skip
async def test_a_mutation_that_cannot_be_made_refuses_unless_it_may_fail(admin: Api, mutation: Any, said: str) -> None:
    await mutating(admin, mutation)
    message = await refused(admin, config_map(z="z"))
    assert message.startswith("policy 'p' with binding 'p-binding' denied request: ")
    assert said in message
    assert (
        await admin.patch(f"{GROUP}/mutatingadmissionpolicies/p", {"spec": {"failurePolicy": "Ignore"}})
    ).status == 200
    made = await admin.post(MAPS, config_map(z="z"))
    assert made.json["data"] == {"z": "z"}


async def test_custom_objects_are_mutated_and_checked(admin: Api) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crons.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crons", "kind": "Cron"}, "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer"}, "tag": {"type": "string"}}}}}}}]},
    }  # fmt: skip
    assert (await admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)).status == 201
    rule = {"apiGroups": ["example.com"], "apiVersions": ["*"], "resources": ["crons"], "operations": ["*"]}
    constraints = {"resourceRules": [rule]}
    await mutating(admin, apply_configuration("Object{spec: Object.spec{tag: 'set'}}"), matchConstraints=constraints)
    await validating(admin, {"expression": "object.spec.size < 10"}, name="v", matchConstraints=constraints)
    path = "/apis/example.com/v1/namespaces/default/crons"
    cron = {"apiVersion": "example.com/v1", "kind": "Cron", "metadata": {"name": "c"}, "spec": {"size": 3}}
    made = await admin.post(path, cron)
    assert made.status == 201, made.body
    assert made.json["spec"] == {"size": 3, "tag": "set"}
    assert "failed expression: object.spec.size < 10" in await refused(
        admin, {**cron, "metadata": {"name": "d"}, "spec": {"size": 30}}, path
    )


async def test_an_expression_that_does_not_compile_is_told_when_it_is_written(admin: Api) -> None:
    spec = {
        "matchConstraints": {"resourceRules": [MAP_RULE]},
        "matchConditions": [{"name": "c", "expression": "request.nonsense"}],
        "variables": [{"name": "v", "expression": "1 +"}],
        "validations": [{"expression": "object.x > 'a' &&", "messageExpression": "1"}, {"expression": "'text'"}],
        "auditAnnotations": [{"key": "k", "valueExpression": "nobody"}],
    }
    answer = await make(admin, "validatingadmissionpolicies", "ValidatingAdmissionPolicy", "p", spec)
    assert answer.status == 422
    causes = {cause["field"]: cause["message"] for cause in answer.json["details"]["causes"]}
    assert causes.keys() == {
        "spec.matchConditions[0].expression", "spec.variables[0].expression", "spec.validations[0].expression",
        "spec.validations[0].messageExpression", "spec.validations[1].expression",
        "spec.auditAnnotations[0].valueExpression",
    }  # fmt: skip
    assert all("compilation failed: " in message for message in causes.values())
    assert causes["spec.validations[1].expression"].endswith("must evaluate to bool")
    hook = {
        "name": "x.example.com", "clientConfig": {"url": "https://localhost/"}, "rules": [MAP_RULE],
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "bad", "expression": "... [] bad expression"}],
    }  # fmt: skip
    for kind in ("Validating", "Mutating"):
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": "x"}, "webhooks": [hook],
        }  # fmt: skip
        answer = await admin.post(f"{GROUP}/{kind.lower()}webhookconfigurations", configuration)
        assert answer.status == 422
        assert "webhooks[0].matchConditions[0].expression: Invalid value" in answer.json["message"]
        assert "compilation failed" in answer.json["message"]
