"""Server-side apply by kinds: custom ones, several versions, large objects."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.contract.test_api_apply import apply, config_map, managers
from tests.contract.test_api_writes import MAPS, made

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def widget_crd() -> Any:
    item = {
        "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "on": {"type": "boolean"}}
    }  # fmt: skip
    part = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "type": "array", "items": item}
    spec = {
        "type": "object",
        "properties": {
            "parts": part,
            "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "whole": {"type": "array", "items": {"type": "string"}},
            "size": {"x-kubernetes-int-or-string": True},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object", "properties": {}}}}
    version = {
        "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }  # fmt: skip
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.test.io"},
        "spec": {"group": "test.io", "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def test_custom_kinds_merge_as_their_schema_says(admin: Any) -> None:
    await made(admin, CRDS, widget_crd())
    path = "/apis/test.io/v1/namespaces/default/gadgets/g"

    def gadget(**spec: Any) -> Any:
        return {"apiVersion": "test.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": spec}

    one = gadget(parts=[{"name": "a", "on": True}], tags=["x"], whole=["1"], size="big", free={"p": {"q": [1]}})
    assert (await apply(admin, path, one)).status == 201
    two = gadget(parts=[{"name": "b"}], tags=["y"], free={"r": 1})
    both = await apply(admin, path, two, "other")
    assert both.json["spec"] == {
        "parts": [{"name": "a", "on": True}, {"name": "b"}],
        "tags": ["x", "y"],
        "whole": ["1"],
        "size": "big",
        "free": {"p": {"q": [1]}, "r": 1},
    }
    assert managers(both.json)["other", "Apply"]["f:spec"] == {
        "f:parts": {'k:{"name":"b"}': {".": {}, "f:name": {}}},
        "f:tags": {'v:"y"': {}},
        "f:free": {"f:r": {}},
    }
    clash = await apply(admin, path, gadget(whole=["2"], size=7), "other")
    fields = [cause["field"] for cause in clash.json["details"]["causes"]]
    assert fields == [".spec.size", ".spec.whole"]
    gone = await apply(admin, path, gadget(tags=["x"]))
    assert gone.json["spec"] == {"parts": [{"name": "b"}], "tags": ["x", "y"], "free": {"r": 1}}
    unknown = await apply(admin, path, gadget(else_=1))
    assert unknown.status == 400 and "field not declared in schema" in unknown.json["message"]


async def test_owners_speak_the_version_in_which_they_wrote(admin: Any) -> None:
    """Two versions of a kind with different fields: what one owner says in the first is no conflict in the second."""
    crd = widget_crd()
    first = crd["spec"]["versions"][0]
    properties = {
        "spec": {"type": "object", "properties": {"tags": {"type": "array", "items": {"type": "string"}}}},
        "extra": {"type": "string"},
    }
    second = {
        **first, "name": "v2", "storage": False, "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}
    }  # fmt: skip
    crd["spec"]["versions"] = [first, second]
    await made(admin, CRDS, crd)
    path = "/apis/test.io/{}/namespaces/default/gadgets/g"
    old = {"apiVersion": "test.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"tags": ["a"]}}
    assert (await apply(admin, path.format("v1"), old, "old")).status == 201
    new = {**old, "apiVersion": "test.io/v2", "spec": {"tags": ["b"]}}
    clash = await apply(admin, path.format("v2"), new, "new")
    assert clash.status == 200, "a set in v1, where b joins a; but a whole in v2"
    assert clash.json["spec"]["tags"] == ["b"]
    entries = {e["manager"]: (e["apiVersion"], e["fieldsV1"]) for e in clash.json["metadata"]["managedFields"]}
    assert entries["new"] == ("test.io/v2", {"f:spec": {"f:tags": {}}})
    assert "old" not in entries, "its only tag is gone"
    again = await apply(admin, path.format("v1"), old, "old")
    assert again.status == 409 and again.json["details"]["causes"][0]["field"] == ".spec.tags"
    crd = (await admin.get(f"{CRDS}/gadgets.test.io")).json
    crd["spec"]["versions"][1]["served"] = False
    assert (await admin.put(f"{CRDS}/gadgets.test.io", crd)).status == 200
    later = await apply(admin, path.format("v1"), old, "old")
    assert later.status == 200 and list(managers(later.json)) == [("old", "Apply")], (
        "owners in a lost version are forgotten"
    )


async def test_built_in_kinds_in_two_versions(admin: Any) -> None:
    """The same target of an autoscaler stands elsewhere in each version."""
    path = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers/h"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    head = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}}
    new = {
        **head,
        "apiVersion": "autoscaling/v2",
        "spec": {"scaleTargetRef": target, "maxReplicas": 5, "metrics": [cpu]},
    }
    assert (await apply(admin, path.format("v2"), new, "new")).status == 201
    old = {**head, "apiVersion": "autoscaling/v1", "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 70}}
    clash = await apply(admin, path.format("v1"), old, "old")
    assert [cause["field"] for cause in clash.json["details"]["causes"]] == [".spec.metrics"]
    forced = await apply(admin, path.format("v1"), old, "old", "&force=true")
    assert forced.status == 200 and forced.json["spec"]["targetCPUUtilizationPercentage"] == 70
    found = (await admin.get(path.format("v2"))).json
    assert found["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 70
    versions = {e["manager"]: e["apiVersion"] for e in found["metadata"]["managedFields"]}
    assert versions == {"new": "autoscaling/v2", "old": "autoscaling/v1"}
    assert "f:metrics" not in managers(found)["new", "Apply"]["f:spec"]


async def test_large_objects_are_applied_beside_the_loop(admin: Any) -> None:
    data = {f"key-{number:05}": "v" for number in range(4000)}
    assert (await apply(admin, f"{MAPS}/x", config_map(**data))).status == 201
    fewer = {key: value for key, value in data.items() if not key.endswith("7")}
    answers = await asyncio.gather(
        apply(admin, f"{MAPS}/x", config_map(**fewer)), *(admin.get(f"{MAPS}/kube-root-ca.crt") for _ in range(20))
    )
    assert {answer.status for answer in answers} == {200}
    assert answers[0].json["data"] == fewer
    clash = await apply(admin, f"{MAPS}/x", config_map(**dict.fromkeys(data, "w")), "other")
    assert clash.status == 409 and len(clash.json["details"]["causes"]) == len(fewer)


async def test_large_custom_objects_too(admin: Any) -> None:
    await made(admin, CRDS, widget_crd())
    path = "/apis/test.io/v1/namespaces/default/gadgets/g"
    parts = [{"name": f"part-{number:04}"} for number in range(1500)]
    config = {"apiVersion": "test.io/v1", "kind": "Gadget", "metadata": {"name": "g"}, "spec": {"parts": parts}}
    assert (await apply(admin, path, config)).status == 201
    config["spec"] = {"parts": parts[:1000]}
    assert (await apply(admin, path, config)).json["spec"]["parts"] == parts[:1000]
