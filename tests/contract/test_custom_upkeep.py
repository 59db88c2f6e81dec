"""Custom kinds over time: endings that meet defects, generations, and what the server warns of."""

from __future__ import annotations

from typing import Any

import pytest

from polder.apiserver.crdcleanup import SELF
from polder.apiserver.deletes import Deleter
from tests.contract.customkit import CRDS, GROUP, answers, crd, define, fields, path, version, widget


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
