"""Endpoints and EndpointSlices behind Services, over a running server and the whole of the controllers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contract.conftest import Api
from tests.contract.controlled import controlled, until

NS = "/api/v1/namespaces/default"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.fixture
async def api(running: Any, admin: Api) -> AsyncIterator[Api]:
    async with controlled(running):
        yield admin.at("acme")


async def add_pod(api: Api, name: str, address: str, *, ready: bool = True, port: int = 8080, **labels: str) -> None:
    container = {"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": port}]}
    made = await api.post(f"{NS}/pods", {"metadata": {"name": name, "labels": {"app": "shop", **labels}},
                                         "spec": {"containers": [container]}})  # fmt: skip
    assert made.status == 201, made.json
    await set_ready(api, name, ready, address)


async def set_ready(api: Api, name: str, ready: bool, address: str = "") -> None:
    status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    if address:
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    answer = await api.patch(f"{NS}/pods/{name}/status", {"status": status})
    assert answer.status == 200, answer.json


async def add_service(api: Api, name: str = "shop", **spec: Any) -> Any:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    body = {"metadata": {"name": name, "labels": {"team": "a"}}, "spec": {"ports": ports, **spec}}
    made = await api.post(f"{NS}/services", body)
    assert made.status == 201, made.json
    return made.json


async def slices(api: Api, service: str = "shop") -> list[Any]:
    found = await api.get(f"{SLICES}?labelSelector=kubernetes.io/service-name={service}")
    return found.json["items"]  # type: ignore[no-any-return]


def addresses(found: list[Any], condition: str = "ready") -> set[str]:
    return {a for s in found for e in s["endpoints"] or () if e["conditions"][condition] for a in e["addresses"]}


async def test_endpoints_follow_the_pods_of_a_service(api: Api) -> None:
    service = await add_service(api, selector={"app": "shop"})

    async def empty() -> Any:
        return len(await slices(api)) == 1

    await until(empty)
    await add_pod(api, "one", "10.0.0.1")
    await add_pod(api, "two", "10.0.0.2", ready=False)
    await add_pod(api, "other", "10.0.0.9", app="else")

    async def both() -> Any:
        found = await slices(api)
        return addresses(found) == {"10.0.0.1"} and sum(len(s["endpoints"]) for s in found) == 2

    await until(both)
    (found,) = await slices(api)
    assert found["metadata"]["labels"] == {
        "team": "a", "kubernetes.io/service-name": "shop",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }  # fmt: skip
    assert found["metadata"]["ownerReferences"][0]["uid"] == service["metadata"]["uid"]
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    first = next(e for e in found["endpoints"] if e["addresses"] == ["10.0.0.1"])
    assert first["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert first["targetRef"]["name"] == "one"

    async def older() -> Any:
        answer = await api.get(f"{NS}/endpoints/shop")
        return answer.status == 200 and len(answer.json.get("subsets") or ()) == 1 and answer.json

    ends = await until(older)
    (subset,) = ends["subsets"]
    assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.1"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.2"]
    await set_ready(api, "two", True)

    async def two() -> Any:
        return addresses(await slices(api)) == {"10.0.0.1", "10.0.0.2"}

    await until(two)
    await api.delete(f"{NS}/pods/one")

    async def left() -> Any:
        return addresses(await slices(api)) == {"10.0.0.2"}

    await until(left)
    await api.delete(f"{NS}/services/shop")

    async def none() -> Any:
        return not await slices(api) and (await api.get(f"{NS}/endpoints/shop")).status == 404

    await until(none)


async def test_what_ends_serves_but_is_not_ready_and_who_wants_all_gets_all(api: Api) -> None:
    await add_service(api, "all", selector={"app": "shop"}, publishNotReadyAddresses=True)
    await add_service(api, "some", selector={"app": "shop"})
    await add_pod(api, "starting", "10.0.0.1", ready=False)
    await add_pod(api, "ending", "10.0.0.2")
    bound = {"metadata": {"name": "ending"}, "target": {"kind": "Node", "name": "n"}}
    assert (await api.post(f"{NS}/pods/ending/binding", bound)).status == 201
    assert (await api.delete(f"{NS}/pods/ending")).status == 200

    async def settled() -> Any:
        everything, some = await slices(api, "all"), await slices(api, "some")
        return (
            addresses(everything) == {"10.0.0.1", "10.0.0.2"}
            and addresses(some) == set()
            and addresses(some, "serving") == addresses(some, "terminating") == {"10.0.0.2"}
        )

    await until(settled)


async def test_many_endpoints_take_several_slices_and_ports_by_name_groups(api: Api) -> None:
    from polder.api.core import Pod, PodStatus, Service, ServicePort, ServiceSpec
    from polder.api.meta import ObjectMeta
    from polder.api.podspec import Container, ContainerPort, PodSpec
    from polder.controllers.endpoints_pure import grouped, slice_endpoint, slice_ports
    from polder.controllers.slices import Group, spread

    service = Service(spec=ServiceSpec(ports=[ServicePort(port=80, target_port="web")], selector={"a": "b"}))
    pods = [
        Pod(
            metadata=ObjectMeta(name=f"p{n}", uid=f"u{n}"),
            spec=PodSpec(
                containers=[Container(name="c", ports=[ContainerPort(container_port=80 + n % 2, name="web")])]
            ),
            status=PodStatus(pod_ip=f"10.0.{n // 200}.{n % 200 + 1}"),
        )
        for n in range(500)
    ]
    groups = grouped(service, pods, "IPv4")
    assert sorted(len(b) for b in groups.values()) == [250, 250]
    ports, backends = next(iter(groups.items()))
    group = Group("IPv4", slice_ports(ports), [slice_endpoint(b) for b in backends])
    assert [len(share.endpoints) for share in spread(group, [])] == [100, 100, 50]


async def test_hints_and_zones_follow_service_and_node(api: Api, admin: Api) -> None:
    node = {"metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": "z1"}}}
    assert (await admin.post("/api/v1/nodes", node)).status == 201
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}  # of a silent node no pod stays ready
    assert (await admin.patch("/api/v1/nodes/n/status", ready)).status == 200
    await add_service(api, selector={"app": "shop"}, trafficDistribution="PreferSameNode")
    await add_pod(api, "one", "10.0.0.1")
    bound = {"metadata": {"name": "one"}, "target": {"kind": "Node", "name": "n"}}
    assert (await api.post(f"{NS}/pods/one/binding", bound)).status == 201

    async def hinted(zone: str, hints: Any) -> Any:
        ends = [e for found in await slices(api) for e in found["endpoints"] or ()]
        return [(e.get("zone"), e.get("hints")) for e in ends] == [(zone, hints)]

    await until(lambda: hinted("z1", {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n"}]}))
    await admin.patch("/api/v1/nodes/n", {"metadata": {"labels": {"topology.kubernetes.io/zone": "z2"}}})
    await until(lambda: hinted("z2", {"forZones": [{"name": "z2"}], "forNodes": [{"name": "n"}]}))
    await api.patch(f"{NS}/services/shop", {"spec": {"trafficDistribution": "PreferClose"}})
    await until(lambda: hinted("z2", {"forZones": [{"name": "z2"}]}))
    await api.patch(f"{NS}/services/shop", {"spec": {"trafficDistribution": None}})
    await until(lambda: hinted("z2", None))


async def test_too_many_addresses_to_mirror_are_told_in_an_event(api: Api) -> None:
    await add_service(api, "outside", ports=[{"name": "x", "port": 80}])
    many = [{"ip": f"192.0.{n // 250}.{n % 250 + 1}"} for n in range(1002)]
    body = {"metadata": {"name": "outside"}, "subsets": [{"addresses": many, "ports": [{"name": "x", "port": 80}]}]}
    assert (await api.post(f"{NS}/endpoints", body)).status == 201

    async def told() -> Any:
        events = (await api.get(f"{NS}/events")).json["items"]
        return any(e["reason"] == "TooManyAddressesToMirror" and "2 addresses" in e["message"] for e in events)

    await until(told)

    async def all_but_two() -> Any:
        return [len(s["endpoints"]) for s in await slices(api, "outside")] == [1000]

    await until(all_but_two)


async def test_hand_made_endpoints_are_mirrored(api: Api) -> None:
    await add_service(api, "outside", clusterIP="None", ports=[{"name": "x", "port": 80}])
    subset = {"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
              "ports": [{"name": "x", "port": 8443}]}  # fmt: skip
    meta = {"name": "outside", "labels": {"by": "hand"}, "annotations": {"why": "test"}}
    body = {"metadata": meta, "subsets": [subset]}
    assert (await api.post(f"{NS}/endpoints", body)).status == 201

    async def mirrored() -> Any:
        return addresses(await slices(api, "outside")) == {"192.0.2.1"}

    await until(mirrored)
    (found,) = await slices(api, "outside")
    assert found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == (
        "endpointslicemirroring-controller.k8s.io"
    )
    assert found["metadata"]["labels"]["by"] == "hand" and found["ports"][0]["port"] == 8443
    assert len(found["endpoints"]) == 2 and found["metadata"]["annotations"]["why"] == "test"
    body["subsets"] = [{**subset, "addresses": [{"ip": "192.0.2.3"}]}]
    assert (await api.put(f"{NS}/endpoints/outside", body)).status == 200

    async def changed() -> Any:
        return addresses(await slices(api, "outside")) == {"192.0.2.3"}

    await until(changed)
    assert (await slices(api, "outside"))[0]["metadata"]["name"] == found["metadata"]["name"]
    assert (await api.delete(f"{NS}/endpoints/outside")).status == 200

    async def none() -> Any:
        return not await slices(api, "outside")

    await until(none)
