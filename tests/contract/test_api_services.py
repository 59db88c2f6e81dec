"""Services: addresses and ports are given away once, kept while they are held, and given back."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

SERVICES = "/api/v1/namespaces/default/services"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
PORT = {"port": 80, "name": "http"}
RANGE = ipaddress.ip_network("10.97.0.0/16")


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [PORT], **spec}}


async def made(api: Any, name: str, **spec: Any) -> Any:
    found = await api.post(SERVICES, service(name, **spec))
    assert found.status == 201, found.body
    return found.json["spec"]


async def test_an_address_is_claimed_by_an_ip_address_and_given_back(admin: Any) -> None:
    answer = await admin.post(SERVICES, service("a"))
    spec = answer.json["spec"]
    assert ipaddress.ip_address(spec["clusterIP"]) in RANGE
    assert (spec["clusterIPs"], spec["ipFamilies"]) == ([spec["clusterIP"]], ["IPv4"])
    assert (spec["ipFamilyPolicy"], spec["internalTrafficPolicy"]) == ("SingleStack", "Cluster")
    assert "Warning" not in answer.headers
    claim = (await admin.get(f"{ADDRESSES}/{spec['clusterIP']}")).json
    assert claim["spec"]["parentRef"] == {"group": "", "resource": "services", "namespace": "default", "name": "a"}
    assert claim["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
    held = await admin.delete(f"{ADDRESSES}/{spec['clusterIP']}")
    assert held.status == 403 and "Service default/a" in held.json["message"]
    assert (await admin.delete(f"{SERVICES}/a")).status == 200
    assert (await admin.get(f"{ADDRESSES}/{spec['clusterIP']}")).status == 404


async def test_an_address_that_is_asked_for_is_free_and_in_the_range(admin: Any) -> None:
    assert (await made(admin, "a", clusterIP="10.97.0.77"))["clusterIPs"] == ["10.97.0.77"]
    for address, why in (
        ("10.97.0.77", "failed to allocate IP 10.97.0.77: provided IP is already allocated"),
        ("10.98.0.1", "provided IP is not in the valid range. The range of valid IPs is 10.97.0.0/16"),
        ("10.97.0.1", "provided IP is already allocated"),
        ("fd00::1", "IPv6 is not configured on this cluster"),
        ("nonsense", "must be a valid IP address"),
    ):
        refused = await admin.post(SERVICES, service("b", clusterIP=address))
        assert refused.status == 422 and why in refused.json["message"], refused.body
    refused = await admin.post(SERVICES, service("b", ipFamilyPolicy="RequireDualStack"))
    assert "not configured for dual-stack" in refused.json["message"]
    refused = await admin.post(SERVICES, service("b", ipFamilies=["IPv6"]))
    assert "not configured on this cluster" in refused.json["message"]
    assert (await made(admin, "b", ipFamilyPolicy="PreferDualStack"))["ipFamilies"] == ["IPv4"]


async def test_an_address_stays_through_changes_that_do_not_mention_it(admin: Any) -> None:
    address = (await made(admin, "a"))["clusterIP"]
    put = await admin.put(f"{SERVICES}/a", service("a", selector={"x": "y"}))
    assert (put.status, put.json["spec"]["clusterIP"]) == (200, address), put.body
    moved = await admin.patch(f"{SERVICES}/a", {"spec": {"clusterIP": "10.97.3.3", "clusterIPs": ["10.97.3.3"]}})
    assert moved.status == 422 and "may not change once set" in moved.json["message"]
    named = {"type": "ExternalName", "externalName": "example.com"}
    gone = await admin.patch(f"{SERVICES}/a", {"spec": named})
    assert gone.status == 200 and "clusterIP" not in gone.json["spec"], gone.body
    assert (await admin.get(f"{ADDRESSES}/{address}")).status == 404
    back = await admin.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert back.status == 200 and (await admin.get(f"{ADDRESSES}/{back.json['spec']['clusterIP']}")).status == 200


async def test_headless_services_have_no_address(admin: Any) -> None:
    found = await admin.post(SERVICES, service("a", clusterIP="None", selector={"a": "b"}))
    assert found.json["spec"]["clusterIPs"] == ["None"] and "Warning" not in found.headers
    assert (await made(admin, "b", clusterIP="None"))["ipFamilyPolicy"] == "RequireDualStack"


async def test_ports_on_nodes_are_given_once_kept_and_given_back(admin: Any) -> None:
    ports = [PORT, {"port": 443, "name": "https", "nodePort": 30443}]
    spec = await made(admin, "a", type="NodePort", ports=ports)
    first = spec["ports"][0]["nodePort"]
    assert first in range(30000, 32768) and spec["ports"][1]["nodePort"] == 30443
    taken = await admin.post(SERVICES, service("b", type="NodePort", ports=[{**PORT, "nodePort": 30443}]))
    assert taken.status == 422 and "30443: provided port is already allocated" in taken.json["message"]
    outside = await admin.post(SERVICES, service("b", type="NodePort", ports=[{**PORT, "nodePort": 80}]))
    assert "80: provided port is not in the valid range" in outside.json["message"]
    kept = await admin.put(f"{SERVICES}/a", service("a", type="NodePort", ports=[PORT]))
    assert kept.json["spec"]["ports"][0]["nodePort"] == first
    assert (await made(admin, "b", type="NodePort", ports=[{**PORT, "nodePort": 30443}]))["ports"]
    plain = await admin.patch(f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}})
    assert plain.status == 200 and "nodePort" not in plain.json["spec"]["ports"][0], plain.body
    assert "externalTrafficPolicy" not in plain.json["spec"]
    assert (await made(admin, "c", type="NodePort", ports=[{**PORT, "nodePort": first}]))["ports"]


async def test_a_load_balancer_has_a_port_for_its_health(admin: Any) -> None:
    spec = await made(admin, "a", type="LoadBalancer", externalTrafficPolicy="Local")
    assert spec["healthCheckNodePort"] in range(30000, 32768) and spec["allocateLoadBalancerNodePorts"] is True
    changed = await admin.patch(f"{SERVICES}/a", {"spec": {"healthCheckNodePort": 30001}})
    assert changed.status == 422 and "field is immutable" in changed.json["message"]


async def test_two_tcp_and_udp_ports_of_one_number_share_a_port_on_nodes(admin: Any) -> None:
    ports = [{"port": 53, "name": "tcp"}, {"port": 53, "name": "udp", "protocol": "UDP"}]
    found = (await made(admin, "a", type="NodePort", ports=ports))["ports"]
    assert found[0]["nodePort"] == found[1]["nodePort"]


async def test_many_at_once_get_addresses_and_ports_of_their_own(admin: Any) -> None:
    names = [f"s{number}" for number in range(40)]
    specs = await asyncio.gather(*(made(admin, name, type="NodePort") for name in names))
    assert len({spec["clusterIP"] for spec in specs}) == len({spec["ports"][0]["nodePort"] for spec in specs}) == 40


async def test_a_dry_run_claims_nothing(admin: Any) -> None:
    tried = await admin.post(f"{SERVICES}?dryRun=All", service("a", clusterIP="10.97.0.88"))
    assert tried.status == 201
    assert (await admin.get(f"{ADDRESSES}/10.97.0.88")).status == 404


async def test_a_small_range_is_given_away_to_the_last_address_however_many_ask_at_once(admin: Any) -> None:
    tenant = {"metadata": {"name": "small"}, "spec": {"serviceCidr": "10.96.0.0/28"}}
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", tenant)).status == 201
    small = admin.at("small")
    specs = await asyncio.gather(*(made(small, f"s{number}") for number in range(12)))
    assert {spec["clusterIP"] for spec in specs} == {f"10.96.0.{number}" for number in range(2, 15) if number != 10}
    for address, owner in ((1, ("default", "kubernetes")), (10, ("kube-system", "kube-dns"))):
        kept = (await small.get(f"{ADDRESSES}/10.96.0.{address}")).json["spec"]["parentRef"]
        assert (kept["namespace"], kept["name"]) == owner
        assert (await small.delete(f"/api/v1/namespaces/{owner[0]}/services/{owner[1]}")).status == 403
    full = await small.post(SERVICES, service("more"))
    assert (full.status, full.json["message"]) == (
        500, 'Internal error occurred: failed to allocate a serviceIP for Service "more": range is full'
    )  # fmt: skip
    assert (await small.delete(f"{SERVICES}/s3")).status == 200
    assert (await made(small, "more"))["clusterIP"] == specs[3]["clusterIP"]
