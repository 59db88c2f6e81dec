"""Reconcilers broken off before and after each of their writes, and others who write between: all converges, nothing leaks."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from polder.api.core import ConfigMap, Namespace, Node, Pod
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.meta import ObjectMeta, OwnerReference
from polder.api.polder import NETWORK_FINALIZER, Address, Network, NetworkSpec, Port, Segment, Tenant
from polder.base.clock import SystemClock
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.controllers.gc import GarbageCollector
from polder.controllers.internal import Item
from polder.controllers.missing import MissingNodes
from polder.controllers.namespace import NamespaceController
from polder.controllers.network import NetworkController, SegmentController
from polder.controllers.ports import AddressSweeper, PortSweeper
from polder.controllers.resources import Resource
from polder.controllers.settings import ControllerSettings
from polder.controllers.tenant import TenantController
from tests.contract.controlled import (
    ACME,
    CutError,
    CuttableClient,
    add_node,
    add_tenant,
    attach,
    client_of,
    find,
    gone,
    pod,
    settle,
)

SETTINGS = ControllerSettings(root_ca="CA", recheck=0.0)
WRITES = 40
"""More than any of the reconciliations here needs."""


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    yield found
    await found.close()


async def cut_everywhere(
    client: CuttableClient, prepare: Callable[[str], Awaitable[Any]], work: Callable[[Any], Awaitable[None]]
) -> AsyncIterator[Any]:
    """Does ``work`` on a fresh subject for each write and each side of it: cut there, then again from scratch."""
    for number, after in itertools.product(range(1, WRITES), (False, True)):
        subject = await prepare(f"t{number}{'a' if after else 'b'}")
        client.cut(number, after=after)
        try:
            await work(subject)
            was_cut = False
        except CutError:
            was_cut = True
        client.cut(None)
        await work(subject)
        yield subject
        if not was_cut:
            assert number > 1, "nothing was written"
            return
    raise AssertionError("more writes than expected")


async def segments_of(client: CuttableClient, uid: str) -> list[Segment]:
    return [s for s in (await client.list(Segment, ROOT)).items if s.spec.network_uid == uid]


def new_network(name: str, number: int = 0) -> Network:
    spec = NetworkSpec(cidr=f"192.168.{number}.0/24")
    return Network(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)


async def test_a_network_claims_one_identifier_wherever_it_is_broken_off(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    numbers = itertools.count()

    async def prepare(name: str) -> Ref:
        await client.create(ACME, new_network(name, next(numbers)))
        return Ref(ACME, "default", name)

    async def work(ref: Ref) -> None:
        await settle(NetworkController(client, SETTINGS).reconcile, ref)

    async for ref in cut_everywhere(client, prepare, work):
        network = await client.get(Network, ref)
        segments = await segments_of(client, network.metadata.uid)
        assert [s.spec.vni for s in segments] == [network.status.vni]
        assert NETWORK_FINALIZER in (network.metadata.finalizers or [])


async def test_a_network_gives_its_identifier_back_wherever_it_is_broken_off(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    controller = NetworkController(client, SETTINGS)

    async def prepare(name: str) -> Network:
        made = await client.create(ACME, new_network(name))
        ref = Ref(ACME, "default", name)
        await settle(controller.reconcile, ref)
        await client.delete(Network, ref)
        return made

    async def work(made: Network) -> None:
        await settle(NetworkController(client, SETTINGS).reconcile, Ref(ACME, "default", made.metadata.name))

    async for made in cut_everywhere(client, prepare, work):
        assert await gone(client, Network, Ref(ACME, "default", made.metadata.name))
        assert await segments_of(client, made.metadata.uid) == []


async def test_a_claim_without_its_network_is_given_up(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    made = await client.create(ACME, new_network("one"))
    ref = Ref(ACME, "default", "one")
    await settle(NetworkController(client, SETTINGS).reconcile, ref)
    (segment,) = await segments_of(client, made.metadata.uid)
    at = Ref(ROOT, "", segment.metadata.name)
    await SegmentController(client).reconcile(at)
    assert not await gone(client, Segment, at), "it is held"
    await client.patch(Network, ref, {"metadata": {"finalizers": None}})
    await client.delete(Network, ref)
    await client.create(ACME, new_network("one"))
    await SegmentController(client).reconcile(at)
    assert await gone(client, Segment, at), "a successor of the name is not the holder"


async def test_identifiers_that_are_taken_are_passed_over(client: CuttableClient) -> None:
    from polder.api.polder import SegmentSpec
    from polder.controllers.vni import candidates, segment_name

    await add_tenant(client, ACME)
    made = await client.create(ACME, new_network("one"))
    first, second, third, *_ = candidates(made.metadata.uid)
    for vni in (first, second):
        spec = SegmentSpec(vni=vni, tenant="globex", network="default/x", network_uid="other")
        await client.create(ROOT, Segment(metadata=ObjectMeta(name=segment_name(vni)), spec=spec))
    ref = Ref(ACME, "default", "one")
    await settle(NetworkController(client, SETTINGS).reconcile, ref)
    assert (await client.get(Network, ref)).status.vni == third


async def test_a_network_waits_for_its_ports_and_addresses(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    controller, ref = NetworkController(client, SETTINGS), Ref(ACME, "kube-system", "more")
    spec = NetworkSpec(cidr="10.7.0.0/16")
    await client.create(ACME, Network(metadata=ObjectMeta(name="more", namespace="kube-system"), spec=spec))
    await settle(controller.reconcile, ref)
    port, address = await attach(client, await client.create(ACME, pod("web")), ACME, "one", "10.7.0.9", "more")
    await client.delete(Network, ref)

    async def reason() -> tuple[str, str]:
        await controller.reconcile(ref)
        (found,) = (await client.get(Network, ref)).status.conditions or []
        return found.reason, found.message

    said = await reason()
    assert said[0] == "PortsRemain" and port.name in said[1]
    await client.patch(Port, port, {"metadata": {"finalizers": None}})
    await client.delete(Port, port)
    said = await reason()
    assert said[0] == "AddressesRemain" and address.name in said[1]
    await client.delete(Address, address)
    await settle(controller.reconcile, ref)
    assert await gone(client, Network, ref)


async def test_a_tenant_goes_wherever_its_deletion_is_broken_off(client: CuttableClient) -> None:
    async def prepare(name: str) -> TenantName:
        tenant = TenantName(name)
        await add_tenant(client, tenant)
        await reconcile_all(client, tenant)
        held = ConfigMap(metadata=ObjectMeta(name="x", namespace="default", finalizers=["a.dev/never"]))
        await client.create(tenant, held)
        await client.create(tenant, pod("web"))
        await client.delete(Tenant, Ref(ROOT, "", name))
        return tenant

    async def work(tenant: TenantName) -> None:
        for _ in range(30):
            if await gone(client, Tenant, Ref(ROOT, "", tenant)):
                return
            await reconcile_all(client, tenant)
        raise AssertionError(f"tenant {tenant} stays")

    async for tenant in cut_everywhere(client, prepare, work):
        assert [s for s in (await client.list(Segment, ROOT)).items if s.spec.tenant == tenant] == []
        with pytest.raises(ApiError):
            await client.list(ConfigMap, tenant)
        left = [p for p in (await client.list(Pod)).items if p.metadata.name == "web"]
        assert left == []


async def reconcile_all(client: CuttableClient, tenant: TenantName) -> None:
    """One round of the controllers that a tenant's deletion needs, each made anew."""
    parts: list[tuple[type[Any], Callable[[Ref], Awaitable[float | None]]]] = [
        (Network, NetworkController(client, SETTINGS).reconcile),
        (Namespace, NamespaceController(client, SETTINGS).reconcile),
    ]
    steps = [(Ref(ROOT, "", tenant), TenantController(client, SETTINGS, lambda _: ()).reconcile)]
    for kind, reconcile in parts:
        found = (await client.list(kind, tenant)).items
        steps += [(Ref(tenant, o.metadata.namespace, o.metadata.name), reconcile) for o in found]
    for ref, reconcile in steps:
        try:
            await reconcile(ref)
        except ApiError as error:
            if not error.is_conflict:
                raise


async def placed(client: CuttableClient, name: str, node: str) -> Pod:
    """A tenant's pod on a node, put there as the scheduler does."""
    made = await client.create(ACME, pod(name))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"kind": "Node", "name": node},
    }
    path = f"/tenants/{ACME}/api/v1/namespaces/default/pods/{name}/binding"
    await client.raw("POST", path, json.dumps(binding).encode())
    return made


async def test_the_sweeper_frees_what_a_gone_node_held_wherever_it_is_broken_off(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    octets = itertools.count(2)

    async def prepare(name: str) -> tuple[Ref, Ref]:
        await add_node(client, name)
        made = await placed(client, name, name)
        refs = await attach(client, made, ACME, name, f"10.0.0.{next(octets)}")
        await client.delete(Pod, Ref(ACME, "default", name), grace=0)
        await client.delete(Node, Ref(ROOT, "", name))
        return refs

    async def work(refs: tuple[Ref, Ref]) -> None:
        port, address = refs
        await settle(PortSweeper(client, MissingNodes(client, SystemClock(), 0), SystemClock(), 0).reconcile, port)
        await settle(AddressSweeper(client, SystemClock(), 0).reconcile, address)

    async for port, address in cut_everywhere(client, prepare, work):
        assert await gone(client, Port, port)
        assert await gone(client, Address, address)


async def test_the_sweeper_never_frees_an_address_that_is_taken_up_while_it_looks(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    made = await placed(client, "web", "one")
    port, address = await attach(client, made, ACME, "one", "10.0.0.9")
    sweeper = AddressSweeper(client, SystemClock(), 0)
    assert await sweeper.reconcile(address) is None
    await client.patch(Port, port, {"metadata": {"finalizers": None}})
    await client.delete(Port, port)
    assert await sweeper.reconcile(address) is None
    assert not await gone(client, Address, address), "the pod lives: its node may be making the Port again"
    await client.delete(Pod, Ref(ACME, "default", "web"), grace=0)

    async def take_up(method: str, path: str) -> None:
        if method == "DELETE":
            client.before = None
            await client.patch(Address, address, {"metadata": {"annotations": {"taken-up": "again"}}})

    client.before = take_up
    with pytest.raises(ApiError) as refused:
        await sweeper.reconcile(address)
    assert refused.value.is_conflict
    assert not await gone(client, Address, address)


async def test_a_period_of_grace_starts_again_when_the_address_changes(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    made = await client.create(ACME, pod("web"))
    port, address = await attach(client, made, ACME, "one", "10.0.0.9")
    await client.patch(Port, port, {"metadata": {"finalizers": None}})
    await client.delete(Port, port)
    await client.delete(Pod, Ref(ACME, "default", "web"), grace=0)
    sweeper = AddressSweeper(client, SystemClock(), 60)
    wait = await sweeper.reconcile(address)
    assert wait is not None and wait > 59
    assert not await gone(client, Address, address)


async def test_a_namespace_that_changes_while_it_is_finished_is_looked_at_again(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    await client.create(ACME, Namespace(metadata=ObjectMeta(name="shop")))
    ref = Ref(ACME, "", "shop")
    await client.delete(Namespace, ref)

    async def label(method: str, path: str) -> None:
        if path.endswith("/finalize"):
            client.before = None
            await client.patch(Namespace, ref, {"metadata": {"labels": {"a": "b"}}})

    client.before = label
    controller = NamespaceController(client, SETTINGS)
    with pytest.raises(ApiError) as refused:
        for _ in range(10):
            await controller.reconcile(ref)
    assert refused.value.is_conflict
    assert not await gone(client, Namespace, ref)
    await settle(controller.reconcile, ref)
    assert await gone(client, Namespace, ref)


async def test_a_dependent_that_is_let_go_while_it_is_judged_stays(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    reference = OwnerReference(api_version="v1", kind="ConfigMap", name="absent", uid="gone")
    meta = ObjectMeta(name="child", namespace="default", owner_references=[reference])
    child = await client.create(ACME, ConfigMap(metadata=meta))
    ref = Ref(ACME, "default", "child")
    collector = GarbageCollector(client, SystemClock(), lambda item: None, 0.0)
    item = Item(ref, Resource.of(kind_of(ConfigMap)), child.metadata.uid)

    async def let_go(method: str, path: str) -> None:
        if method == "DELETE":
            client.before = None
            await client.patch(ConfigMap, ref, {"metadata": {"ownerReferences": None}})

    client.before = let_go
    with pytest.raises(ApiError) as refused:
        await collector.reconcile(item)
    assert refused.value.is_conflict
    await settle(collector.reconcile, item)
    assert await find(client, ConfigMap, ref) is not None
