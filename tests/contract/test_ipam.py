"""Addresses on a real API server: claims are atomic, repeatable, and freed by their holder alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.meta import ref_of
from polder.api.polder import PORT_FINALIZER, Address, Network, Port, port_name
from polder.apiserver.authn import NODES, PLATFORM_ADMINS, ROOT_URN
from polder.base.errors import PolderError, RetryableError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.node.ipam import Ipam, UsedAddresses, start_of

ACME = TenantName("acme")
SMALL = "10.5.0.0/29"


@dataclass
class Place:
    admin: Client
    nodes: dict[str, Client]

    def ipam(self, node: str) -> Ipam:
        """An agent that has no cache: it knows of no used address."""
        return Ipam(self.nodes[node], node, UsedAddresses())

    async def pod(self, name: str, node: str, **annotations: str) -> Pod:
        meta = {"name": name, "annotations": {f"polder.dev/{k}": v for k, v in annotations.items()}}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
        path = "/tenants/acme/api/v1/namespaces/default/pods"
        await _post(self.admin, path, body)
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name},
            "target": {"kind": "Node", "name": node},
        }
        await _post(self.admin, f"{path}/{name}/binding", binding)
        return await self.admin.get(Pod, Ref(ACME, "default", name))

    async def network(self, name: str, *cidrs: str) -> Network:
        body = {
            "apiVersion": "polder.dev/v1alpha1",
            "kind": "Network",
            "metadata": {"name": name},
            "spec": {"cidrs": list(cidrs)},
        }
        await _post(self.admin, "/tenants/acme/apis/polder.dev/v1alpha1/namespaces/default/networks", body)
        return await self.admin.get(Network, Ref(ACME, "default", name))

    async def addresses(self) -> set[str]:
        return {address.spec.address for address in (await self.admin.list(Address, ACME)).items}


async def _post(client: Client, path: str, body: dict) -> None:
    await client.raw("POST", path, json.dumps(body).encode())


@pytest.fixture
async def place(typed: Callable[..., Client]) -> Place:
    found = Place(
        typed("admin", PLATFORM_ADMINS, ROOT_URN), {n: typed(f"system:node:{n}", NODES) for n in ("n1", "n2")}
    )
    tenant = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}}
    await _post(found.admin, "/apis/polder.dev/v1alpha1/tenants", tenant)
    return found


async def test_a_port_is_whole_and_asking_twice_gives_the_same(place: Place) -> None:
    pod, network = await place.pod("one", "n1"), await place.network("a", "10.5.0.0/24")
    port = await place.ipam("n1").ensure_port(pod, network)
    assert port.metadata.name == port_name(pod.metadata.uid, "eth0")
    assert port.metadata.finalizers == [PORT_FINALIZER]
    assert [o.uid for o in port.metadata.owner_references or []] == [pod.metadata.uid]
    start = start_of("n1", 254)
    assert port.spec.addresses == [f"10.5.0.{start + 1}"] or start == 0
    assert port.spec.mac == "0a:58:" + ":".join(f"{int(b):02x}" for b in port.spec.addresses[0].split("."))
    again = await place.ipam("n1").ensure_port(pod, network)
    assert again.spec == port.spec
    assert await place.addresses() == set(port.spec.addresses)


async def test_two_nodes_without_caches_share_a_network_to_its_last_address(place: Place) -> None:
    network = await place.network("a", SMALL)
    pods = [(await place.pod(f"p{n}", f"n{n % 2 + 1}"), f"n{n % 2 + 1}") for n in range(5)]
    ipams = {name: place.ipam(name) for name in ("n1", "n2")}
    ports = await asyncio.gather(*(ipams[node].ensure_port(pod, network) for pod, node in pods))
    assert {a for port in ports for a in port.spec.addresses} == {f"10.5.0.{n}" for n in range(2, 7)}
    late = await place.pod("late", "n1")
    with pytest.raises(
        RetryableError, match=r"Network acme:default/a is full: every address of spec\.cidr 10\.5\.0\.0/29"
    ):
        await ipams["n1"].ensure_port(late, network)


async def test_the_same_port_wanted_twice_at_once_claims_once(place: Place) -> None:
    network, pod = await place.network("a", "10.5.0.0/24"), await place.pod("one", "n1")
    ipam = place.ipam("n1")
    ports = await asyncio.gather(*(ipam.ensure_port(pod, network) for _ in range(8)))
    assert len({tuple(port.spec.addresses) for port in ports}) == 1
    routers = await asyncio.gather(*(ipam.ensure_router_address(ACME) for _ in range(8)))
    assert len({tuple(port.spec.addresses) for port in routers}) == 1
    assert routers[0].spec.addresses[0].startswith("100.")
    assert len(await place.addresses()) == 1


async def test_what_was_claimed_before_a_crash_is_used_by_the_next_try(place: Place) -> None:
    """The crash came between the claim and its note in the Port."""
    network, pod = await place.network("a", "10.5.0.0/24"), await place.pod("one", "n1")
    port = await place.ipam("n1").ensure_port(pod, network)
    patch = {"spec": {"addresses": None, "mac": None}}
    await place.nodes["n1"].patch(Port, ref_of(port), patch)
    again = await place.ipam("n1").ensure_port(pod, network)
    assert again.spec.addresses == port.spec.addresses
    assert await place.addresses() == set(port.spec.addresses)


async def test_a_static_address_that_is_taken_names_its_holder(place: Place) -> None:
    network = await place.network("a", "10.5.0.0/24")
    first = await place.pod("one", "n1", address="10.5.0.77", network="default/a")
    port = await place.ipam("n1").ensure_port(first, network)
    second = await place.pod("two", "n2", address="10.5.0.77", network="default/a")
    with pytest.raises(
        PolderError, match=f"10.5.0.77 of Network acme:default/a is used by Port default/{port.metadata.name}"
    ):
        await place.ipam("n2").ensure_port(second, network)
    outside = await place.pod("three", "n2", address="10.5.0.99", network="default/a")
    with pytest.raises(
        PolderError, match=r"10\.5\.0\.99 is no address for a pod of Network acme:default/b, 10\.7\.0\.0/24"
    ):
        await place.ipam("n2").ensure_port(outside, await place.network("b", "10.7.0.0/24"))


async def test_a_port_claims_an_address_of_each_family_and_releases_both(place: Place) -> None:
    network = await place.network("a", "fd00:5::/64", "10.5.0.0/24")
    pod = await place.pod("one", "n1")
    ipam = place.ipam("n1")
    port = await ipam.ensure_port(pod, network)
    six, four = port.spec.addresses
    assert (six[:7], four[:5]) == ("fd00:5:", "10.5."), "in the order of the network's prefixes"
    assert port.spec.mac == "0a:58:" + ":".join(f"{int(b):02x}" for b in four.split("."))
    await place.nodes["n1"].patch(Port, ref_of(port), {"spec": {"addresses": None, "mac": None}})
    assert (await place.ipam("n1").ensure_port(pod, network)).spec == port.spec, "taken up after a crash"
    assert await place.addresses() == {six, four}
    await place.nodes["n1"].delete(Port, ref_of(port), uid=port.metadata.uid)
    await ipam.release(await place.nodes["n1"].get(Port, ref_of(port)))
    assert await place.addresses() == set()


async def test_static_addresses_of_both_families_are_claimed_and_refused_together(place: Place) -> None:
    network = await place.network("a", "10.5.0.0/24", "fd00:5::/64")
    first = await place.pod("one", "n1", address="fd00:5::77,10.5.0.77", network="default/a")
    port = await place.ipam("n1").ensure_port(first, network)
    assert port.spec.addresses == ["10.5.0.77", "fd00:5::77"]
    second = await place.pod("two", "n2", address="fd00:5::77", network="default/a")
    with pytest.raises(
        PolderError, match=f"fd00:5::77 of Network acme:default/a is used by Port default/{port.metadata.name}"
    ):
        await place.ipam("n2").ensure_port(second, network)
    assert await place.addresses() == set(port.spec.addresses), "its IPv4 address is free again"
    for address, why in (
        ("fd00:5::1", "is reserved"),
        ("fd00:5::1:0:0:5", "is reserved"),
        ("fd00:6::5", "is not in 10.5.0.0/24"),
    ):
        with pytest.raises(ApiError, match=why):
            await place.pod("three", "n2", address=address, network="default/a")


async def test_a_network_of_ipv6_alone_is_shared_to_its_last_address(place: Place) -> None:
    network = await place.network("a", "fd00:5::/125")
    pods = [(await place.pod(f"p{n}", f"n{n % 2 + 1}"), f"n{n % 2 + 1}") for n in range(5)]
    ipams = {name: place.ipam(name) for name in ("n1", "n2")}
    ports = await asyncio.gather(*(ipams[node].ensure_port(pod, network) for pod, node in pods))
    assert {a for port in ports for a in port.spec.addresses} == {f"fd00:5::{n}" for n in range(2, 7)}
    assert len({port.spec.mac for port in ports}) == 5
    with pytest.raises(RetryableError, match="is full"):
        await ipams["n1"].ensure_port(await place.pod("late", "n1"), network)


async def test_release_frees_what_is_its_own_and_nothing_else(place: Place) -> None:
    network = await place.network("a", "10.5.0.0/24")
    ipam = place.ipam("n1")
    pod = await place.pod("one", "n1", mac="02:00:00:00:00:01")
    port = await ipam.ensure_port(pod, network)
    assert len(await place.addresses()) == 2, "address and static MAC"
    await place.nodes["n1"].delete(Port, ref_of(port), uid=port.metadata.uid)
    going = await place.nodes["n1"].get(Port, ref_of(port))
    with pytest.raises(RetryableError, match="is being deleted"):
        await ipam.ensure_port(pod, network)
    await ipam.release(going)
    await ipam.release(going)
    assert await place.addresses() == set()
    with pytest.raises(ApiError) as gone:
        await place.admin.get(Port, ref_of(port))
    assert gone.value.is_not_found
    taken = await place.pod("two", "n2", address=port.spec.addresses[0], network="default/a")
    successor = await place.ipam("n2").ensure_port(taken, network)
    await ipam.release(going)
    assert await place.addresses() == set(successor.spec.addresses), "a late release leaves the successor's claim alone"


async def test_an_address_that_is_taken_up_again_is_not_swept_on_an_older_look(place: Place) -> None:
    pod, network = await place.pod("one", "n1"), await place.network("a", "10.5.0.0/24")
    port = await place.ipam("n1").ensure_port(pod, network)
    (judged,) = (await place.admin.list(Address, ACME)).items
    await place.admin.patch(Port, ref_of(port), {"metadata": {"finalizers": None}})
    await place.admin.delete(Port, ref_of(port))
    again = await place.ipam("n1").ensure_port(pod, network)
    assert again.metadata.uid != port.metadata.uid and again.spec.addresses == port.spec.addresses
    meta = judged.metadata
    with pytest.raises(ApiError) as caught:
        await place.admin.delete(Address, ref_of(judged), uid=meta.uid, resource_version=meta.resource_version)
    assert caught.value.is_conflict


async def test_a_network_in_deletion_gets_no_new_port(place: Place) -> None:
    pod, network = await place.pod("one", "n1"), await place.network("a", "10.5.0.0/24")
    await place.admin.patch(Network, ref_of(network), {"metadata": {"finalizers": ["example.com/hold"]}})
    await place.admin.delete(Network, ref_of(network))
    with pytest.raises(ApiError, match="network default/a is being deleted") as caught:
        await place.ipam("n1").ensure_port(pod, network)
    assert caught.value.is_forbidden
    assert (await place.admin.list(Port, ACME)).items == []
