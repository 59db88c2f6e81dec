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


async def admit(world, type_, spec, tenant=ACME, name="x", old=None, who=NODE):
    namespace = "" if type_ is Node else "default"
    obj = {"metadata": {"name": name}, "spec": spec}
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
        {"node": "n1", "pod": "gone", "podUid": "1", "mac": "m"},
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
