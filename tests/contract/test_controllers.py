"""Controllers and scheduler together on a real server: what a user sees of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.api.core import ConfigMap, Event, Namespace, Node, Pod, ServiceAccount
from polder.api.errors import ApiError
from polder.api.meta import ObjectMeta, OwnerReference
from polder.api.polder import NETWORK_FINALIZER, Address, Network, Port, Segment, Tenant
from polder.base.ids import ROOT
from polder.base.ref import Ref
from polder.controllers.run import run_controllers
from polder.controllers.settings import ControllerSettings
from polder.scheduler.run import run_scheduler
from polder.scheduler.settings import SchedulerSettings
from polder.store.protocol import Delete, Key
from tests.contract.controlled import (
    ACME,
    GLOBEX,
    CuttableClient,
    add_node,
    add_tenant,
    attach,
    client_of,
    find,
    gone,
    pod,
    release,
    until,
)

SETTINGS = ControllerSettings(
    root_ca="CA", missing_node_grace=0.2, orphan_grace=0.3, recheck=0.1, sweep_period=0.5, node_tick=0.1
)


@pytest.fixture
async def client(running: Any) -> AsyncIterator[CuttableClient]:
    found = client_of(running)
    parts = [
        asyncio.create_task(run_controllers(found, SETTINGS)),
        asyncio.create_task(run_scheduler(found, SchedulerSettings())),
    ]
    yield found
    for part in parts:
        part.cancel()
    ended = await asyncio.gather(*parts, return_exceptions=True)
    assert all(isinstance(e, asyncio.CancelledError) for e in ended), ended
    await found.close()


async def test_network_gets_an_identifier_and_two_tenants_never_the_same(client: CuttableClient) -> None:
    ref = {}
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
        ref[tenant] = Ref(tenant, "kube-system", "default")

    async def both() -> list[Network] | None:
        found = [await client.get(Network, r) for r in ref.values()]
        return found if all(n.status.vni for n in found) else None

    networks = await until(both)
    assert networks[0].status.vni != networks[1].status.vni
    assert all(n.status.gateway == "10.0.0.1" for n in networks)
    assert all([(c.type, c.status) for c in n.status.conditions] == [("Ready", "True")] for n in networks)
    for network in networks:
        segment = await client.get(Segment, Ref(ROOT, "", f"vni-{network.status.vni}"))
        assert segment.spec.network_uid == network.metadata.uid


async def test_tenant_goes_with_everything_and_waits_for_its_links(client: CuttableClient) -> None:
    await add_node(client, "one")
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    made = await client.create(ACME, pod("web"))
    other = await client.create(GLOBEX, pod("web"))
    ref = Ref(ACME, "default", "web")
    await until(lambda: bound(client, ref))
    port, address = await attach(client, made, ACME, "one", "10.0.0.9")
    theirs = await attach(client, other, GLOBEX, "one", "10.0.0.9")
    await client.create(
        ACME, ConfigMap(metadata=ObjectMeta(name="x", namespace="default", finalizers=["acme.dev/never"]))
    )
    tenant = Ref(ROOT, "", "acme")
    await client.delete(Tenant, tenant)
    await until(lambda: says(client, tenant, "PodsRemain", "default/web"))
    await client.delete(Pod, ref, grace=0)  # the agent has stopped it
    await until(lambda: says(client, tenant, "PortsRemain", port.name))
    assert not await gone(client, Address, address), "an address is held while its link stands"
    await release(client, port)
    await until(lambda: gone(client, Tenant, tenant))
    assert [s.spec.tenant for s in (await client.list(Segment, ROOT)).items if s.spec.tenant == "acme"] == []
    assert not await gone(client, Port, theirs[0])
    assert not await gone(client, Address, theirs[1])
    again = await add_tenant(client, ACME)
    assert again.metadata.uid
    assert (await client.list(Pod, ACME)).items == []
    assert (await client.list(Address, ACME)).items == []
    assert [c.metadata.name for c in (await client.list(ConfigMap, ACME, "default")).items] == ["kube-root-ca.crt"]


async def test_nothing_of_a_tenant_stays_in_the_store_even_if_it_was_half_gone(
    client: CuttableClient, running: Any
) -> None:
    for tenant in (ACME, GLOBEX):
        await add_tenant(client, tenant)
    await client.create(ACME, Namespace(metadata=ObjectMeta(name="shop")))
    await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="x", namespace="shop", finalizers=["a.dev/never"])))
    await running.store.commit(
        [Delete(Key("namespaces", "acme", "", "shop")), Delete(Key("namespaces", "acme", "", "default"))]
    )
    before = await rows(running, "globex")
    await client.delete(Tenant, Ref(ROOT, "", "acme"))
    await until(lambda: gone(client, Tenant, Ref(ROOT, "", "acme")))
    assert await rows(running, "acme") == set()
    assert await rows(running, "globex") == before
    segments = [s.spec.tenant for s in (await client.list(Segment, ROOT)).items]
    assert "acme" not in segments and "globex" in segments


async def test_no_finalizer_of_a_tenants_own_holds_up_its_end(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    mine = ["polder.dev/mine", NETWORK_FINALIZER, "example.com/hold"]
    await client.create(ACME, Namespace(metadata=ObjectMeta(name="shop", finalizers=mine)))
    await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="x", namespace="shop", finalizers=mine)))
    await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="x", namespace="default", finalizers=mine)))
    await client.delete(Tenant, Ref(ROOT, "", "acme"))
    await until(lambda: gone(client, Tenant, Ref(ROOT, "", "acme")))


async def rows(running: Any, tenant: str) -> set[tuple[str, str, str]]:
    """Everything that the store holds of a tenant, what the server keeps for itself included."""
    return {(k.resource, k.namespace, k.name) for k in running.store._keys if k.tenant == tenant}


async def bound(client: CuttableClient, ref: Ref) -> str:
    return (await client.get(Pod, ref)).spec.node_name


async def says(client: CuttableClient, tenant: Ref, reason: str, name: str) -> bool:
    conditions = (await client.get(Tenant, tenant)).status.conditions or []
    return any(c.reason == reason and name in c.message for c in conditions)


async def test_namespace_goes_with_its_contents_and_says_what_remains(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    await client.create(ACME, Namespace(metadata=ObjectMeta(name="shop")))
    ref = Ref(ACME, "", "shop")
    kept = ConfigMap(metadata=ObjectMeta(name="x", namespace="shop", finalizers=["acme.dev/mine"]))
    await client.create(ACME, kept)
    await client.delete(Namespace, ref)

    async def explained() -> bool:
        conditions = {c.type: c for c in (await client.get(Namespace, ref)).status.conditions or []}
        content, finalizers = (
            conditions.get("NamespaceContentRemaining"),
            conditions.get("NamespaceFinalizersRemaining"),
        )
        return bool(
            content
            and content.status == "True"
            and "configmaps has 1 resource instances" in content.message
            and finalizers
            and "acme.dev/mine in 1 resource instances" in finalizers.message
        )

    await until(explained)
    await client.patch(ConfigMap, Ref(ACME, "shop", "x"), {"metadata": {"finalizers": None}})
    await until(lambda: gone(client, Namespace, ref))


async def test_what_every_namespace_has_comes_back(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    account, certificate = Ref(ACME, "default", "default"), Ref(ACME, "default", "kube-root-ca.crt")
    before = await client.get(ServiceAccount, account)
    await client.delete(ServiceAccount, account)
    await client.patch(ConfigMap, certificate, {"data": {"ca.crt": "forged", "more": "x"}})

    async def right() -> bool:
        found = await find(client, ServiceAccount, account)
        data = (await client.get(ConfigMap, certificate)).data
        return found is not None and found.metadata.uid != before.metadata.uid and data == {"ca.crt": "CA"}

    await until(right)


async def test_owned_objects_go_with_their_owner(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    refs = {}
    for mode in ("Background", "Foreground", "Orphan"):
        owner = await client.create(ACME, ConfigMap(metadata=ObjectMeta(name=mode.lower(), namespace="default")))
        reference = OwnerReference(
            api_version="v1", kind="ConfigMap", name=mode.lower(), uid=owner.metadata.uid, block_owner_deletion=True
        )
        meta = ObjectMeta(name=f"{mode.lower()}-child", namespace="default", owner_references=[reference])
        await client.create(ACME, ConfigMap(metadata=meta))
        refs[mode] = Ref(ACME, "default", mode.lower()), Ref(ACME, "default", meta.name)
    for mode, (owner_ref, _) in refs.items():
        await client.delete(ConfigMap, owner_ref, propagation=mode)
    for mode in ("Background", "Foreground"):
        for ref in refs[mode]:
            await until(lambda ref=ref: gone(client, ConfigMap, ref))
    await until(lambda: gone(client, ConfigMap, refs["Orphan"][0]))
    child = await client.get(ConfigMap, refs["Orphan"][1])
    assert not child.metadata.owner_references


async def test_an_owner_of_another_uid_is_no_owner(client: CuttableClient) -> None:
    await add_tenant(client, ACME)
    owner = await client.create(ACME, ConfigMap(metadata=ObjectMeta(name="owner", namespace="default")))
    for name, uid in (("true", owner.metadata.uid), ("false", "00000000-0000-0000-0000-000000000000")):
        reference = OwnerReference(api_version="v1", kind="ConfigMap", name="owner", uid=uid)
        meta = ObjectMeta(name=name, namespace="default", owner_references=[reference])
        await client.create(ACME, ConfigMap(metadata=meta))
    await until(lambda: gone(client, ConfigMap, Ref(ACME, "default", "false")))
    assert not await gone(client, ConfigMap, Ref(ACME, "default", "true"))


async def test_pods_ports_and_addresses_of_a_deleted_node_are_freed(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    made = await client.create(ACME, pod("web"))
    ref = Ref(ACME, "default", "web")
    await until(lambda: bound(client, ref))
    port, address = await attach(client, made, ACME, "one", "10.0.0.9")
    await client.delete(Node, Ref(ROOT, "", "one"))
    await until(lambda: gone(client, Pod, ref))
    await until(lambda: gone(client, Port, port))
    await until(lambda: gone(client, Address, address))


async def test_the_port_of_a_living_agent_is_left_to_it(client: CuttableClient) -> None:
    await add_node(client, "one")
    await add_tenant(client, ACME)
    made = await client.create(ACME, pod("web"))
    ref = Ref(ACME, "default", "web")
    await until(lambda: bound(client, ref))
    port, address = await attach(client, made, ACME, "one", "10.0.0.9")
    await client.delete(Pod, ref, grace=0)

    async def marked() -> bool:
        return (await client.get(Port, port)).metadata.deletion_timestamp is not None

    await until(marked)
    await asyncio.sleep(1.0)
    assert not await gone(client, Port, port), "only the node knows when the link is gone"
    assert not await gone(client, Address, address)
    await release(client, port)
    await until(lambda: gone(client, Address, address))


async def test_pods_are_bound_and_the_rest_is_explained(client: CuttableClient) -> None:
    await add_node(client, "one", cpu="1")
    await add_node(client, "two", cpu="1")
    await add_tenant(client, ACME)
    small = {"resources": {"requests": {"cpu": "500m"}}}
    for name in ("a", "b"):
        await client.create(ACME, _with(pod(name), small))
    await client.create(ACME, _with(pod("big"), {"resources": {"requests": {"cpu": "2"}}}))
    await until(lambda: bound(client, Ref(ACME, "default", "a")))
    await until(lambda: bound(client, Ref(ACME, "default", "b")))
    nodes = {await bound(client, Ref(ACME, "default", n)) for n in ("a", "b")}
    assert nodes == {"one", "two"}, "pods of one namespace spread"

    async def explained() -> str:
        conditions = (await client.get(Pod, Ref(ACME, "default", "big"))).status.conditions or []
        return next((c.message for c in conditions if c.type == "PodScheduled" and c.status == "False"), "")

    why = (
        "0/2 nodes are available: 2 Insufficient cpu. "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert await until(explained) == why

    async def reported() -> list[str]:
        return [e.message for e in (await client.list(Event, ACME)).items if e.reason == "FailedScheduling"]

    assert await until(reported) == [why]
    await add_node(client, "three", cpu="4")
    assert await until(lambda: bound(client, Ref(ACME, "default", "big"))) == "three"


def _with(made: Pod, container: dict[str, Any]) -> Pod:
    import msgspec

    raw = msgspec.to_builtins(made)
    raw["spec"]["containers"][0].update(container)
    return msgspec.convert(raw, Pod)


async def test_a_silent_node_takes_no_pods_until_it_is_back(running: Any) -> None:
    from polder.api.discovery import Lease
    from polder.controllers.node import NodeController
    from tests.contract.controlled import HandClock

    client, clock = client_of(running), HandClock()
    try:
        await add_node(client, "one")
        lease = Ref(ROOT, "kube-node-lease", "one")
        await client.create(ROOT, Lease(metadata=ObjectMeta(name="one", namespace="kube-node-lease")))
        await add_node(client, "other")
        controller = NodeController(client, ControllerSettings(root_ca="", clock=clock), lambda _node: [])
        node = Ref(ROOT, "", "one")
        await controller.reconcile(node)
        clock.ahead = 39
        await controller.reconcile(node)
        assert not (await client.get(Node, node)).spec.taints
        clock.ahead = 41
        await controller.reconcile(node)
        found = await client.get(Node, node)
        assert {t.key for t in found.spec.taints or []} == {"node.kubernetes.io/unreachable"}
        assert [(c.type, c.status) for c in found.status.conditions or []] == [("Ready", "Unknown")]
        await client.patch(Lease, lease, {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})
        await controller.reconcile(node)
        found = await client.get(Node, node)
        assert not found.spec.taints
        (condition,) = found.status.conditions or []
        assert (condition.type, condition.status, condition.reason, condition.message) == ("Ready", "True", "", "")
        with pytest.raises(ApiError):
            await client.get(Node, Ref(ROOT, "", "two"))
    finally:
        await client.close()
