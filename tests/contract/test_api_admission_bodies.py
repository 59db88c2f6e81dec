"""Webhooks and policies that change what a subresource's request is about: Scales, Evictions, Bindings."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.hooked import Site, hook, message, patch, register
from tests.contract.test_api_policies import apply_configuration, deployment, json_patch, mutating

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
PODS = "/api/v1/namespaces/default/pods"
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
       "spec": {"containers": [{"name": "c", "image": "toolbox"}]}}  # fmt: skip
BINDING = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}


def rule(*resources: str) -> dict[str, Any]:
    return {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": list(resources)}


async def test_a_webhook_caps_a_scale_and_sees_what_it_was(admin: Api, hooks: Site) -> None:
    assert (await admin.post(DEPLOYMENTS, deployment("d", 1))).status == 201
    hooks.paths["/"] = patch({"op": "replace", "path": "/spec/replicas", "value": 4})
    await register(admin, "Mutating", "a", hook("a.example.com", hooks.url(), rules=[rule("deployments/scale")]))
    scaled = await admin.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 9}})
    assert (scaled.status, scaled.json["spec"]["replicas"]) == (200, 4), scaled.body
    assert (await admin.get(f"{DEPLOYMENTS}/d")).json["spec"]["replicas"] == 4
    request = hooks.asked[0][1]["request"]
    assert (request["object"]["spec"]["replicas"], request["oldObject"]["spec"]["replicas"]) == (9, 1)
    hooks.paths["/"] = patch({"op": "replace", "path": "/spec/replicas", "value": -4})
    assert "cannot be applied" in message(await admin.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 2}}))
    assert (await admin.get(f"{DEPLOYMENTS}/d")).json["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    "mutation",
    [
        apply_configuration("Object{spec: Object.spec{replicas: oldObject.spec.replicas + 1}}"),
        json_patch("[JSONPatch{op: 'replace', path: '/spec/replicas', value: oldObject.spec.replicas + 1}]"),
    ],
)
async def test_a_policy_changes_a_scale(admin: Api, mutation: Any) -> None:
    assert (await admin.post(DEPLOYMENTS, deployment("d", 1))).status == 201
    await mutating(admin, mutation, matchConstraints={"resourceRules": [rule("deployments/scale")]})
    scaled = await admin.patch(f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 9}})
    assert (scaled.status, scaled.json["spec"]["replicas"]) == (200, 2), scaled.body
    assert (await admin.get(f"{DEPLOYMENTS}/d")).json["spec"]["replicas"] == 2


async def test_a_webhook_decides_how_an_eviction_deletes(admin: Api, hooks: Site) -> None:
    assert (await admin.post(PODS, POD)).status == 201
    other = {"preconditions": {"uid": "another"}}
    hooks.paths["/"] = patch({"op": "add", "path": "/deleteOptions", "value": other})
    await register(admin, "Mutating", "a", hook("a.example.com", hooks.url(), rules=[rule("pods/eviction")]))
    refused = await admin.post(f"{PODS}/p/eviction", EVICTION)
    assert refused.status == 409, refused.body
    hooks.paths["/"] = patch({"op": "add", "path": "/deleteOptions", "value": {"dryRun": ["All"]}})
    assert "may not make a dry run" in message(await admin.post(f"{PODS}/p/eviction", EVICTION))
    assert (await admin.get(f"{PODS}/p")).status == 200
    hooks.paths["/"] = patch({"op": "add", "path": "/deleteOptions", "value": {"gracePeriodSeconds": 0}})
    assert (await admin.post(f"{PODS}/p/eviction", EVICTION)).status == 201
    assert (await admin.get(f"{PODS}/p")).status == 404


async def test_a_webhook_annotates_a_binding_and_chooses_no_node(admin: Api, hooks: Site) -> None:
    assert (await admin.post(PODS, POD)).status == 201
    hooks.paths["/"] = patch({"op": "replace", "path": "/target/name", "value": "n2"})
    await register(admin, "Mutating", "a", hook("a.example.com", hooks.url(), rules=[rule("pods/binding")]))
    assert "only who binds a pod chooses its node" in message(await admin.post(f"{PODS}/p/binding", BINDING))
    assert (await admin.get(f"{PODS}/p")).json["spec"].get("nodeName") is None
    hooks.paths["/"] = patch({"op": "add", "path": "/metadata/annotations", "value": {"by": "webhook"}})
    bound = await admin.post(f"{PODS}/p/binding", BINDING)
    assert bound.status == 201, bound.body
    found = (await admin.get(f"{PODS}/p")).json
    assert (found["spec"]["nodeName"], found["metadata"]["annotations"]["by"]) == ("n1", "webhook")
