"""The platform's quota of a tenant: exact, over all namespaces, and not the tenant's to change."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from polder.apiserver.quota_recount import Recount, usage_key
from polder.store.protocol import Delete
from tests.contract.conftest import Api
from tests.contract.test_quota import NS, pod, quota

TENANTS = "/apis/polder.dev/v1alpha1/tenants"


async def limited(admin: Api, **hard: str) -> Api:
    made = await admin.post(TENANTS, {"metadata": {"name": "acme"}, "spec": {"quota": {"hard": hard}}})
    assert made.status == 201, made.json
    return admin.at("acme")


async def usage(running: Any) -> dict[str, str]:
    """What the usage's row says; counted anew it must say the same."""
    before = orjson.loads((await running.store.get(usage_key("acme"))).value)["used"]
    await Recount(running.store).tenant("acme")
    after = orjson.loads((await running.store.get(usage_key("acme"))).value)["used"]
    assert before == after
    return before  # type: ignore[no-any-return]


async def test_objects_of_all_namespaces_count(running: Any, admin: Api) -> None:
    api = await limited(admin, namespaces="5", configmaps="12", pods="1")
    found = await usage(running)
    assert found["namespaces"] == "3" and found["pods"] == "0"
    assert (await api.post("/api/v1/namespaces", {"metadata": {"name": "four"}})).status == 201
    assert (await api.post("/api/v1/namespaces", {"metadata": {"name": "five"}})).status == 201
    refused = await api.post("/api/v1/namespaces", {"metadata": {"name": "six"}})
    assert (refused.status, refused.json["message"]) == (
        403,
        'namespaces "six" is forbidden: exceeded quota: tenant acme, requested: namespaces=1, used: namespaces=5, '
        "limited: namespaces=5",
    )
    assert (await api.post(f"{NS}/pods", pod("one"))).status == 201
    assert (await api.post("/api/v1/namespaces/four/pods", pod("two"))).status == 403
    assert (await api.delete(f"{NS}/pods/one")).status == 200
    assert (await api.post("/api/v1/namespaces/four/pods", pod("two"))).status == 201
    await usage(running)


async def test_many_at_once_stay_within_the_number_of_objects_and_their_bytes(running: Any, admin: Api) -> None:
    api = await limited(admin, objects="40", **{"objects.bytes": "90Ki"})
    statuses = await asyncio.gather(
        *(api.post(f"{NS}/configmaps", {"metadata": {"name": f"m{n}"}, "data": {"a": "x" * 3000}}) for n in range(30))
    )
    assert {s.status for s in statuses} == {201, 403}
    found = await usage(running)
    assert int(found["objects"]) <= 40 and found["objects.bytes"].endswith("Ki")
    grown = await api.patch(f"{NS}/configmaps/kube-root-ca.crt", {"data": {"more": "y" * 9000}})
    assert grown.status == 403 and "objects.bytes" in grown.json["message"]
    one = next(n for n, s in enumerate(statuses) if s.status == 201)
    assert (await api.patch(f"{NS}/configmaps/m{one}", {"data": {"a": None}})).status == 200
    assert (await api.delete(f"{NS}/configmaps/m{one}")).status == 200
    await usage(running)


async def test_a_limit_that_comes_later_holds_at_once(running: Any, admin: Api) -> None:
    await admin.post(TENANTS, {"metadata": {"name": "acme"}})
    api = admin.at("acme")
    for number in range(5):
        await api.post(f"{NS}/secrets", {"metadata": {"name": f"s{number}"}})
    patch = {"spec": {"quota": {"hard": {"secrets": "6", "requests.cpu": "1"}}}}
    assert (await admin.patch(f"{TENANTS}/acme", patch)).status == 200
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "six"}})).status == 201
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "seven"}})).status == 403
    assert (await api.post(f"{NS}/pods", pod("p", {"cpu": "2"}))).status == 403
    assert (await usage(running))["secrets"] == "6"
    assert (await admin.patch(f"{TENANTS}/acme", {"spec": {"quota": None}})).status == 200
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "seven"}})).status == 201


async def test_both_quotas_are_charged_and_the_tenant_changes_only_its_own(running: Any, admin: Api) -> None:
    api = await limited(admin, pods="2")
    tenant = await running.tenant_admin("acme")
    assert (await tenant.get(f"{TENANTS}/acme")).status in (403, 404)
    assert (await api.post(f"{NS}/resourcequotas", quota(hard={"pods": "5"}))).status == 201
    for name, status in (("a", 201), ("b", 201), ("c", 403)):
        answer = await tenant.post(f"{NS}/pods", pod(name))
        assert answer.status == status
    assert "exceeded quota: tenant acme" in answer.json["message"]
    assert (await api.get(f"{NS}/resourcequotas/q")).json["status"]["used"] == {"pods": "2"}
    assert (await usage(running))["pods"] == "2"
    unknown = await admin.patch(f"{TENANTS}/acme", {"spec": {"quota": {"hard": {"sheep": "1"}}}})
    assert unknown.status == 422 and "spec.quota.hard[sheep]" in unknown.json["message"], unknown.json


async def test_a_tenant_that_was_written_past_the_server_is_limited_as_soon_as_it_is_counted(
    running: Any, admin: Api
) -> None:
    """A restored one, for example."""
    api = await limited(admin, secrets="1")
    await running.store.commit([Delete(usage_key("acme"))])
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "one"}})).status == 201
    counted = await running.component().post("/tenants/acme/polder/v1/recount", {})
    assert counted.status == 200
    assert await usage(running) == {"secrets": "1"}
    assert (await api.post(f"{NS}/secrets", {"metadata": {"name": "two"}})).status == 403
