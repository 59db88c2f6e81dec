"""How definitions show in what the server publishes of itself, in root and in a tenant.

Transcribes test/e2e/apimachinery/{crd_publish_openapi,discovery,field_validation}.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.customkit import CRDS, GROUP, crd, define, fields, path, redefine, version, widget

SPEC = fields(bars={"type": "array", "description": "What it holds.", "items": fields(
    name={"type": "string"}, age={"type": "integer", "minimum": 0})})  # fmt: skip


def named(api_version: str = "v1", kind: str = "Widget") -> str:
    """The name of a kind's schema in the documents."""
    return f"com.example.tests.{api_version}.{kind}"


async def published(api: Api) -> dict[str, Any]:
    found = (await api.get("/openapi/v2")).json
    return dict(found["definitions"])


async def until(api: Api, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The definitions of the document, once they are as they should be."""
    async with asyncio.timeout(10):
        while True:
            found = await published(api)
            if holds(found):
                return found
            await asyncio.sleep(0.05)


async def test_a_schema_is_published_as_it_was_written(either: Api) -> None:
    """With descriptions, with the standard fields beside its own, under the kind's name, in both documents."""
    await define(either, crd(version(spec=SPEC)))
    found = (await until(either, lambda d: named() in d))[named()]
    assert found["properties"]["spec"]["properties"]["bars"]["description"] == "What it holds."
    assert {"apiVersion", "kind", "metadata", "spec", "status"} == set(found["properties"])
    assert found["properties"]["metadata"]["$ref"].endswith("ObjectMeta")
    assert found["x-kubernetes-group-version-kind"] == [{"group": GROUP, "version": "v1", "kind": "Widget"}]
    third = (await either.get(f"/openapi/v3/apis/{GROUP}/v1")).json
    assert third["components"]["schemas"][named()]["properties"]["spec"]["properties"]["bars"]["type"] == "array"


async def test_a_schema_that_says_nothing_is_an_object_of_anything(either: Api) -> None:
    """Nothing of it is published: a client cannot know its fields, and must not refuse them."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    await define(either, crd(version() | {"schema": {"openAPIV3Schema": anything}}))
    found = (await until(either, lambda d: named() in d))[named()]
    assert "properties" not in found and found["type"] == "object"
    made = await either.post(f"{path()}?fieldValidation=Strict", {**widget("one"), "free": {"a": [1]}})
    assert made.status == 201 and made.json["free"] == {"a": [1]}, made.body


async def test_what_is_kept_unknown_inside_is_published_so(either: Api) -> None:
    inner = fields(known={"type": "string"}) | {"x-kubernetes-preserve-unknown-fields": True}
    await define(either, crd(version(spec=inner)))
    found = (await until(either, lambda d: named() in d))[named()]
    assert found["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] is True


@pytest.mark.parametrize("change", ["unserved", "renamed"])
async def test_versions_come_and_go_in_what_is_published(either: Api, change: str) -> None:
    """A version that is served no more, or under another name, is gone; its sister stays as it was."""
    await define(either, crd(version("v1", SPEC), version("v2", SPEC, storage=False)))
    before = await until(either, lambda d: named("v1") in d and named("v2") in d)

    def edit(found: Any) -> None:
        second = found["spec"]["versions"][1]
        second.update({"served": False} if change == "unserved" else {"name": "v3"})

    await redefine(either, edit)
    after = await until(either, lambda d: named("v2") not in d)
    assert after[named("v1")] == before[named("v1")]
    assert (named("v3") in after) is (change == "renamed")
    index = (await either.get("/openapi/v3")).json["paths"]
    assert f"apis/{GROUP}/v2" not in index and f"apis/{GROUP}/v1" in index


async def test_kinds_of_one_version_and_of_several_groups_stand_beside_each_other(either: Api) -> None:
    await define(either, crd())
    await define(either, crd(plural="gadgets", kind="Gadget"))
    other = crd()
    other["spec"]["group"], other["metadata"]["name"] = "other.example.com", "widgets.other.example.com"
    await define(either, other)
    names = {named(), named(kind="Gadget"), "com.example.other.v1.Widget"}
    await until(either, lambda d: names <= set(d))
    assert (await either.delete(f"{CRDS}/gadgets.{GROUP}")).status == 200
    await until(either, lambda d: named(kind="Gadget") not in d and named() in d)


async def test_published_kinds_are_one_tenants(running: Any, admin: Api) -> None:
    """Another tenant's document does not have them."""
    for name in ("acme", "globex"):
        assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}})).status == 201
    acme, globex = await running.tenant_admin("acme"), await running.tenant_admin("globex")
    await define(acme, crd())
    await until(acme, lambda d: named() in d)
    assert named() not in await published(globex) and named() not in await published(admin)


async def test_what_stands_twice_in_a_custom_object_is_named_with_its_line(either: Api) -> None:
    """An apply in YAML whose schema keeps what it does not know: only what stands twice is wrong."""
    keeps = fields(known={"type": "string"}) | {"x-kubernetes-preserve-unknown-fields": True}
    await define(either, crd(version(spec=keeps)))
    lines = [f"apiVersion: {GROUP}/v1", "kind: Widget", "metadata:", "  name: one", "spec:", "  free: x"]
    query = "?fieldManager=m&fieldValidation=Strict"
    good = "\n".join(lines).encode()
    made = await either.call("PATCH", path("one") + query, good, Content_Type="application/apply-patch+yaml")
    assert made.status == 201, made.body
    twice = "\n".join([*lines, "  free: y"]).encode()
    refused = await either.call("PATCH", path("one") + query, twice, Content_Type="application/apply-patch+yaml")
    assert refused.status == 400 and 'line 7: key "free" already set in map' in refused.json["message"], refused.body
