"""Type checking of validating policies: told in their status, for built-in and custom kinds."""

from __future__ import annotations

from typing import Any

from tests.contract.conftest import Api

PATH = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
DEPLOYMENTS = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}


def policy(*validations: Any, rule: Any = None, **spec: Any) -> Any:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {"matchConstraints": {"resourceRules": [rule or DEPLOYMENTS]}, "validations": list(validations), **spec},
    }  # fmt: skip


async def test_expressions_that_cannot_be_are_warned_of(admin: Api) -> None:
    good = {"expression": "object.spec.replicas > 1", "messageExpression": "'got ' + string(object.spec.replicas)"}
    made = await admin.post(PATH, policy(good))
    assert made.status == 201, made.body
    assert made.json["status"] == {"observedGeneration": 1, "typeChecking": {}}
    bad = {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"}
    changed = await admin.patch(
        f"{PATH}/p", {"spec": {"validations": [bad, {"expression": "object.spec.nothing == 1"}]}}
    )
    assert changed.status == 200, changed.body
    status = (await admin.get(f"{PATH}/p")).json["status"]
    assert status["observedGeneration"] == 2
    first, second, third = status["typeChecking"]["expressionWarnings"]
    assert first["fieldRef"] == "spec.validations[0].expression"
    assert first["warning"].startswith("apps/v1, Kind=Deployment: ERROR: ")
    assert "found no matching overload for '_>_' applied to '(int, string)'" in first["warning"]
    assert second["fieldRef"] == "spec.validations[0].messageExpression"
    assert "found no matching overload for '_+_' applied to '(string, int)'" in second["warning"]
    assert "undefined field 'nothing'" in third["warning"]


async def test_custom_kinds_params_and_variables_are_known(admin: Api) -> None:
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crons.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "crons", "kind": "Cron"}, "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {
                    "size": {"type": "integer"}}}}}}}]},
    }  # fmt: skip
    assert (await admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)).status == 201
    rule = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["crons"]}
    body = policy(
        {"expression": "variables.size < 10 && params.data.limit == 'x'"}, {"expression": "params.data.limit > 3"},
        {"expression": "variables.size == 'a'"}, rule=rule, paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        variables=[{"name": "size", "expression": "object.spec.size"}],
    )  # fmt: skip
    made = await admin.post(PATH, body)
    assert made.status == 201, made.body
    warnings = made.json["status"]["typeChecking"]["expressionWarnings"]
    assert [w["fieldRef"] for w in warnings] == ["spec.validations[1].expression", "spec.validations[2].expression"]
    assert all(w["warning"].startswith("example.com/v1, Kind=Cron: ") for w in warnings)


async def test_wildcards_and_unknown_kinds_are_not_looked_at(admin: Api) -> None:
    for number, rule in enumerate(({**DEPLOYMENTS, "apiGroups": ["*"]}, {**DEPLOYMENTS, "resources": ["unknown"]})):
        body = policy({"expression": "object.nonsense > 1"}, rule=rule)
        body["metadata"]["name"] = f"p{number}"
        assert (await admin.post(PATH, body)).json["status"]["typeChecking"] == {}
