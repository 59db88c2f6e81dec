"""The scheduler on a real server: fairness, lost and disturbed bindings, changes that let pods fit; events and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import Event, Node, Pod
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta
from polder.base.clock import SystemClock
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.client.client import Client
from polder.client.errors import UnreachableError
from polder.client.events import BURST, Recorder
from polder.controllers.event_expiry import EventExpiry
from polder.controllers.settings import ControllerSettings
from polder.scheduler.run import run_scheduler
from polder.scheduler.settings import SchedulerSettings
from tests.contract.controlled import (
    ACME,
    GLOBEX,
    CuttableClient,
    HandClock,
    add_node,
    add_tenant,
    client_of,
    pod,
    until,
)


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    yield found
    await found.close()


class running_scheduler:  # noqa: N801  reads as a verb
    """``async with``: a scheduler with few requests at a time, so that turns show."""

    def __init__(self, client: Client, parallel: int = 1) -> None:
        self._task = asyncio.ensure_future(run_scheduler(client, SchedulerSettings(parallel=parallel)))

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended


async def node_of(client: Client, ref: Ref) -> str:
    return (await client.get(Pod, ref)).spec.node_name


async def test_a_tenant_with_many_pods_does_not_hold_up_one_with_one(client: CuttableClient) -> None:
    await add_node(client, "one", cpu="1000")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    for number in range(60):
        await client.create(ACME, pod(f"p{number:02}"))
    await client.create(GLOBEX, pod("single"))
    order: list[str] = []

    async def note(method: str, path: str) -> None:
        if path.endswith("/binding"):
            order.append(path.split("/")[2])

    client.before = note
    async with running_scheduler(client):
        await until(lambda: node_of(client, Ref(GLOBEX, "default", "single")))
        assert order.index("globex") <= 2, order
        await until(lambda: all_bound(client))
    assert len(order) == 61


async def all_bound(client: Client) -> bool:
    return all(p.spec.node_name for p in (await client.list(Pod)).items)


async def test_assumed_pods_count_before_the_server_shows_them(client: CuttableClient) -> None:
    for name in ("one", "two"):
        await add_node(client, name, cpu="4")
        patch = {"status": {"allocatable": {"pods": "5"}}}
        await client.patch(Node, Ref(ROOT, "", name), patch, subresource="status")
    await add_tenant(client, ACME)
    for number in range(12):
        await client.create(ACME, pod(f"p{number:02}"))

    async def settled() -> bool:
        pods = (await client.list(Pod)).items
        said = [
            p for p in pods if any(c.type == "PodScheduled" and c.status == "False" for c in p.status.conditions or [])
        ]
        return len(said) == 2 and sum(bool(p.spec.node_name) for p in pods) == 10

    async with running_scheduler(client, parallel=16):
        await until(settled)
    nodes = [p.spec.node_name for p in (await client.list(Pod)).items]
    assert nodes.count("one") == nodes.count("two") == 5


async def test_a_binding_whose_answer_is_lost_is_not_made_twice(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    await client.create(ACME, pod("web"))
    bindings = 0

    class Losing(CuttableClient):
        async def raw(self, method: str, path: str, *rest: Any, **more: Any) -> bytes:
            nonlocal bindings
            answer = await super().raw(method, path, *rest, **more)
            if path.endswith("/binding"):
                bindings += 1
                raise UnreachableError("lost")
            return answer

    losing = Losing(client._settings)
    async with running_scheduler(losing):
        await until(lambda: node_of(client, Ref(ACME, "default", "web")))
        await asyncio.sleep(1.3)
    await losing.close()
    assert bindings == 1


async def test_a_pod_that_somebody_else_binds_meanwhile_is_left_alone(client: CuttableClient) -> None:
    from polder.scheduler.write import bind

    for name in ("one", "two"):
        await add_node(client, name)
    await add_tenant(client, ACME)
    made = await client.create(ACME, pod("web"))
    chosen: list[str] = []

    async def disturb(method: str, path: str) -> None:
        if path.endswith("/binding"):
            client.before = None
            await bind(client, made, "two")
            chosen.append("disturbed")

    client.before = disturb
    async with running_scheduler(client):
        await until(lambda: node_of(client, Ref(ACME, "default", "web")))
        await asyncio.sleep(0.3)
        await client.create(ACME, pod("next"))
        await until(lambda: node_of(client, Ref(ACME, "default", "next")))
    assert chosen == ["disturbed"]
    assert await node_of(client, Ref(ACME, "default", "web")) == "two"


async def test_a_pod_of_another_scheduler_and_one_in_deletion_are_not_touched(client: CuttableClient) -> None:
    await add_node(client, "one")
    await client.create(ROOT, pod("theirs", scheduler_name="mine"))
    await client.create(ROOT, pod("mine"))
    async with running_scheduler(client):
        await until(lambda: node_of(client, Ref(ROOT, "default", "mine")))
        await asyncio.sleep(0.2)
    assert await node_of(client, Ref(ROOT, "default", "theirs")) == ""


async def test_room_that_a_finished_pod_leaves_is_used(client: CuttableClient) -> None:
    await add_node(client, "one")
    patch = {"status": {"allocatable": {"pods": "1"}}}
    await client.patch(Node, Ref(ROOT, "", "one"), patch, subresource="status")
    await add_tenant(client, ACME)
    first, second = Ref(ACME, "default", "first"), Ref(ACME, "default", "second")
    async with running_scheduler(client):
        await client.create(ACME, pod("first"))
        await until(lambda: node_of(client, first))
        await client.create(ACME, pod("second"))
        await asyncio.sleep(0.3)
        assert await node_of(client, second) == ""
        await client.patch(Pod, first, {"status": {"phase": "Succeeded"}}, subresource="status")
        await until(lambda: node_of(client, second))


async def test_a_tenants_taint_keeps_its_own_pods_off_and_nobody_elses(client: CuttableClient) -> None:
    await add_node(client, "one")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    mine, theirs = Ref(ACME, "default", "web"), Ref(GLOBEX, "default", "web")
    taint = [{"key": "mine", "value": "x", "effect": "NoSchedule"}]
    async with running_scheduler(client):
        await client.patch(Node, Ref(ACME, "", "one"), {"spec": {"taints": taint}})
        await client.create(ACME, Node(metadata=ObjectMeta(name="own")))
        await asyncio.sleep(0.3)
        await client.create(ACME, pod("web"))
        await client.create(GLOBEX, pod("web"))
        await until(lambda: node_of(client, theirs))
        await asyncio.sleep(0.3)
        assert await node_of(client, mine) == ""
        await client.patch(Node, Ref(ACME, "", "one"), {"spec": {"taints": None}})
        assert await until(lambda: node_of(client, mine)) == "one"


async def test_what_a_tenant_is_told_names_no_node_and_no_other_tenant(client: CuttableClient) -> None:
    taint = {"spec": {"taints": [{"key": "reserved-for", "value": "globex", "effect": "NoSchedule"}]}}
    await add_node(client, "secret-name")
    await client.patch(Node, Ref(ROOT, "", "secret-name"), taint)
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    await client.create(ACME, pod("web"))
    async with running_scheduler(client):

        async def told() -> str:
            conditions = (await client.get(Pod, Ref(ACME, "default", "web"))).status.conditions or []
            return next((c.message for c in conditions if c.type == "PodScheduled"), "")

        message = await until(told)
        await until(lambda: events_of(client, ACME))
    texts = [message, *(e.message for e in await events_of(client, ACME))]
    assert not any("globex" in t or "secret-name" in t for t in texts), texts


async def events_of(client: Client, tenant: Any) -> list[Event]:
    return (await client.list(Event, tenant)).items


async def test_equal_events_are_counted_and_a_flood_is_cut(client: CuttableClient) -> None:
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    web, other = await client.create(ACME, pod("web")), await client.create(GLOBEX, pod("web"))
    recorder = Recorder(client, "test", SystemClock())
    task = asyncio.ensure_future(recorder.run())
    recorder.event(web, "Warning", "Same", "again")
    await until(lambda: events_of(client, ACME))
    for _ in range(4):
        recorder.event(web, "Warning", "Same", "again")

    async def counted() -> bool:
        return [e.count for e in await events_of(client, ACME)] == [5]

    await until(counted)
    for number in range(300):
        recorder.event(web, "Normal", "Flood", f"number {number}")
    recorder.event(other, "Normal", "Calm", "one of another tenant")
    (calm,) = await until(lambda: events_of(client, GLOBEX))
    assert (calm.involved_object.kind, calm.involved_object.name, calm.count) == ("Pod", "web", 1)
    assert TENANT_ANNOTATION in (calm.metadata.annotations or {})

    async def quiet() -> bool:
        return recorder.lost > 200

    await until(quiet)
    assert len(await events_of(client, ACME)) <= BURST + 5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_event_about_something_in_a_gone_tenant_disturbs_nobody(client: CuttableClient) -> None:
    await add_tenant(client, GLOBEX)
    other = await client.create(GLOBEX, pod("web"))
    recorder = Recorder(client, "test", SystemClock())
    task = asyncio.ensure_future(recorder.run())
    ghost = await client.create(GLOBEX, pod("ghost"))
    import msgspec

    meta = msgspec.structs.replace(ghost.metadata, annotations={TENANT_ANNOTATION: "nobody"})
    recorder.event(msgspec.structs.replace(ghost, metadata=meta), "Normal", "Lost", "x")
    recorder.event(other, "Normal", "Kept", "y")
    (kept,) = await until(lambda: events_of(client, GLOBEX))
    assert kept.reason == "Kept" and recorder.lost == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_old_events_are_deleted_and_young_ones_stay(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    web = await client.create(ACME, pod("web"))
    clock = HandClock()
    recorder = Recorder(client, "test", clock)
    task = asyncio.ensure_future(recorder.run())
    recorder.event(web, "Normal", "Old", "x")
    await until(lambda: events_of(client, ACME))
    clock.ahead = 1800
    recorder.event(web, "Normal", "Young", "x")

    async def two() -> bool:
        return len(await events_of(client, ACME)) == 2

    await until(two)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    clock.ahead = 3700
    expiry = EventExpiry(client, clock, ControllerSettings(root_ca=""))
    assert await expiry.expire() == 1
    assert [e.reason for e in await events_of(client, ACME)] == ["Young"]


async def test_an_event_says_all_that_people_read(client: CuttableClient) -> None:
    import json

    await add_tenant(client, ACME)
    recorder = Recorder(client, "test", SystemClock())
    task = asyncio.ensure_future(recorder.run())
    recorder.event(await client.create(ACME, pod("web")), "Normal", "Why", "because")
    await until(lambda: events_of(client, ACME))
    (raw,) = json.loads(await client.raw("GET", "/tenants/acme/api/v1/namespaces/default/events"))["items"]
    assert (raw["type"], raw["count"], raw["reason"], raw["message"]) == ("Normal", 1, "Why", "because")
    assert raw["firstTimestamp"] and raw["lastTimestamp"] and raw["source"]["component"] == "test"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_equal_events_of_two_containers_stay_apart(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    recorder = Recorder(client, "test", SystemClock())
    task = asyncio.ensure_future(recorder.run())
    web = await client.create(ACME, pod("web"))
    for part in ("spec.containers{a}", "spec.containers{b}", "spec.containers{a}"):
        recorder.event(web, "Normal", "Pulled", "the same image", part)

    async def told() -> bool:
        found = await events_of(client, ACME)
        parts = {(one.involved_object.field_path, one.count) for one in found}
        return len(found) == 2 and parts == {("spec.containers{a}", 2), ("spec.containers{b}", 1)}

    await until(told)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_events_of_one_second_are_listed_in_their_order(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    recorder = Recorder(client, "test", SystemClock())
    task = asyncio.ensure_future(recorder.run())
    web, reasons = (
        await client.create(ACME, pod("web")),
        ["Pulled", "Created", "Started", "Killing", "Failed", "BackOff"],
    )
    for reason in reasons:
        recorder.event(web, "Normal", reason, "x")

    async def all_there() -> bool:
        return len(await events_of(client, ACME)) == len(reasons)

    await until(all_there)
    listed = (await client.list(Event, ACME, "default")).items
    assert [e.reason for e in listed] == reasons
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
