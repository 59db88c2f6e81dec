"""Load balancers get addresses on the outside from the pools that are open to their tenant, and give them back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import controlled, until

SERVICES = "/api/v1/namespaces/default/services"
POLDER = "/apis/polder.dev/v1alpha1"


@pytest.fixture
async def acme(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running):
        yield admin.at("acme")


async def add_pool(admin: Api, name: str, *addresses: str, tenants: list[str] | None = None, **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"addresses": addresses, "tenants": tenants or ["acme"], **spec}}
    made = await admin.post(f"{POLDER}/addresspools", body)
    assert made.status == 201, made.body


async def add_service(api: Api, name: str, annotations: dict[str, str] | None = None, **spec: Any) -> None:
    body = {"metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}}  # fmt: skip
    made = await api.post(SERVICES, body)
    assert made.status == 201, made.body


async def outside(api: Api, name: str, count: int = 1) -> list[str]:
    """The addresses of a load balancer, once it has so many."""

    async def told() -> Any:
        found = ((await api.get(f"{SERVICES}/{name}")).json["status"]["loadBalancer"]).get("ingress") or []
        assert all(point["ipMode"] == "VIP" for point in found)
        return [[point["ip"] for point in found]] if len(found) == count else None

    return (await until(told))[0]  # type: ignore[no-any-return]


async def assigned(api: Api, name: str, reason: str) -> str:
    """What the condition says, once it gives this reason."""

    async def told() -> Any:
        conditions = (await api.get(f"{SERVICES}/{name}")).json["status"].get("conditions") or ()
        return next((c["message"] for c in conditions if (c["type"], c["reason"]) == (
            "polder.dev/AddressAssigned", reason)), "")  # fmt: skip

    return str(await until(told))


async def claims(admin: Api) -> dict[str, str]:
    found = (await admin.get(f"{POLDER}/externaladdresses")).json["items"]
    return {claim["spec"]["address"]: claim["spec"]["service"] for claim in found}


async def test_an_address_comes_from_the_tenants_pool_and_goes_with_the_service(acme: Api, admin: Api) -> None:
    await add_pool(admin, "foreign", "198.51.100.0/24", tenants=["globex"])
    await add_pool(admin, "ours", "192.0.2.0/30")
    await add_service(acme, "a")
    (address,) = await outside(acme, "a")
    assert address in ("192.0.2.1", "192.0.2.2")
    assert await claims(admin) == {address: "default/a"}
    conditions = (await acme.get(f"{SERVICES}/a")).json["status"]["conditions"]
    assert {c["type"]: (c["status"], c["reason"]) for c in conditions} == {
        "polder.dev/AddressAssigned": ("True", "Assigned"),
        "polder.dev/AddressAnnounced": ("False", "NoNode"),
    }

    async def counted(number: int) -> Any:
        status = (await admin.get(f"{POLDER}/addresspools/ours")).json.get("status")
        return status == {"capacity": "2", "allocated": number}

    await until(lambda: counted(1))
    assert (await acme.delete(f"{SERVICES}/a")).status == 200
    await until(lambda: counted(0))
    assert await claims(admin) == {}


async def test_a_full_pool_is_told_and_whoever_waits_gets_what_becomes_free(acme: Api, admin: Api) -> None:
    await add_pool(admin, "small", "192.0.2.9")
    await add_service(acme, "a")
    assert await outside(acme, "a") == ["192.0.2.9"]
    await add_service(acme, "b")
    assert await assigned(acme, "b", "PoolExhausted") == "no IPv4 address is free in small"

    async def told() -> Any:
        events = (await acme.get("/api/v1/namespaces/default/events")).json["items"]
        return [e for e in events if (e["reason"], e["involvedObject"]["name"], e["type"]) == (
            "PoolExhausted", "b", "Warning")]  # fmt: skip

    assert await until(told)
    changed = await acme.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})
    assert changed.status == 200 and not changed.json["status"]["loadBalancer"]
    assert await outside(acme, "b") == ["192.0.2.9"]


async def test_without_a_pool_nothing_is_given_and_nothing_is_named(acme: Api, admin: Api) -> None:
    await add_pool(admin, "foreign", "198.51.100.0/24", tenants=["globex"])
    await add_service(acme, "a")
    await add_service(acme, "b", {"polder.dev/address-pool": "foreign"})
    await add_service(acme, "c", loadBalancerIP="198.51.100.7")
    await add_service(acme, "elsewhere", loadBalancerClass="example.com/other")
    for name in "abc":
        assert "globex" not in await assigned(acme, name, "NoPool")
    assert "conditions" not in (await acme.get(f"{SERVICES}/elsewhere")).json["status"]
    await add_pool(admin, "late", "192.0.2.0/28", tenants=["*"])
    assert await outside(acme, "a")
    assert await claims(admin) and len(await claims(admin)) == 1


async def test_pool_address_class_and_share_are_heeded(acme: Api, admin: Api) -> None:
    await add_pool(admin, "shy", "192.0.2.64/28", autoAssign=False)
    await add_pool(admin, "classy", "192.0.2.128/28", loadBalancerClass="example.com/gold")
    await add_pool(admin, "open", "192.0.2.16-192.0.2.17", perTenant=1)
    await add_service(acme, "asked", loadBalancerIP="192.0.2.70")
    assert await outside(acme, "asked") == ["192.0.2.70"]
    await add_service(acme, "named", {"polder.dev/address-pool": "shy"})
    await add_service(acme, "gold", loadBalancerClass="example.com/gold")
    await add_service(acme, "plain")
    assert 64 < int((await outside(acme, "named"))[0].rpartition(".")[2]) < 79
    assert int((await outside(acme, "gold"))[0].rpartition(".")[2]) > 128
    assert (await outside(acme, "plain"))[0] in ("192.0.2.16", "192.0.2.17")
    await add_service(acme, "more")
    assert "the tenant has the 1 addresses" in await assigned(acme, "more", "TooManyAddresses")
    await add_service(acme, "late", {"polder.dev/load-balancer-ips": "192.0.2.70"})
    assert await assigned(acme, "late", "AddressTaken") == "192.0.2.70 is given to another Service"
    await add_service(acme, "odd", {"polder.dev/load-balancer-ips": "nonsense"})
    assert await assigned(acme, "odd", "InvalidAddress") == "nonsense is no IP address"


async def test_what_a_tenant_writes_into_the_status_does_not_stay(acme: Api, admin: Api) -> None:
    await add_pool(admin, "ours", "192.0.2.9")
    await add_service(acme, "a")
    assert await outside(acme, "a") == ["192.0.2.9"]
    stolen = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1", "ipMode": "VIP"}]}}}
    assert (await acme.patch(f"{SERVICES}/a/status", stolen)).status == 200

    async def back() -> Any:
        found = (await acme.get(f"{SERVICES}/a")).json["status"]["loadBalancer"]["ingress"]
        return [point["ip"] for point in found] == ["192.0.2.9"]

    await until(back)


async def test_a_pool_stays_while_something_of_it_is_given(acme: Api, admin: Api) -> None:
    await add_pool(admin, "ours", "192.0.2.9")
    await add_service(acme, "a")
    await outside(acme, "a")

    async def held() -> Any:
        return (await admin.get(f"{POLDER}/addresspools/ours")).json["metadata"].get("finalizers")

    await until(held)
    assert (await admin.delete(f"{POLDER}/addresspools/ours")).json["metadata"]["deletionTimestamp"]
    await add_service(acme, "b")
    assert await assigned(acme, "b", "NoPool")
    await acme.delete(f"{SERVICES}/a")

    async def gone() -> Any:
        return (await admin.get(f"{POLDER}/addresspools/ours")).status == 404

    await until(gone)


async def test_tenants_see_no_pools_and_no_claims(running: Any, acme: Api, admin: Api) -> None:
    await add_pool(admin, "ours", "192.0.2.9")
    own = await running.tenant_admin("acme")
    for plural in ("addresspools", "externaladdresses"):
        assert (await own.get(f"{POLDER}/{plural}")).status == 404
        assert (await own.get(f"/tenants/root{POLDER}/{plural}")).status == 403


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"addresses": [], "tenants": ["*"]}, "at least one prefix"),
        ({"addresses": ["192.0.2.0/28"]}, "the tenants that may have"),
        ({"addresses": ["192.0.2.9-192.0.2.1"], "tenants": ["*"]}, "from a lower to a higher"),
        ({"addresses": ["192.0.2.0/28", "192.0.2.5"], "tenants": ["*"]}, "overlaps another entry"),
        ({"addresses": ["100.64.0.0/24"], "tenants": ["*"]}, "transit addresses"),
        ({"addresses": ["127.0.0.1"], "tenants": ["*"]}, "loopback addresses"),
        ({"addresses": ["x"], "tenants": ["*"]}, "must be a prefix"),
        ({"addresses": ["192.0.2.1"], "tenants": ["*"], "perTenant": -1}, "must be 0"),
    ],
)
async def test_pools_that_mean_nothing_are_refused(admin: Api, spec: Any, why: str) -> None:
    refused = await admin.post(f"{POLDER}/addresspools", {"metadata": {"name": "p"}, "spec": spec})
    assert refused.status == 422 and why in refused.json["message"], refused.body


async def test_an_address_that_a_service_names_and_does_not_get_is_said(acme: Api) -> None:
    addresses = ["192.0.2.77", "10.96.0.1"]
    body = {"metadata": {"name": "named"}, "spec": {"ports": [{"port": 80}], "externalIPs": addresses}}
    assert (await acme.post(SERVICES, body)).status == 201

    async def told() -> Any:
        conditions = (await acme.get(f"{SERVICES}/named")).json["status"].get("conditions") or ()
        return next((c for c in conditions if c["type"] == "polder.dev/ExternalIPsServed"), None)

    said = await until(told)
    assert (said["status"], said["reason"]) == ("False", "ExternalIPExcluded")
    assert "10.96.0.1" in said["message"] and "192.0.2.77" not in said["message"]
