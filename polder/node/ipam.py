"""Addresses: a Port for each attachment, an Address for each claim. Creating the Address is the claim; a conflict means
taken. No lock and no allocator exists: each node starts its search at a place of its own. A Port has an address of each of
its network's families, claimed at the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from polder.api.core import Pod
from polder.api.errors import ApiError
from polder.api.meta import TENANT_ANNOTATION, ObjectMeta, OwnerReference, ref_of
from polder.api.polder import (
    ADDRESS_ANNOTATION,
    API_VERSION,
    HOLDER_ANNOTATION,
    MAC_ANNOTATION,
    PORT_FINALIZER,
    SYSTEM_NAMESPACE,
    Address,
    AddressSpec,
    Network,
    Port,
    PortSpec,
    address_name,
    cidrs_of,
    gateways_of,
    port_name,
)
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.client.client import Client
from polder.node.policies import with_facts
from polder.sdn.topology.addressing import RESERVED_PREFIXES, gateway_of, mac_of_port
from polder.sdn.topology.invariants import Prefix, hosts_of, parse_prefix, usable

log = logging.getLogger(__name__)

TRANSIT = Ref(ROOT, SYSTEM_NAMESPACE, "transit")
"""The network of routers' addresses."""
MOST_CONFLICTS = 64
"""Claims that may fail in one search before it is left for later."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod asks for by annotation; empty leaves it to us. ``address`` may be one of each family with a comma between."""

    address: str = ""
    mac: str = ""

    def address_in(self, cidr: Prefix) -> str:
        """What it asks for of one family."""
        return next((one for one in self.address.split(",") if one and (":" in one) == (cidr.version == 6)), "")


class UsedAddresses:
    """The addresses of each network that a cache of Ports shows as used: what a search may skip. Feed it by ``change``."""

    def __init__(self) -> None:
        self._used: dict[Ref, dict[str, int]] = {}

    def change(self, _: Ref, old: Port | None, new: Port | None) -> None:
        """A handler for the informer of Ports."""
        for port, step in ((old, -1), (new, 1)):
            if port is None:
                continue
            counts = self._used.setdefault(network_of(port), {})
            for address in port.spec.addresses:
                counts[address] = counts.get(address, 0) + step
                if counts[address] <= 0:
                    del counts[address]

    def of(self, network: Ref) -> Mapping[str, int]:
        """The used addresses of one network."""
        return self._used.get(network, {})


class Ipam:
    """Claims and releases for one node. Methods raise ApiError where the server refuses, RetryableError or PermanentError
    with a sentence that names the object.
    """

    def __init__(self, client: Client, node: str, used: UsedAddresses) -> None:
        self._client = client
        self._node = node
        self._used = used
        self._next: dict[tuple[Ref, int], int] = {}
        self._locks: WeakValueDictionary[Ref, asyncio.Lock] = WeakValueDictionary()

    async def ensure_port(self, pod: Pod, network: Network, interface: str = "eth0") -> Port:
        """The Port of one interface of a pod, with its addresses claimed."""
        at = ref_of(pod)
        name = port_name(pod.metadata.uid, interface)
        net = ref_of(network)
        port = Port(
            api_version=API_VERSION,
            kind="Port",
            metadata=ObjectMeta(
                name=name,
                namespace=at.namespace,
                annotations={TENANT_ANNOTATION: at.tenant},
                finalizers=[PORT_FINALIZER],
                owner_references=[OwnerReference(api_version="v1", kind="Pod", name=at.name, uid=pod.metadata.uid)],
            ),
            spec=with_facts(
                PortSpec(
                    network=f"{net.namespace}/{net.name}",
                    node=self._node,
                    pod=at.name,
                    pod_uid=pod.metadata.uid,
                    interface=interface,
                ),
                pod,
            ),
        )
        annotations = pod.metadata.annotations or {}
        wish = Wish(annotations.get(ADDRESS_ANNOTATION, ""), annotations.get(MAC_ANNOTATION, ""))
        return await self._ensure(port, network, wish)

    async def ensure_router_address(self, tenant: TenantName) -> Port:
        """The transit Port of a tenant's router on this node."""
        port = Port(
            api_version=API_VERSION,
            kind="Port",
            metadata=ObjectMeta(
                name=router_port_name(tenant, self._node),
                namespace=SYSTEM_NAMESPACE,
                annotations={TENANT_ANNOTATION: ROOT},
                finalizers=[PORT_FINALIZER],
            ),
            spec=PortSpec(
                network=f"{TRANSIT.namespace}/{TRANSIT.name}", node=self._node, router_of=tenant, interface="up"
            ),
        )
        return await self._ensure(port, await self._client.get(Network, TRANSIT), Wish())

    async def release(self, port: Port) -> None:
        """Let a Port go that is in deletion and whose link is gone, then its addresses, which others may claim from here on."""
        ref = ref_of(port)
        kept = [f for f in port.metadata.finalizers or [] if f != PORT_FINALIZER]
        meta = {"uid": port.metadata.uid, "resourceVersion": port.metadata.resource_version, "finalizers": kept or None}
        try:
            await self._client.patch(Port, ref, {"metadata": meta})
        except ApiError as error:
            if not error.is_not_found:
                raise
        for claim in claims_of(port):
            await self._free(claim, port)

    def _lock(self, ref: Ref) -> asyncio.Lock:
        """One call at a time completes a Port; others of this node wait for it instead of meeting it at the server."""
        lock = self._locks.get(ref)
        if lock is None:
            lock = self._locks[ref] = asyncio.Lock()
        return lock

    async def _ensure(self, port: Port, network: Network, wish: Wish) -> Port:
        """The Port first: a claim names a Port that there is (the server sees to that). Then the claim, then the address
        into the Port. A try that was cut off is taken up where it ended.
        """
        ref = ref_of(port)
        async with self._lock(ref):
            found = await self._create(port)
            if found.spec.addresses and found.spec.mac:
                return found
            addresses = await self._claim_wish(found, network, wish)
            patch = {
                "metadata": {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version},
                "spec": {"addresses": addresses, "mac": wish.mac or mac_of_port(addresses)},
            }
            return await self._client.patch(Port, ref, patch)

    async def _create(self, port: Port) -> Port:
        ref = ref_of(port)
        try:
            found = await self._client.create(ref.tenant, port)
        except ApiError as error:
            if not error.is_already_exists:
                raise
            found = await self._client.get(Port, ref)
        if found.metadata.deletion_timestamp is not None:
            raise RetryableError(f"Port {ref} is being deleted; it is made again when it is gone", 0.2)
        if found.spec.node != self._node:
            raise PermanentError(f"Port {ref}: spec.node is {found.spec.node}, not this node {self._node}")
        return found

    async def _claim_wish(self, port: Port, network: Network, wish: Wish) -> list[str]:
        """Claim an address of each family, and the static MAC if there is one; the addresses. Where one family has none, the
        other's is given back.
        """
        ref, cidrs, mac = ref_of(port), _cidrs(network), wish.mac
        check_mac(ref, mac)
        _check_wish(port, network, cidrs, wish)
        if mac and not await self._claim(port, mac_claim(port, mac), mac):
            holder = await self._holder(mac_claim(port, mac))
            raise RetryableError(
                f"Port {ref}: the static MAC {mac} of Network {ref_of(network)} is used by {holder}", 2.0
            )
        found = await asyncio.gather(
            *(self._claim_one(port, network, cidr, wish.address_in(cidr)) for cidr in cidrs), return_exceptions=True
        )
        addresses = [one for one in found if isinstance(one, str)]
        failed = next((one for one in found if isinstance(one, BaseException)), None)
        if failed is not None:
            for address in addresses:
                await self._free(address_claim(port, address), port)
            raise failed
        return addresses

    async def _claim_one(self, port: Port, network: Network, cidr: Prefix, address: str) -> str:
        if address:
            return await self._claim_static(port, network, address)
        return await self._claim_any(port, network, cidr)

    async def _claim_static(self, port: Port, network: Network, address: str) -> str:
        if not await self._claim(port, address_claim(port, address), address):
            holder = await self._holder(address_claim(port, address))
            raise RetryableError(f"{_asked(port)}: {address} of Network {ref_of(network)} is used by {holder}", 2.0)
        return address

    async def _claim_any(self, port: Port, network: Network, cidr: Prefix) -> str:
        """The first free address from where this node's last search ended."""
        at = ref_of(network)
        for tried, address in enumerate(self._candidates(at, cidr, _gateways(network))):
            if tried == MOST_CONFLICTS:
                raise RetryableError(f"Network {at}: {tried} addresses tried in {cidr} are taken; it goes on", 0.5)
            if await self._claim(port, address_claim(port, address), address):
                return address
        raise RetryableError(f"Network {at} is full: every address of spec.cidr {cidr} is in use", 5.0)

    def _candidates(self, network: Ref, cidr: Prefix, gateways: Collection[str]) -> Iterator[str]:
        """Hosts that no known Port has, once round. The next search begins after the last one given here, so searches at the
        same time do not meet.
        """
        size, at = hosts_of(cidr), (network, cidr.version)
        start = self._next.get(at, start_of(self._node, size))
        used = self._used.of(network)
        for step in range(size):
            offset = (start + step) % size
            address = str(cidr[1 + offset])
            if address not in used and address not in gateways:
                self._next[at] = (offset + 1) % size
                yield address

    async def _claim(self, port: Port, claim: Ref, value: str) -> bool:
        """Whether the claim is this Port's: made now, or by an earlier try."""
        ref = ref_of(port)
        address = Address(
            api_version=API_VERSION,
            kind="Address",
            metadata=ObjectMeta(name=claim.name, namespace=claim.namespace),
            spec=AddressSpec(
                network=port.spec.network,
                address=value,
                port=f"{ref.namespace}/{ref.name}",
                pod_uid=port.spec.pod_uid,
                node=self._node,
            ),
        )
        try:
            await self._client.create(ref.tenant, address)
            return True
        except ApiError as error:
            if not error.is_already_exists:
                raise
        try:
            held = await self._client.get(Address, claim)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return False
        return held.spec.port == f"{ref.namespace}/{ref.name}" and await self._take_up(claim, held, port)

    async def _take_up(self, claim: Ref, held: Address, port: Port) -> bool:
        """Write that an earlier try's claim is needed (by which of several Ports of one name): a sweeper that judged the
        Address before then finds it changed. False if it is gone or another's meanwhile.
        """
        meta = {"uid": held.metadata.uid, "annotations": {HOLDER_ANNOTATION: port.metadata.uid}}
        try:
            await self._client.patch(Address, claim, {"metadata": meta})
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
            return False
        return True

    async def _holder(self, claim: Ref) -> str:
        """Who holds a claim; all of one network are of one tenant, so nothing of another is told."""
        try:
            held = await self._client.get(Address, claim)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return "nobody any more"
        return f"Port {held.spec.port}"

    async def _free(self, claim: Ref, port: Port) -> None:
        ref = ref_of(port)
        try:
            held = await self._client.get(Address, claim)
            if held.spec.port == f"{ref.namespace}/{ref.name}" and held.spec.pod_uid == port.spec.pod_uid:
                meta = held.metadata
                await self._client.delete(Address, claim, uid=meta.uid, resource_version=meta.resource_version)
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise


def start_of(node: str, size: int) -> int:
    """Where a node begins to search."""
    return int.from_bytes(hashlib.blake2b(node.encode(), digest_size=8).digest(), "big") % size


def network_of(port: Port) -> Ref:
    """The network of a port, of the same tenant."""
    namespace, _, name = port.spec.network.partition("/")
    return Ref(ref_of(port).tenant, namespace, name)


def address_claim(port: Port, address: str) -> Ref:
    """The Address of one address of a port's network."""
    network = network_of(port)
    return Ref(network.tenant, network.namespace, address_name(network.name, address))


def mac_claim(port: Port, mac: str) -> Ref:
    """The Address that claims a static MAC of a port's network."""
    network = network_of(port)
    return Ref(network.tenant, network.namespace, address_name(network.name, mac.replace(":", "-")))


def claims_of(port: Port) -> Iterable[Ref]:
    """Every claim that a port holds: a MAC that follows from an address is none of its own."""
    claims = [address_claim(port, address) for address in port.spec.addresses]
    own = [mac_of_port(port.spec.addresses)] if port.spec.addresses else []
    return [*claims, mac_claim(port, port.spec.mac)] if port.spec.mac and port.spec.mac not in own else claims


def router_port_name(tenant: TenantName, node: str) -> str:
    """A tenant's name has no dot, so this is unambiguous."""
    return f"router.{tenant}.{node}"


def check_mac(port: Ref, mac: str) -> None:
    """Raises PermanentError for a static MAC that could be a gateway's, a router's or another pod's."""
    if mac and mac.startswith(RESERVED_PREFIXES):
        raise PermanentError(
            f"Port {port}: annotation {MAC_ANNOTATION}: {mac} begins with {mac[:5]}, which Polder gives out itself"
        )


def _check_wish(port: Port, network: Network, cidrs: Sequence[Prefix], wish: Wish) -> None:
    """Raises PermanentError for an address that no pod of the network can have."""
    for address in filter(None, wish.address.split(",")):
        if not any(usable(cidr, address) for cidr in cidrs) or address in _gateways(network):
            raise PermanentError(
                f"{_asked(port)}: {address} is no address for a pod of Network {ref_of(network)}, "
                f"{', '.join(map(str, cidrs))} with gateway {', '.join(_gateways(network)) or 'none'}"
            )


def _asked(port: Port) -> str:
    return f"Pod {ref_of(port).namespace}/{port.spec.pod}: annotation {ADDRESS_ANNOTATION}"


def _cidrs(network: Network) -> list[Prefix]:
    """The network's prefixes, its own family first."""
    found = []
    for text in cidrs_of(network.spec):
        cidr = parse_prefix(text)
        if cidr is None or cidr.num_addresses < 4:
            raise PermanentError(f"Network {ref_of(network)}: spec.cidr {text!r} has no room for a pod")
        found.append(cidr)
    if not found:
        raise PermanentError(f"Network {ref_of(network)}: spec.cidr is empty")
    return found


def _gateways(network: Network) -> list[str]:
    if not network.spec.router:
        return []
    given = {":" in gateway: gateway for gateway in gateways_of(network.spec)}
    return [given.get(":" in cidr) or gateway_of(cidr) for cidr in cidrs_of(network.spec)]
