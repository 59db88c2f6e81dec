"""The APIServices of custom group versions: there while a definition serves them, put right, and never somebody else's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.customkit import CRDS, GROUP, crd, define

SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"v1.{GROUP}"
MARK = "kube-aggregator.kubernetes.io/automanaged"


async def until(api: Any, name: str, *, there: bool) -> Any:
    for _ in range(100):
        found = await api.get(f"{SERVICES}/{name}")
        if (found.status == 200) is there:
            return found.json
        await asyncio.sleep(0.05)
    pytest.fail(f"{name} should be {'there' if there else 'gone'}")


async def test_a_group_version_has_an_api_service(either: Any, admin: Any) -> None:
    api = either
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "other"}})).status == 201
    await define(api, crd())
    await define(api, crd(plural="gadgets", kind="Gadget"))
    found = await until(api, NAME, there=True)
    spec = {"group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}
    assert found["spec"] == spec and found["metadata"]["labels"] == {MARK: "true"}
    condition = found["status"]["conditions"][0]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Available", "True", "Local")
    assert (await admin.at("other").get(f"{SERVICES}/{NAME}")).status == 404
    # it comes back, and comes right
    await api.delete(f"{SERVICES}/{NAME}")
    again = await until(api, NAME, there=True)
    assert again["metadata"]["uid"] != found["metadata"]["uid"]
    await api.patch(f"{SERVICES}/{NAME}", {"spec": {"versionPriority": 7}})
    for _ in range(100):
        if (await api.get(f"{SERVICES}/{NAME}")).json["spec"] == spec:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("it stays wrong")
    await api.delete(f"{CRDS}/widgets.{GROUP}")
    await asyncio.sleep(0.3)
    await until(api, NAME, there=True)  # the other definition has it too
    await api.delete(f"{CRDS}/gadgets.{GROUP}")
    await until(api, NAME, there=False)


async def test_what_somebody_else_wrote_stays(admin: Any) -> None:
    own = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": NAME},
        "spec": {"group": GROUP, "version": "v1", "groupPriorityMinimum": 5, "versionPriority": 5},
    }
    assert (await admin.post(SERVICES, own)).status == 201
    await define(admin, crd())
    await asyncio.sleep(0.3)
    await admin.delete(f"{CRDS}/widgets.{GROUP}")
    await asyncio.sleep(0.3)
    left = (await admin.get(f"{SERVICES}/{NAME}")).json
    assert left["spec"] == own["spec"] and "labels" not in left["metadata"]
