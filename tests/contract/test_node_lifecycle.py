"""Nodes that fall silent, taints that pods must bear, pods that nobody would ever remove, under the whole of the controllers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import Node
from polder.api.meta import ObjectMeta
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.node import NodeController
from polder.controllers.node_zones import Rates
from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from tests.contract.conftest import Api
from tests.contract.controlled import ACME, GLOBEX, CuttableClient, HandClock, add_node, add_tenant, client_of, until

NS = "/api/v1/namespaces/default"
NODES = "/api/v1/nodes"
SETTINGS = ControllerSettings(
    root_ca="CA", recheck=0.1, node_grace=0.8, node_tick=0.1, node_eviction=Rates(normal=100), ended_pods=1,
    ended_pods_period=0.2, missing_node_grace=0.2,
)  # fmt: skip


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    for tenant in (ACME, GLOBEX):
        await add_tenant(found, tenant)
    for name in ("n1", "n2"):
        await add_node(found, name)
    yield found
    await found.close()


@pytest.fixture
async def controllers(client: CuttableClient) -> AsyncIterator[None]:
    part = asyncio.create_task(run_controllers(client, SETTINGS))
    yield
    part.cancel()
    await asyncio.gather(part, return_exceptions=True)


@pytest.fixture
async def beats(admin: Api) -> AsyncIterator[set[str]]:
    """Renews the leases of the nodes that are named here."""
    alive = {"n1", "n2"}
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

    async def work() -> None:
        for name in sorted(alive):
            await admin.post(leases, {"metadata": {"name": name}})
        for number in range(10_000):
            for name in sorted(alive):
                await admin.patch(f"{leases}/{name}", {"spec": {"leaseTransitions": number}})
            await asyncio.sleep(0.1)

    task = asyncio.create_task(work())
    yield alive
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def place(api: Api, name: str, node: str = "n1", **spec: Any) -> str:
    """A pod on a node, which says that it is ready; its UID."""
    body = {"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec}}
    made = await api.post(f"{NS}/pods", body)
    assert made.status == 201, made.json
    said = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await api.patch(f"{NS}/pods/{name}/status", {"status": said})
    return str(made.json["metadata"]["uid"])


async def is_going(api: Api, name: str) -> bool:
    found = await api.get(f"{NS}/pods/{name}")
    return found.status == 404 or "deletionTimestamp" in found.json["metadata"]


def bears(key: str, seconds: float | None = None) -> dict[str, Any]:
    borne = {"key": key, "operator": "Exists", "effect": "NoExecute"}
    return {"tolerations": [{**borne, **({"tolerationSeconds": seconds} if seconds is not None else {})}]}


async def events_with(api: Api, field: str, wanted: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What a field of all events says of whom, once all that is wanted is among it; events come a moment later than that of
    which they tell.
    """
    found = {(e["involvedObject"]["name"], e[field]) for e in (await api.get(f"{NS}/events")).json["items"]}
    return found if wanted <= found else set()


async def test_a_tenant_s_taint_makes_its_own_pods_go_and_nobody_else_s(
    client: CuttableClient, admin: Api, controllers: None, beats: set[str]
) -> None:
    acme, globex = admin.at("acme"), admin.at("globex")
    for api in (acme, globex, admin):
        await place(api, "plain")
    await place(acme, "bearing", **bears("mine"))
    await place(acme, "elsewhere", "n2")
    taint = {"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}}
    assert (await acme.patch(f"{NODES}/n1", taint)).status == 200
    await until(lambda: is_going(acme, "plain"))
    await asyncio.sleep(0.3)
    left = [(globex, "plain"), (admin, "plain"), (acme, "bearing"), (acme, "elsewhere")]
    assert [await is_going(api, name) for api, name in left] == [False] * 4
    await admin.patch(f"{NODES}/n1", {"spec": {"taints": [{"key": "theirs", "effect": "NoExecute"}]}})
    await until(lambda: is_going(globex, "plain"))
    await until(lambda: is_going(admin, "plain"))
    await until(lambda: is_going(acme, "bearing"))
    said = (await globex.get(f"{NS}/pods/plain")).json["status"]["conditions"]
    assert ("DisruptionTarget", "DeletionByTaintManager") in {(c["type"], c.get("reason")) for c in said}

    await until(lambda: events_with(globex, "message", {("plain", "Marking for deletion Pod default/plain")}))


async def test_a_pod_goes_when_its_time_is_over_unless_the_taint_goes_first(
    client: CuttableClient, admin: Api, controllers: None, beats: set[str]
) -> None:
    acme = admin.at("acme")
    await place(acme, "short", **bears("mine", 1))
    await place(acme, "long", **bears("mine", 60))
    await acme.patch(f"{NODES}/n1", {"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}})
    await asyncio.sleep(0.4)
    assert not await is_going(acme, "short")
    await until(lambda: is_going(acme, "short"))
    await place(acme, "late", **bears("mine", 1))
    await asyncio.sleep(0.2)
    await acme.patch(f"{NODES}/n1", {"spec": {"taints": None}})

    cancelled = {(name, f"Cancelling deletion of Pod default/{name}") for name in ("late", "long")}
    await until(lambda: events_with(acme, "message", cancelled))
    await asyncio.sleep(1.2)
    assert not await is_going(acme, "late")


async def test_pods_of_a_silent_node_are_not_ready_and_go_after_their_time(
    client: CuttableClient, admin: Api, controllers: None, beats: set[str]
) -> None:
    acme = admin.at("acme")
    await place(acme, "stays")
    await place(acme, "goes", **bears("node.kubernetes.io/unreachable", 1))
    await asyncio.sleep(0.3)
    beats.discard("n1")

    async def not_ready() -> Any:
        said = (await acme.get(f"{NS}/pods/stays")).json["status"]["conditions"]
        return {"type": "Ready", "status": "False"}.items() <= next(c for c in said if c["type"] == "Ready").items()

    await until(not_ready)
    taints = (await admin.get(f"{NODES}/n1")).json["spec"]["taints"]
    assert {(t["key"], t["effect"]) for t in taints} == {
        ("node.kubernetes.io/unreachable", "NoSchedule"), ("node.kubernetes.io/unreachable", "NoExecute"),
    }  # fmt: skip
    await until(lambda: is_going(acme, "goes"))
    assert not await is_going(acme, "stays")
    registered = {("n1", "RegisteredNode"), ("n2", "RegisteredNode"), ("n1", "NodeNotReady")}
    reasons = await until(lambda: events_with(admin, "reason", registered))
    assert ("n2", "NodeNotReady") not in reasons
    await until(lambda: events_with(acme, "message", {("stays", "Node is not ready")}))
    assert (await acme.get(f"{NS}/pods/goes")).status == 200, (
        "what runs on a node that does not answer is not forgotten"
    )
    out = {"key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute"}
    await admin.patch(f"{NODES}/n1", {"spec": {"taints": [*taints, out]}})

    async def gone() -> Any:
        return (await acme.get(f"{NS}/pods")).json["items"] == []

    await until(gone)
    beats.add("n1")

    async def back() -> Any:
        return (await admin.get(f"{NODES}/n1")).json["spec"].get("taints") == [out]

    await until(back)


async def test_a_node_that_joins_has_a_minute_to_say_how_it_is(client: CuttableClient) -> None:
    clock, ref = HandClock(), Ref(ROOT, "", "new")
    part = NodeController(client, ControllerSettings("CA", clock=clock), lambda _: ())
    await client.create(ROOT, Node(metadata=ObjectMeta(name="new")))
    for seconds in (0, 45):
        clock.ahead = seconds
        await part.reconcile(ref)
        found = await client.get(Node, ref)
        assert (found.spec.taints, found.status.conditions) == (None, None)
    clock.ahead = 61
    await part.reconcile(ref)
    found = await client.get(Node, ref)
    assert [t.key for t in found.spec.taints or ()] == ["node.kubernetes.io/unreachable"]
    assert [(c.status, c.reason) for c in found.status.conditions or ()] == [("Unknown", "NodeStatusNeverUpdated")]


async def test_no_pod_goes_while_every_node_is_silent(
    client: CuttableClient, admin: Api, controllers: None, beats: set[str]
) -> None:
    acme = admin.at("acme")
    await place(acme, "stays", **bears("node.kubernetes.io/unreachable", 0))
    await asyncio.sleep(0.3)
    beats.clear()

    async def dark() -> Any:
        found = (await admin.get(NODES)).json["items"]
        keys = [{(t["key"], t["effect"]) for t in node["spec"].get("taints") or ()} for node in found]
        return all(("node.kubernetes.io/unreachable", "NoSchedule") in found for found in keys)

    await until(dark)
    await asyncio.sleep(0.5)
    # The first of two may have been emptied before the second was known to be silent; then it is not any more.
    taints = [t["effect"] for node in (await admin.get(NODES)).json["items"] for t in node["spec"]["taints"]]
    assert taints == ["NoSchedule", "NoSchedule"]


async def test_records_of_ended_pods_are_bounded_for_each_tenant_and_lost_pods_fail(
    client: CuttableClient, admin: Api, controllers: None, beats: set[str]
) -> None:
    acme, globex = admin.at("acme"), admin.at("globex")
    for api, count in ((acme, 3), (globex, 1)):
        for number in range(count):
            await place(api, f"p{number}")
            await api.patch(f"{NS}/pods/p{number}/status", {"status": {"phase": "Succeeded"}})
    await place(globex, "lost", "n2")
    phases: list[str] = []

    async def bounded() -> Any:
        return len((await acme.get(f"{NS}/pods")).json["items"]) == 1

    async def watch() -> None:
        while True:
            found = await globex.get(f"{NS}/pods/lost")
            phases.append(found.json["status"]["phase"] if found.status == 200 else "")
            await asyncio.sleep(0.002)

    await until(bounded)
    assert len((await globex.get(f"{NS}/pods")).json["items"]) == 2
    watcher = asyncio.create_task(watch())
    beats.discard("n2")
    await admin.delete(f"{NODES}/n2")

    async def gone() -> Any:
        return (await globex.get(f"{NS}/pods/lost")).status == 404

    await until(gone)
    watcher.cancel()
    await asyncio.gather(watcher, return_exceptions=True)
    assert set(phases) <= {"Running", "Failed", ""}


async def test_evictions_are_taken_up_wherever_the_controllers_are_broken_off(
    client: CuttableClient, admin: Api, beats: set[str]
) -> None:
    acme = admin.at("acme")
    kept = await place(acme, "kept", **bears("mine"))
    for name in ("a", "b", "c"):
        await place(acme, name)
    await acme.patch(f"{NODES}/n1", {"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}})
    for at in range(1, 6):
        client.cut(at, after=at % 2 == 0)
        part = asyncio.create_task(run_controllers(client, SETTINGS))
        await asyncio.sleep(0.2)
        part.cancel()
        await asyncio.gather(part, return_exceptions=True)
    client.cut(None)
    part = asyncio.create_task(run_controllers(client, SETTINGS))
    for name in ("a", "b", "c"):
        await until(lambda name=name: is_going(acme, name))  # type: ignore[misc]
    assert (await acme.get(f"{NS}/pods/kept")).json["metadata"]["uid"] == kept
    assert not await is_going(acme, "kept")
    part.cancel()
    await asyncio.gather(part, return_exceptions=True)
