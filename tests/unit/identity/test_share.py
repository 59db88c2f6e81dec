"""A node's share follows pods and ports, and no change is missed between a list and its watch."""

from __future__ import annotations

import asyncio

import pytest

from polder.api.core import Pod
from polder.api.kinds import kind_of
from polder.api.meta import TENANT_ANNOTATION
from polder.api.polder import Network, Port, Segment, Tenant
from polder.store.protocol import Delete, Key

NETWORKS = kind_of(Network)


def shown(tenant, name="x", **spec):
    return {"metadata": {"name": name, "annotations": {TENANT_ANNOTATION: tenant}}, "spec": spec}


@pytest.fixture
async def running(world):
    task = asyncio.create_task(world.share.run())
    await asyncio.sleep(0)
    yield world
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_presence_begins_and_ends_with_the_last_pod(running):
    share = running.share
    for name in ("a", "b"):
        await running.pod("acme", name, "n1")
    await settle()
    assert share.present("n1", "acme")
    assert not share.present("n1", "globex")
    assert not share.present("n2", "acme")
    assert share.visible("n1", NETWORKS, shown("acme"))
    assert not share.visible("n1", NETWORKS, shown("globex"))
    assert share.visible("n1", kind_of(Tenant), shown("root", "acme"))
    assert not share.visible("n1", kind_of(Tenant), shown("root", "globex"))
    assert not share.visible("n1", kind_of(Segment), shown("root"))
    assert share.visible("n1", kind_of(Pod), shown("acme", nodeName="n1"))
    assert not share.visible("n1", kind_of(Pod), shown("acme", nodeName="n2"))
    await running.store.commit([Delete(Key("pods", "acme", "default", "a"))])
    await settle()
    assert share.present("n1", "acme")
    await running.store.commit([Delete(Key("pods", "acme", "default", "b"))])
    await settle()
    assert not share.present("n1", "acme")


async def test_a_datapath_keeps_the_share_until_it_is_taken_down(running):
    await running.put("ports.polder.dev", "root", "kube-system", "r", spec={"node": "n1", "routerOf": "acme"})
    await settle()
    assert running.share.present("n1", "acme")
    assert running.share.visible("n1", kind_of(Port), shown("root", node="n2", routerOf="acme"))
    assert not running.share.visible("n1", kind_of(Port), shown("root", node="n2", routerOf="globex"))
    await running.store.commit([Delete(Key("ports.polder.dev", "root", "kube-system", "r"))])
    await settle()
    assert not running.share.present("n1", "acme")


async def test_an_address_not_yet_freed_keeps_the_share(running):
    await running.put("addresses.polder.dev", "acme", "kube-system", "default.10.0.0.5", spec={"node": "n1"})
    await settle()
    assert running.share.present("n1", "acme")
    assert await running.share.enters("n1", "acme")
    await running.store.commit([Delete(Key("addresses.polder.dev", "acme", "kube-system", "default.10.0.0.5"))])
    await settle()
    assert not await running.share.enters("n1", "acme")


async def test_a_watch_ends_when_a_tenant_arrives_and_only_then(running):
    share = running.share
    share.listed("n1", NETWORKS.resource)
    watch = asyncio.ensure_future(share.changed("n1", NETWORKS))
    await running.pod("acme", "a", "n2")
    await settle()
    assert not watch.done()
    await running.pod("acme", "b", "n1")
    await settle()
    assert watch.done()
    share.listed("n1", NETWORKS.resource)
    second = asyncio.ensure_future(share.changed("n1", NETWORKS))
    await running.pod("acme", "c", "n1")
    await settle()
    assert not second.done(), "the tenant was there already"
    second.cancel()


async def test_an_arrival_between_list_and_watch_is_not_missed(running):
    running.share.listed("n1", NETWORKS.resource)
    await running.pod("acme", "a", "n1")
    await settle()
    await asyncio.wait_for(running.share.changed("n1", NETWORKS), 1)


async def test_the_store_is_asked_when_the_index_does_not_know_yet(world):
    await world.pod("acme", "a", "n1")  # the index does not run here
    assert not world.share.present("n1", "acme")
    assert await world.share.enters("n1", "acme")
    assert not await world.share.enters("n2", "acme")


async def test_an_index_built_anew_equals_the_one_that_followed(running):
    await running.pod("acme", "a", "n1")
    await running.pod("acme", "a", "n2")
    await running.put("ports.polder.dev", "globex", "default", "p", spec={"node": "n1"})
    await settle()
    fresh = type(running.share)(running.store)
    task = asyncio.create_task(fresh.run())
    await settle()
    task.cancel()
    pairs = [(n, t) for n in ("n1", "n2") for t in ("acme", "globex")]
    assert (
        [fresh.present(*p) for p in pairs] == [running.share.present(*p) for p in pairs] == [False, True, True, False]
    )
