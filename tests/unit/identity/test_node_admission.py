"""What a node may bring, beyond which names it may write."""

from __future__ import annotations

import pytest

from polder.api.core import Node
from polder.api.errors import ApiError
from polder.api.kinds import kind_of
from polder.api.polder import Address, Port
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.catalog import Resource
from polder.apiserver.noderules import NodeRules
from polder.apiserver.types import Identity, Role
from polder.base.ids import ROOT, TenantName

NODE = Identity("system:node:n1", Role.NODE, node="n1")
ACME = TenantName("acme")


async def admit(world, type_, spec, tenant=ACME, name="x", old=None, who=NODE, more=None):
    namespace = "" if type_ is Node else "default"
    obj = {"metadata": {"name": name}, "spec": spec, **(more or {})}
    verb = "update" if old else "create"
    context = AdmissionContext(who, tenant, verb, Resource(kind_of(type_)), namespace, name, "", obj, old)
    await NodeRules(world.store, world.share).admit(context)


async def refused(field, *args, **more):
    with pytest.raises(ApiError, match="Invalid value") as caught:
        await admit(*args, **more)
    assert [c["field"] for c in caught.value.details["causes"]] == [field]


async def test_ports_are_for_pods_bound_to_the_node(world):
    mine, other = await world.pod("acme", "mine", "n1"), await world.pod("acme", "other", "n2")
    good = {"node": "n1", "pod": "mine", "podUid": mine}
    await admit(world, Port, good)
    await refused("spec.node", world, Port, {**good, "node": "n2"})
    await refused("spec.podUid", world, Port, {**good, "podUid": other})
    await refused("spec.podUid", world, Port, {"node": "n1", "pod": "other", "podUid": other})
    await refused("spec.podUid", world, Port, {"node": "n1"})
    await refused("spec.podUid", world, Port, good, tenant=TenantName("globex"))
    await admit(
        world,
        Port,
        {"node": "n1", "pod": "gone", "podUid": "1", "interface": "i"},
        old={"spec": {"pod": "gone", "podUid": "1"}},
    )
    await admit(world, Port, {"node": "n2"}, who=Identity("system:polder:controllers", Role.COMPONENT))


async def test_routers_ports_are_of_tenants_present(world):
    await world.pod("acme", "mine", "n1")
    await admit(world, Port, {"node": "n1", "routerOf": "acme"}, tenant=ROOT)
    await admit(world, Port, {"node": "n1", "routerOf": "root"}, tenant=ROOT)
    await refused("spec.routerOf", world, Port, {"node": "n1", "routerOf": "globex"}, tenant=ROOT)
    await refused("spec.routerOf", world, Port, {"node": "n1", "routerOf": "acme"})
    await admit(world, Port, {"node": "n1", "routerOf": "globex"}, tenant=ROOT, old={"spec": {"routerOf": "globex"}})


async def test_addresses_are_for_ports_of_the_node(world):
    for name, node in (("mine", "n1"), ("other", "n2")):
        await world.put("ports.polder.dev", "acme", "default", name, spec={"node": node})
    await admit(world, Address, {"node": "n1", "port": "default/mine"})
    await refused("spec.port", world, Address, {"node": "n1", "port": "default/other"})
    await refused("spec.port", world, Address, {"node": "n1", "port": "default/none"})
    await refused("spec.node", world, Address, {"node": "n2", "port": "default/mine"})


async def test_a_node_brings_its_own_node(world):
    await admit(world, Node, {}, tenant=ROOT, name="n1")
    await refused("metadata.name", world, Node, {}, tenant=ROOT, name="n2")


async def test_a_port_has_the_addresses_that_it_claimed(world):
    """A node that could write another's address into its Port would get that pod's traffic from all other nodes."""
    uid = await world.pod("acme", "mine", "n1")
    port = {"node": "n1", "pod": "mine", "podUid": uid, "network": "kube-system/default"}
    before = {"spec": port}
    claims = {
        "default.10.0.0.9": "default/x",
        "default.10.0.0.7": "default/y",
        "default.02-00-00-00-00-07": "default/y",
    }
    for name, holder in claims.items():
        await world.put("addresses.polder.dev", "acme", "kube-system", name, spec={"port": holder})
    good = {**port, "addresses": ["10.0.0.9"], "mac": "0a:58:0a:00:00:09"}
    await admit(world, Port, good, old=before)
    await refused("spec.addresses[0]", world, Port, {**good, "addresses": ["10.0.0.7"]}, old=before)
    await refused("spec.addresses[1]", world, Port, {**good, "addresses": ["10.0.0.9", "10.0.0.8"]}, old=before)
    await refused("spec.addresses[0]", world, Port, good, tenant=TenantName("acme"), old=before, name="z")
    await refused("spec.mac", world, Port, {**good, "mac": "0a:58:0a:00:00:07"}, old=before)
    await refused("spec.mac", world, Port, {**good, "mac": "02:00:00:00:00:07"}, old=before)
    await refused("spec.addresses[0]", world, Port, {**good, "network": "kube-system/other"}, old=before)


async def test_a_node_is_not_taken_for_another(world):
    addresses = {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]}
    await world.put("nodes", "root", "", "n2", spec={}, status=addresses)
    own = {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}
    await admit(world, Node, {}, tenant=ROOT, name="n1", more={"status": own})
    await refused("status.addresses", world, Node, {}, tenant=ROOT, name="n1", more={"status": addresses})
    label = {"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n2"}}}
    await refused("metadata.labels[kubernetes.io/hostname]", world, Node, {}, tenant=ROOT, name="n1", more=label)
