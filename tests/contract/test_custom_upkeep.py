"""Custom kinds over time: endings that meet defects, generations, and what the server warns of."""

from __future__ import annotations

from typing import Any

import pytest

from polder.apiserver.crdadmission import Definitions
from polder.apiserver.crdcleanup import SELF
from polder.apiserver.deletes import Deleter
from tests.contract.customkit import CRDS, GROUP, answers, crd, define, fields, path, redefine, version, widget


def warnings(answer: Any) -> str:
    return " ".join(answer.headers.getall("Warning", []))


async def test_a_definition_ends_although_deleting_failed(admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await define(admin, crd())
    assert (await admin.post(path(), widget("w"))).status == 201
    right, failures = Deleter.remove, 0

    async def failing(self: Deleter, by: Any, *args: Any) -> Any:
        nonlocal failures
        if by.who is SELF and failures < 3:
            failures += 1
            raise RuntimeError("a defect")
        return await right(self, by, *args)

    monkeypatch.setattr(Deleter, "remove", failing)
    await admin.delete(f"{CRDS}/widgets.{GROUP}")
    await answers(admin, f"{CRDS}/widgets.{GROUP}", 404)
    assert failures == 3


@pytest.mark.parametrize("apart", [True, False])
async def test_a_status_that_is_written_with_the_rest_counts(admin: Any, apart: bool) -> None:
    await define(admin, crd(version(**({"subresources": {"status": {}}} if apart else {}))))
    made = (await admin.post(path(), widget("w", {"a": 1}))).json
    assert made["metadata"]["generation"] == 1
    told = (await admin.put(path("w"), {**made, "status": {"seen": True}})).json
    assert told["metadata"]["generation"] == (1 if apart else 2)
    assert ("status" in told) is not apart
    labelled = (await admin.patch(path("w"), {"metadata": {"labels": {"a": "b"}}})).json
    assert labelled["metadata"]["generation"] == told["metadata"]["generation"]


async def test_finalizers_under_common_names_are_warned_of(admin: Any) -> None:
    await define(admin, crd())
    meta = {"finalizers": ["example.com/fine", "mine", "example.com"]}
    made = await admin.post(path(), widget("w", metadata=meta))
    said = warnings(made)
    assert '\\"mine\\": prefer a domain-qualified finalizer name to avoid' in said
    assert '\\"example.com\\": prefer a domain-qualified finalizer name including a path (/)' in said
    assert "example.com/fine" not in said
    again = await admin.patch(path("w"), {"metadata": {"labels": {"a": "b"}}})
    assert "finalizer" not in warnings(again)


async def test_formats_that_nobody_knows_are_warned_of(admin: Any) -> None:
    made = await admin.post(CRDS, crd(version(spec=fields(a={"type": "string", "format": "quite-new"}))))
    assert made.status == 201 and 'unrecognized format \\"quite-new\\"' in warnings(made)
    assert (await admin.post(path(), widget("w", {"a": "anything"}))).status == 201


async def test_conversion_services_have_a_port(admin: Any) -> None:
    service = {"namespace": "default", "name": "converter"}
    webhook = {"clientConfig": {"service": service}, "conversionReviewVersions": ["v1"]}
    made = await define(admin, crd(conversion={"strategy": "Webhook", "webhook": webhook}))
    assert made["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["port"] == 443


async def test_what_was_checked_by_an_older_definition_is_not_written(
    admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write takes its time in admission; meanwhile the definition changes, or ends."""
    await define(admin, crd(version(spec=fields(a={"type": "string"}))))
    assert (await admin.post(path(), widget("old", {"a": "1"}))).status == 201
    right = Definitions.accompany
    meanwhile: list[Any] = []

    async def slow(self: Definitions, context: Any, value: bytes | None) -> None:
        if context.resource.custom is not None and meanwhile:
            await meanwhile.pop()()
        await right(self, context, value)

    def stricter(found: Any) -> None:
        spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"]["a"]["maxLength"] = spec["properties"]["a"].get("maxLength", 9) - 1

    async def change() -> None:
        await redefine(admin, stricter)

    monkeypatch.setattr(Definitions, "accompany", slow)
    for send in (
        lambda: admin.post(path(), widget("new", {"a": "2"})),
        lambda: admin.patch(path("old"), {"spec": {"a": "2"}}),
        lambda: admin.patch(path("old"), {"metadata": {"finalizers": ["example.com/x"]}}),
        lambda: admin.delete(path("old")),
    ):
        meanwhile.append(change)
        refused = await send()
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1"), refused.body
        assert "widgets.tests.example.com has just changed" in refused.json["message"]
        assert (await send()).status in {200, 201}

    await admin.patch(path("old"), {"metadata": {"finalizers": None}})

    async def end() -> None:
        await admin.delete(f"{CRDS}/widgets.{GROUP}")
        await answers(admin, f"{CRDS}/widgets.{GROUP}", 404)

    meanwhile.append(end)
    assert (await admin.post(path(), widget("late"))).status == 429
    assert (await admin.post(path(), widget("late"))).status == 404
    await define(admin, crd())
    assert (await admin.get(path())).json["items"] == []


async def test_what_is_marked_for_deletion_has_its_new_defaults(admin: Any) -> None:
    await define(admin, crd(version(spec=fields(a={"type": "string"}))))
    assert (await admin.post(path(), widget("w", {}, metadata={"finalizers": ["example.com/x"]}))).status == 201

    def with_default(found: Any) -> None:
        spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"]["a"]["default"] = "new"

    await redefine(admin, with_default)
    assert (await admin.delete(path("w"))).status == 200
    found = (await admin.get(path("w"))).json
    assert found["metadata"]["deletionTimestamp"] and found["spec"] == {"a": "new"}
