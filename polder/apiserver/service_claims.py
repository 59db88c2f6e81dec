"""Gives Services their addresses and ports: a row per address and per port, made in the same commit as the Service.

An address is claimed by an IPAddress of its tenant (networking.k8s.io/v1), named by it; a port on nodes by a row of
``nodeports``, which no client sees. Both are created with the expectation that nothing stands there, so that two servers
never give one away twice: who loses the race chooses again.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from polder.api import cidr
from polder.api.core import Service
from polder.api.errors import Field, FieldError, forbidden, internal, invalid
from polder.api.kinds import built_in, kind_of
from polder.api.meta import Raw
from polder.api.polder import DEFAULT_ROUTER, SYSTEM_NAMESPACE, Router
from polder.api.services import (
    NODE_PORTS,
    addresses,
    gives_node_ports,
    has_address,
    has_node_ports,
    needs_health_port,
    node_ports,
    settle_families,
    take_over,
)
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.hooks import Tenancy
from polder.apiserver.objects import decode_entry, encode
from polder.base.clock import Clock, stamp
from polder.store.protocol import Delete, Key, Prefix, Put, Store

SERVICES: Final = kind_of(Service)
_ROUTERS: Final = kind_of(Router).resource
ADDRESSES: Final = built_in("networking.k8s.io/v1", "ipaddresses")
PORT_CLAIMS: Final = "nodeports"
MANAGED: Final = "ipaddress.kubernetes.io/managed-by"
_TRIES: Final = 24
"""Addresses that are tried at random before all rows are looked at."""
_PAGE: Final = 500
"""Claims that are read at a time."""
_RESERVED: Final = 2
"""The network's own address and the ``kubernetes`` service's."""
_SPEC: Final = Field("spec")
NO_DATAPATH: Final = "this release of Polder does not yet forward traffic to service addresses and node ports"


def claim(address: str, namespace: str, name: str, now: str) -> Raw:
    """The IPAddress of a service."""
    meta = {
        "name": address,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": now,
        "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", MANAGED: "ipallocator.k8s.io"},
    }
    parent = {"group": "", "resource": "services", "namespace": namespace, "name": name}
    return {
        "apiVersion": ADDRESSES.api_version,
        "kind": ADDRESSES.kind,
        "metadata": meta,
        "spec": {"parentRef": parent},
    }


@dataclass(frozen=True, slots=True)
class ServiceClaims:
    """The hook that assigns and, as companion, gives back."""

    store: Store
    clock: Clock

    async def admit(self, context: AdmissionContext) -> None:
        """Fills in addresses, families and ports of a Service. Raises ApiError 422, or 500 where the range is full."""
        if not context.concerns(SERVICES.resource, "create", "update") or context.obj is None:
            return
        take_over(context.obj, context.old)
        if problems := list(settle_families(context.obj, context.old)):
            raise invalid(SERVICES, context.name, problems)
        spec, before = context.obj["spec"], (context.old or {}).get("spec") or {}
        if has_address(spec) and (context.old is None or before.get("type") == "ExternalName"):
            await self._address(context, spec)
        await self._ports(context, spec, node_ports(before))
        if context.verb == "create" and addresses(spec):
            context.warnings.append(NO_DATAPATH)

    async def _address(self, context: AdmissionContext, spec: Raw) -> None:
        wanted = spec.get("clusterIP") or ""
        if wanted and cidr.address(wanted) is None:
            return  # what is no address, validation refuses
        prefix = await self._range(context)
        if wanted:
            if problem := await self._problem(context, wanted, prefix):
                raise invalid(SERVICES, context.name, [(_SPEC / "clusterIPs").invalid(spec["clusterIPs"], problem)])
            return
        async for address in self._candidates(context, prefix):
            spec["clusterIP"], spec["clusterIPs"] = address, [address]
            context.given.add(address_key(context.tenant, address))
            return
        raise internal(f'failed to allocate a serviceIP for Service "{context.name}": range is full')

    async def _problem(self, context: AdmissionContext, wanted: str, prefix: ipaddress.IPv4Network) -> str:
        if ipaddress.IPv4Address(wanted) not in prefix or wanted == str(prefix[0]) or wanted == str(prefix[-1]):
            why = f"provided IP is not in the valid range. The range of valid IPs is {prefix}"
        elif wanted == str(prefix[1]) or await self.store.get(address_key(context.tenant, wanted)) is not None:
            why = "provided IP is already allocated"
        else:
            return ""
        return f"failed to allocate IP {wanted}: {why}"

    async def _range(self, context: AdmissionContext) -> ipaddress.IPv4Network:
        """The tenant's service addresses."""
        router = await self.store.get(Key(_ROUTERS, context.tenant, SYSTEM_NAMESPACE, DEFAULT_ROUTER))
        text = (decode_entry(router).get("spec") or {}).get("serviceCidr", "") if router else ""
        if not text:
            raise forbidden(SERVICES, context.name, "the tenant has no service addresses")
        return ipaddress.IPv4Network(text)

    async def _candidates(self, context: AdmissionContext, prefix: ipaddress.IPv4Network) -> AsyncIterator[str]:
        """Free addresses, the upper part of the range first: the lower is for addresses that are asked for by name."""
        size = prefix.num_addresses - 1
        lower = min(max(16, size // 16), 256) if size > 32 else _RESERVED
        for _ in range(_TRIES):
            address = str(prefix[random.randrange(min(lower, size - 1), size)])  # noqa: S311 - no secret
            if await self._is_free(context, address, prefix):
                yield address
        taken = await self._taken(context.tenant, prefix)
        for start, end in ((lower, size), (_RESERVED, lower)):
            number = taken.find(0, start, end)
            while number >= 0:
                yield str(prefix[number])
                number = taken.find(0, number + 1, end)

    async def _taken(self, tenant: str, prefix: ipaddress.IPv4Network) -> bytearray:
        """A byte for each address of the range: whether it is claimed. Read in pages, with pauses."""
        taken, first = bytearray(prefix.num_addresses), int(prefix.network_address)
        after: Key | None = None
        while True:
            page = await self.store.list(Prefix(ADDRESSES.resource, tenant), limit=_PAGE, after=after)
            for entry in page.entries:
                address = cidr.address(entry.key.name)
                if address is not None and address in prefix:
                    taken[int(address) - first] = 1
            after = page.after
            if after is None:
                return taken
            await asyncio.sleep(0)

    async def _is_free(self, context: AdmissionContext, address: str, prefix: ipaddress.IPv4Network) -> bool:
        reserved = {str(prefix[number]) for number in range(_RESERVED)}
        return address not in reserved and await self.store.get(address_key(context.tenant, address)) is None

    async def _ports(self, context: AdmissionContext, spec: Raw, held: set[int]) -> None:
        """Ports on nodes that are asked for are free; those that are wanted and not named are chosen."""
        mine = set(held)
        problems = []
        if has_node_ports(spec):
            for number, port in enumerate(spec.get("ports") or ()):
                at = (_SPEC / "ports")[number] / "nodePort"
                problems += await self._asked(context, port.get("nodePort") or 0, mine, at)
        if problems:
            raise invalid(SERVICES, context.name, problems)
        if gives_node_ports(spec):
            given: dict[int, int] = {p["port"]: p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    port["nodePort"] = given.get(port.get("port", 0)) or await self._free_port(context, mine)
                    given[port.get("port", 0)] = port["nodePort"]
        if needs_health_port(spec):
            asked = spec.get("healthCheckNodePort") or 0
            problems = await self._asked(context, asked, mine, _SPEC / "healthCheckNodePort")
            if problems:
                raise invalid(SERVICES, context.name, problems)
            spec["healthCheckNodePort"] = asked or await self._free_port(context, mine)

    async def _asked(self, context: AdmissionContext, port: int, mine: set[int], at: Field) -> list[FieldError]:
        if not port or port in mine:
            return []
        if port not in NODE_PORTS:
            valid = f"{NODE_PORTS[0]}-{NODE_PORTS[-1]}"
            return [at.invalid(port, f"provided port is not in the valid range. The range of valid ports is {valid}")]
        if await self.store.get(_port_key(context.tenant, port)) is not None:
            return [at.invalid(port, "provided port is already allocated")]
        mine.add(port)
        return []

    async def _free_port(self, context: AdmissionContext, mine: set[int]) -> int:
        for _ in range(_TRIES):
            port = random.choice(NODE_PORTS)  # noqa: S311 - no secret
            if port not in mine and await self.store.get(_port_key(context.tenant, port)) is None:
                return self._chosen(context, port, mine)
        taken = {int(e.key.name) for e in (await self.store.list(Prefix(PORT_CLAIMS, context.tenant))).entries}
        free = next((port for port in NODE_PORTS if port not in taken and port not in mine), 0)
        if not free:
            raise internal("failed to allocate a nodePort: range is full")
        return self._chosen(context, free, mine)

    def _chosen(self, context: AdmissionContext, port: int, mine: set[int]) -> int:
        mine.add(port)
        context.given.add(_port_key(context.tenant, port))
        return port

    async def lost(self, context: AdmissionContext, key: Key) -> bool:
        """Chooses another address or port than one that the server chose before. Raises ApiError 500."""
        if key not in context.given or context.obj is None:
            return False
        spec = context.obj["spec"]
        if key.resource == ADDRESSES.resource:
            spec["clusterIP"], spec["clusterIPs"] = "", []
            await self._address(context, spec)
            return True
        for port in spec.get("ports") or ():
            if port.get("nodePort") == int(key.name):
                del port["nodePort"]
        if spec.get("healthCheckNodePort") == int(key.name):
            del spec["healthCheckNodePort"]
        await self._ports(context, spec, node_ports(spec))
        return True

    async def accompany(self, context: AdmissionContext, value: bytes | None) -> None:
        """Claims what the Service has now, gives back what it had before, all of it where it goes."""
        if context.resource.kind.resource != SERVICES.resource or context.dry_run:
            return
        old = (context.old or {}).get("spec") or {}
        new = {} if value is None or context.obj is None else context.obj["spec"]
        for address in addresses(new):
            if address not in addresses(old):
                row = encode(claim(address, context.namespace, context.name, stamp(self.clock.now())))
                context.along.append(Put(address_key(context.tenant, address), row, 0))
        for port in sorted(node_ports(new) - node_ports(old)):
            row = orjson.dumps({"owner": f"{context.namespace}/{context.name}"})
            context.along.append(Put(_port_key(context.tenant, port), row, 0))
        await self._give_back(
            context, [_port_key(context.tenant, p) for p in sorted(node_ports(old) - node_ports(new))]
        )
        gone = [address for address in addresses(old) if address not in addresses(new)]
        await self._give_back(context, [address_key(context.tenant, address) for address in gone])

    async def _give_back(self, context: AdmissionContext, keys: Sequence[Key]) -> None:
        """Deletes rows that are this service's; what somebody removed by hand is no obstacle."""
        for key in keys:
            entry = await self.store.get(key)
            if entry is not None and claimant(entry.key, entry.value) == f"{context.namespace}/{context.name}":
                context.along.append(Delete(key, entry.revision))


def address_key(tenant: str, address: str) -> Key:
    """The row that claims an address of a tenant."""
    return Key(ADDRESSES.resource, tenant, "", address)


def _port_key(tenant: str, port: int) -> Key:
    return Key(PORT_CLAIMS, tenant, "", str(port))


def claimant(key: Key, value: bytes) -> str:
    """``namespace/name`` of the service that a claim, a row of ADDRESSES or PORT_CLAIMS, is for; empty for no service's."""
    raw = orjson.loads(value)
    if key.resource == PORT_CLAIMS:
        return str(raw["owner"])
    parent = (raw.get("spec") or {}).get("parentRef") or {}
    return f"{parent.get('namespace', '')}/{parent.get('name', '')}" if parent.get("resource") == "services" else ""


@dataclass(frozen=True, slots=True)
class HeldAddresses:
    """The IPAddress of a Service that has the address stays while the Service does."""

    store: Store
    tenancy: Tenancy

    async def admit(self, context: AdmissionContext) -> None:
        """Raises ApiError 403."""
        if not context.concerns(ADDRESSES.resource, "delete") or context.old is None:
            return
        parent = (context.old.get("spec") or {}).get("parentRef") or {}
        if parent.get("resource") != "services" or await self.tenancy.phase(context.tenant) == "Terminating":
            return
        key = Key(SERVICES.resource, context.tenant, parent.get("namespace", ""), parent.get("name", ""))
        service = await self.store.get(key)
        if service is not None and context.name in addresses(decode_entry(service).get("spec") or {}):
            raise forbidden(ADDRESSES, context.name, f"it is the address of Service {key.namespace}/{key.name}")
