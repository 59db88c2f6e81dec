"""Further ServiceCIDRs of a tenant: they become ready, give addresses, and stay while only they have one that is used."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import until
from tests.contract.test_balancers import acme  # noqa: F401 - the tenant with its controllers

CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
SERVICES = "/api/v1/namespaces/default/services"
MORE = "203.0.113.0/24"


async def add_range(api: Api, name: str, *cidrs: str) -> Any:
    return await api.post(CIDRS, {"metadata": {"name": name}, "spec": {"cidrs": cidrs}})


async def add_service(api: Api, name: str, **spec: Any) -> Any:
    return await api.post(SERVICES, {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}})


async def further(api: Api, wanted: list[str] | None) -> bool:
    """Whether the router knows exactly these further ranges."""
    router = (await api.get("/apis/polder.dev/v1alpha1/namespaces/kube-system/routers/default")).json
    return bool(router["spec"].get("furtherServiceCidrs") == wanted)


async def condition(api: Api, name: str, status: str) -> Any:
    """The Ready condition once it has this status."""

    async def told() -> Any:
        conditions = ((await api.get(f"{CIDRS}/{name}")).json.get("status") or {}).get("conditions") or ()
        return next((c for c in conditions if (c["type"], c["status"]) == ("Ready", status)), None)

    return await until(told)


async def test_a_further_range_gives_addresses_and_stays_while_they_are_used(acme: Api) -> None:  # noqa: F811
    assert (await add_service(acme, "early", clusterIP="203.0.113.10")).status == 422
    assert (await add_range(acme, "more", MORE)).status == 201
    await condition(acme, "more", "True")
    await until(lambda: further(acme, [MORE]))
    made = await add_service(acme, "a", clusterIP="203.0.113.10")
    assert made.status == 201, made.body
    for address in ("203.0.113.0", "203.0.113.255"):
        assert "not in the valid range" in (await add_service(acme, "b", clusterIP=address)).json["message"]
    network = {"metadata": {"name": "x"}, "spec": {"cidr": "203.0.113.128/25"}}
    refused = await acme.post("/apis/polder.dev/v1alpha1/namespaces/default/networks", network)
    assert refused.status == 422 and "the tenant's service addresses 203.0.113.0/24" in refused.json["message"]
    gone = await acme.delete(f"{CIDRS}/more")
    assert gone.json["metadata"]["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
    waits = await condition(acme, "more", "False")
    assert waits["reason"] == "Terminating" and "203.0.113.10" in waits["message"]
    refused = await add_service(acme, "b", clusterIP="203.0.113.11")
    assert refused.status == 422 and "not in the valid range" in refused.json["message"]
    assert (await acme.delete(f"{SERVICES}/a")).status == 200

    async def left() -> Any:
        return (await acme.get(f"{CIDRS}/more")).status == 404

    await until(left)
    await until(lambda: further(acme, None))


async def test_a_range_within_another_goes_at_once(acme: Api) -> None:  # noqa: F811
    assert (await add_range(acme, "wide", "203.0.112.0/22")).status == 201
    assert (await add_range(acme, "narrow", MORE)).status == 201
    await condition(acme, "narrow", "True")
    await condition(acme, "wide", "True")
    assert (await add_service(acme, "a", clusterIP="203.0.113.10")).status == 201
    assert (await acme.delete(f"{CIDRS}/narrow")).status == 200

    async def left() -> Any:
        return (await acme.get(f"{CIDRS}/narrow")).status == 404

    await until(left)
    assert (await acme.get(f"{SERVICES}/a")).json["spec"]["clusterIP"] == "203.0.113.10"


async def test_when_the_own_range_is_full_the_next_one_gives(running: Any, admin: Api) -> None:
    small = {"metadata": {"name": "small"}, "spec": {"serviceCidr": "10.96.0.0/29"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", small)).status == 201
    api = admin.at("small")
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "", "message": "",
                              "lastTransitionTime": "2026-01-01T00:00:00Z"}]}  # fmt: skip
    assert (await add_range(api, "more", MORE)).status == 201
    for number in range(5):
        assert (await add_service(api, f"s{number}")).status == 201
    full = await add_service(api, "last")
    assert full.status == 500 and "range is full" in full.json["message"]
    assert (await api.patch(f"{CIDRS}/more/status", {"status": status})).status == 200
    made = await add_service(api, "last")
    assert made.status == 201, made.body
    assert ipaddress.ip_address(made.json["spec"]["clusterIP"]) in ipaddress.ip_network(MORE)


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("100.64.3.0/24", "transit range"), ("127.8.0.0/16", "loopback"), ("224.1.0.0/16", "multicast"),
        ("fd00:77::/112", "IPv6 is not configured"), ("10.1.0.0/24", "must not overlap network kube-system/default"),
        ("203.0.113.0/31", "four addresses"),
    ],
)  # fmt: skip
async def test_ranges_that_are_for_something_else_are_refused(admin: Api, cidr: str, why: str) -> None:
    networks = (await admin.get("/apis/polder.dev/v1alpha1/networks")).json["items"]
    taken = next(n["spec"]["cidr"] for n in networks if n["metadata"]["name"] == "default")
    refused = await add_range(admin, "r", taken if why.startswith("must not overlap network") else cidr)
    assert refused.status == 422 and why in refused.json["message"], refused.body


async def test_a_tenant_has_so_many_ranges(admin: Api) -> None:
    for number in range(31):
        assert (await add_range(admin, f"r{number}", f"203.0.{number}.0/24")).status == 201
    assert (await add_range(admin, "one-more", "203.0.200.0/24")).status == 403


async def add_tenant(admin: Api, name: str, *cidrs: str) -> Api:
    pods = ["10.0.0.0/16", "fd00:10::/64"]
    if ":" in cidrs[0]:
        pods.reverse()
    spec = {"serviceCidrs": list(cidrs), "podCidrs": pods[: len(cidrs)]}
    made = await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": name}, "spec": spec})
    assert made.status == 201, made.body
    return admin.at(name)


async def test_a_dual_stack_tenant_gives_addresses_of_both_families_and_takes_one_back(admin: Api) -> None:
    api = await add_tenant(admin, "both", "10.96.0.0/16", "fd00:96::/112")
    assert (await api.get(f"{CIDRS}/kubernetes")).json["spec"]["cidrs"] == ["10.96.0.0/16", "fd00:96::/112"]
    assert (await add_service(api, "single")).json["spec"]["ipFamilies"] == ["IPv4"]
    made = (await add_service(api, "dual", ipFamilyPolicy="RequireDualStack")).json["spec"]
    assert made["ipFamilies"] == ["IPv4", "IPv6"] and made["clusterIP"] == made["clusterIPs"][0]
    for address, prefix, family in zip(
        made["clusterIPs"], ("10.96.0.0/16", "fd00:96::/112"), ("IPv4", "IPv6"), strict=True
    ):
        assert ipaddress.ip_address(address) in ipaddress.ip_network(prefix)
        claim = (await api.get(f"/apis/networking.k8s.io/v1/ipaddresses/{address}")).json
        assert claim["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == family
    less = await api.patch(f"{SERVICES}/dual", {"spec": {"ipFamilyPolicy": "SingleStack"}})
    assert less.status == 200 and less.json["spec"]["clusterIPs"] == made["clusterIPs"][:1], less.body
    assert (await api.get(f"/apis/networking.k8s.io/v1/ipaddresses/{made['clusterIPs'][1]}")).status == 404
    more = await api.patch(f"{SERVICES}/dual", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
    assert more.status == 200 and len(more.json["spec"]["clusterIPs"]) == 2, more.body
    six = (await add_service(api, "six", ipFamilies=["IPv6"])).json["spec"]
    assert six["clusterIP"].startswith("fd00:96::") and six["ipFamilyPolicy"] == "SingleStack"


async def test_a_tenant_of_ipv6_only_gives_those(admin: Api) -> None:
    api = await add_tenant(admin, "sixes", "fd00:96::/112")
    made = (await add_service(api, "a", ipFamilyPolicy="PreferDualStack")).json["spec"]
    assert made["ipFamilies"] == ["IPv6"] and made["clusterIP"].startswith("fd00:96::"), made
    refused = await add_service(api, "b", ipFamilies=["IPv4"])
    assert refused.status == 422 and "not configured on this cluster" in refused.json["message"]
    own = (await api.get("/api/v1/namespaces/default/services/kubernetes")).json["spec"]
    assert (own["clusterIP"], own["ipFamilies"]) == ("fd00:96::1", ["IPv6"])
    taken = await add_service(api, "c", clusterIP="fd00:96:0::1")
    assert taken.status == 422 and "already allocated" in taken.json["message"], taken.body
