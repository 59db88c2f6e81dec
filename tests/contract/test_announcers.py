"""The node that answers for an outside address: healthy, with the tenant on it, able to serve; another one when it is not."""

from __future__ import annotations

import time
from typing import Any

from tests.contract.conftest import Api
from tests.contract.controlled import until
from tests.contract.test_balancers import POLDER, acme, add_pool, add_service, outside  # noqa: F401 - the fixture

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PORTS = "/apis/polder.dev/v1alpha1/namespaces/kube-system/ports"
NODES = "/api/v1/nodes"


async def add_node(admin: Api, name: str, number: int) -> None:
    assert (await admin.post(NODES, {"metadata": {"name": name}})).status == 201
    await set_ready(admin, name, "True")
    spec = {"network": "kube-system/transit", "node": name, "routerOf": "acme", "addresses": [f"100.64.0.{number}"]}
    made = await admin.post(PORTS, {"metadata": {"name": f"router.{name}"}, "spec": spec})
    assert made.status == 201, made.body


async def set_ready(admin: Api, name: str, status: str) -> None:
    conditions = [{"type": "Ready", "status": status}]
    assert (await admin.patch(f"{NODES}/{name}/status", {"status": {"conditions": conditions}})).status == 200


async def set_endpoints(api: Api, service: str, *nodes: str) -> None:
    ends = [{"addresses": [f"10.0.0.{n + 1}"], "nodeName": node} for n, node in enumerate(nodes)]
    body = {"metadata": {"name": f"{service}-x", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": ends, "ports": [{"port": 80}]}  # fmt: skip
    await api.delete(f"{SLICES}/{service}-x")
    assert (await api.post(SLICES, body)).status == 201


async def placed(admin: Api, name: str, *wanted: str, within: float = 10.0) -> str:
    async def told() -> Any:
        node = (await admin.get(f"{POLDER}/externaladdresses/{name}")).json["status"].get("node", "")
        return [node] if node in wanted else None

    return str((await until(told, within))[0])


async def test_an_address_is_where_it_is_served_and_moves_at_once_when_its_node_fails(acme: Api, admin: Api) -> None:  # noqa: F811
    await add_pool(admin, "ours", "192.0.2.9")
    for number, name in enumerate(("one", "two", "far")):
        await add_node(admin, name, number + 1)
    await add_service(acme, "a")
    assert await outside(acme, "a") == ["192.0.2.9"]
    assert await placed(admin, "192.0.2.9", "one", "two", "far")
    await set_endpoints(acme, "a", "one", "two")
    first = await placed(admin, "192.0.2.9", "one", "two")
    second = "two" if first == "one" else "one"
    began = time.monotonic()
    await set_ready(admin, first, "False")
    await placed(admin, "192.0.2.9", second)
    assert time.monotonic() - began < 1.0
    await set_ready(admin, first, "True")
    await set_endpoints(acme, "a", "one", "two")
    assert await placed(admin, "192.0.2.9", second) == second, "it stays where it is well"


async def test_local_traffic_has_no_other_node_than_one_that_serves(acme: Api, admin: Api) -> None:  # noqa: F811
    await add_pool(admin, "ours", "192.0.2.9")
    await add_node(admin, "one", 1)
    await add_node(admin, "two", 2)
    await add_service(acme, "a", externalTrafficPolicy="Local")
    await outside(acme, "a")

    async def unplaced() -> Any:
        status = (await admin.get(f"{POLDER}/externaladdresses/192.0.2.9")).json["status"]
        return not status.get("node") and [c["reason"] for c in status.get("conditions") or ()] == ["NoNode"]

    await until(unplaced)
    await set_endpoints(acme, "a", "two")
    await placed(admin, "192.0.2.9", "two")
    await set_endpoints(acme, "a", "one")
    await placed(admin, "192.0.2.9", "one")
    assert (await admin.delete(f"{PORTS}/router.one")).status == 200
    await until(unplaced)
