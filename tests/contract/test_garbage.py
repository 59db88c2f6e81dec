"""The garbage collector over real parts: what upstream's specs of it check, in a tenant, with nothing kept in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import ConfigMap, Namespace
from polder.api.meta import ObjectMeta, OwnerReference
from polder.base.clock import SystemClock
from polder.base.ref import Ref
from polder.controllers.gc import GarbageCollector
from polder.controllers.gc_feed import GarbageFeed
from polder.controllers.internal import Item
from polder.loop.runner import Runner
from tests.contract.controlled import ACME, GLOBEX, CuttableClient, add_tenant, client_of, find, gone, until


class Part:
    """A collector as ``run_controllers`` has one; it can be killed and started anew."""

    def __init__(self, client: CuttableClient) -> None:
        self.client = client
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        runner: Runner[Item] = Runner("garbage", self._reconcile, 4)
        self.collector = GarbageCollector(self.client, SystemClock(), runner.add, 60.0)
        self.looks: list[str] = []
        feed = GarbageFeed(self.client, runner.add)
        self.tasks = [asyncio.create_task(runner.run()), asyncio.create_task(feed.run())]

    async def _reconcile(self, item: Item) -> float | None:
        self.looks.append(item.ref.name)
        return await self.collector.reconcile(item)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def part(running: Any) -> AsyncIterator[Part]:
    client = client_of(running)
    await add_tenant(client, ACME)
    found = Part(client)
    found.start()
    yield found
    await found.stop()
    await client.close()


async def add(part: Part, name: str, *owners: ConfigMap, block: bool = True, **meta: Any) -> ConfigMap:
    references = [
        OwnerReference(api_version="v1", kind="ConfigMap", name=o.metadata.name, uid=o.metadata.uid,
                       block_owner_deletion=block)
        for o in owners
    ]  # fmt: skip
    given = ObjectMeta(name=name, namespace="default", owner_references=references or None, **meta)
    return await part.client.create(ACME, ConfigMap(metadata=given))


def at(name: str) -> Ref:
    return Ref(ACME, "default", name)


async def delete(part: Part, name: str, policy: str = "") -> None:
    await part.client.delete(ConfigMap, at(name), propagation=policy)


async def test_dependents_go_with_their_owner_in_the_background(part: Part) -> None:
    owner = await add(part, "owner")
    for number in range(20):
        await add(part, f"child-{number}", owner)
    stays = await add(part, "stays")
    await delete(part, "owner", "Background")
    assert await gone(part.client, ConfigMap, at("owner"))
    for number in range(20):
        await until(lambda n=number: gone(part.client, ConfigMap, at(f"child-{n}")), 3)
    assert await find(part.client, ConfigMap, at("stays")) == stays


async def test_what_stands_as_it_should_costs_the_collector_nothing(part: Part) -> None:
    owner = await add(part, "owner")
    for number in range(5):
        await add(part, f"child-{number}", owner)
    await part.client.patch(ConfigMap, at("child-1"), {"data": {"a": "b"}})
    await delete(part, "child-4")
    marker = await add(part, "marker")
    await add(part, "orphan", marker)
    await delete(part, "marker")
    await until(lambda: gone(part.client, ConfigMap, at("orphan")))
    assert set(part.looks) == {"orphan"}


async def test_orphans_stay_and_forget_their_owner(part: Part) -> None:
    owner = await add(part, "owner")
    other = await add(part, "other")
    await add(part, "child", owner)
    await add(part, "shared", owner, other)
    await delete(part, "owner", "Orphan")
    await until(lambda: gone(part.client, ConfigMap, at("owner")), 3)
    child, shared = await find(part.client, ConfigMap, at("child")), await find(part.client, ConfigMap, at("shared"))
    assert child.metadata.owner_references is None
    assert [o.name for o in shared.metadata.owner_references] == ["other"]


async def test_in_the_foreground_the_owner_outlives_its_dependents(part: Part) -> None:
    owner = await add(part, "owner")
    await add(part, "held", owner, finalizers=["a.dev/held"])
    await add(part, "loose", owner, block=False, finalizers=["a.dev/held"])
    await delete(part, "owner", "Foreground")

    async def going() -> bool:
        held = await find(part.client, ConfigMap, at("held"))
        return held.metadata.deletion_timestamp is not None

    await until(going, 3)
    assert (await find(part.client, ConfigMap, at("owner"))).metadata.deletion_timestamp
    await part.client.patch(ConfigMap, at("held"), {"metadata": {"finalizers": None}})
    await until(lambda: gone(part.client, ConfigMap, at("owner")), 3)
    assert (await find(part.client, ConfigMap, at("loose"))).metadata.deletion_timestamp


async def test_a_dependent_that_has_another_owner_stays(part: Part) -> None:
    going, staying = await add(part, "going"), await add(part, "staying")
    await add(part, "both", going, staying)
    await add(part, "one", going)
    await delete(part, "going", "Foreground")
    await until(lambda: gone(part.client, ConfigMap, at("going")), 3)
    both = await find(part.client, ConfigMap, at("both"))
    assert [o.name for o in both.metadata.owner_references] == ["staying"]
    assert await gone(part.client, ConfigMap, at("one"))


async def test_a_circle_of_owners_goes(part: Part) -> None:
    first = await add(part, "first")
    second = await add(part, "second", first)
    third = await add(part, "third", second)
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "third", "uid": third.metadata.uid}
    patch = {"metadata": {"ownerReferences": [{**reference, "blockOwnerDeletion": True}]}}
    await part.client.patch(ConfigMap, at("first"), patch)
    await delete(part, "first", "Foreground")
    for name in ("first", "second", "third"):
        await until(lambda n=name: gone(part.client, ConfigMap, at(n)), 5)


async def test_who_names_an_owner_that_is_not_there_goes(part: Part) -> None:
    owner = await add(part, "owner")
    lie = OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid="other-uid")
    strange = OwnerReference(api_version="nowhere.dev/v1", kind="Nothing", name="x", uid="y")
    for name, reference in (("liar", lie), ("strange", strange)):
        meta = ObjectMeta(name=name, namespace="default", owner_references=[reference])
        await part.client.create(ACME, ConfigMap(metadata=meta))
    await part.client.create(ACME, Namespace(metadata=ObjectMeta(name="beside")))
    reference = OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=owner.metadata.uid)
    far = ObjectMeta(name="far", namespace="beside", owner_references=[reference])
    await part.client.create(ACME, ConfigMap(metadata=far))
    await until(lambda: gone(part.client, ConfigMap, at("liar")), 3)
    await until(lambda: gone(part.client, ConfigMap, Ref(ACME, "beside", "far")), 3)
    assert await find(part.client, ConfigMap, at("strange")), "of a kind that is not served nothing is known"
    cluster = ObjectMeta(name="wide", owner_references=[reference])
    await part.client.create(ACME, Namespace(metadata=cluster))
    await delete(part, "owner")
    await asyncio.sleep(0.2)
    wide = await find(part.client, Namespace, Ref(ACME, "", "wide"))
    assert wide.metadata.deletion_timestamp is None, "nothing namespaced owns what is in no namespace"


async def test_no_other_tenant_can_hold_up_a_deletion(part: Part) -> None:
    await add_tenant(part.client, GLOBEX)
    owner = await add(part, "owner")
    reference = OwnerReference(
        api_version="v1", kind="ConfigMap", name="owner", uid=owner.metadata.uid, block_owner_deletion=True
    )
    meta = ObjectMeta(name="foe", namespace="default", finalizers=["foe.dev/stay"], owner_references=[reference])
    await part.client.create(GLOBEX, ConfigMap(metadata=meta))
    await delete(part, "owner", "Foreground")
    await until(lambda: gone(part.client, ConfigMap, at("owner")), 3)


async def test_what_went_while_no_collector_ran_is_found_at_its_start(part: Part) -> None:
    owner = await add(part, "owner")
    await add(part, "child", owner)
    waiting = await add(part, "waiting")
    await add(part, "held-up", waiting)
    await part.stop()
    await delete(part, "owner", "Background")
    await delete(part, "waiting", "Foreground")
    part.start()
    for name in ("child", "held-up", "waiting"):
        await until(lambda n=name: gone(part.client, ConfigMap, at(n)), 3)


async def test_the_internal_paths_are_not_there_for_others(running: Any, part: Part) -> None:
    for api in (running.admin(), await running.tenant_admin("acme")):
        for path in ("contents", "dependents?uid=x", "garbage", "nothing"):
            answer = await api.get(f"/tenants/acme/polder/v1/{path}")
            assert answer.status in (403, 404), path
    component = running.component()
    found = (await component.get("/tenants/acme/polder/v1/contents?namespace=default")).json
    assert {"configmaps", "serviceaccounts"} <= {r["plural"] for r in found["resources"]}
    assert (await component.get("/tenants/acme/polder/v1/nothing")).status == 404


async def test_dependents_come_in_pages(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polder.apiserver.internal_paths.PAGE", 3)
    owner = await add(part, "owner")
    for number in range(8):
        await add(part, f"child-{number}", owner)
    path = f"/tenants/acme/polder/v1/dependents?namespace=default&uid={owner.metadata.uid}"
    first = json.loads(await part.client.raw("GET", path))
    assert (len(first["items"]), first["after"]) == (3, '["configmaps","acme","default","child-2"]')
    await delete(part, "owner", "Orphan")
    await until(lambda: gone(part.client, ConfigMap, at("owner")), 3)
    left = [await find(part.client, ConfigMap, at(f"child-{n}")) for n in range(8)]
    assert all(child.metadata.owner_references is None for child in left)
