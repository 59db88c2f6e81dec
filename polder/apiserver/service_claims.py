"""Gives Services their addresses and ports: a row per address and per port, made in the same commit as the Service.

An address is claimed by an IPAddress of its tenant (networking.k8s.io/v1), named by it; a port on nodes by a row of
``nodeports``, which no client sees. Both are created with the expectation that nothing stands there, so that two servers
never give one away twice: who loses the race chooses again.
"""

from __future__ import annotations

import ipaddress
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from polder.api.core import Service
from polder.api.errors import Field, FieldError, forbidden, internal, invalid
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.service_families import family_of, settle_families
from polder.api.services import (
    NODE_PORTS,
    addresses,
    gives_node_ports,
    has_address,
    has_node_ports,
    needs_health_port,
    node_ports,
    take_over,
)
from polder.apiserver.admission import AdmissionContext
from polder.apiserver.hooks import Tenancy
from polder.apiserver.objects import decode_entry, encode
from polder.apiserver.service_ranges import ADDRESSES, CIDRS, OWN, ServiceRange, ServiceRanges, address_key
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT
from polder.store.protocol import ConflictError, Delete, Key, Prefix, Put, Store

SERVICES: Final = kind_of(Service)
PORT_CLAIMS: Final = "nodeports"
MANAGED: Final = "ipaddress.kubernetes.io/managed-by"
_TRIES: Final = 24
"""Ports that are tried at random before all rows are looked at."""
_SPEC: Final = Field("spec")
INSIDE_ONLY: Final = (
    "node ports of a tenant answer its own pods only, at the addresses of the nodes; a Service of type LoadBalancer is reached "
    "from outside"
)


def claim(address: str, namespace: str, name: str, now: str) -> Raw:
    """The IPAddress of a service."""
    meta = {
        "name": str(ipaddress.ip_address(address)),
        "uid": str(uuid.uuid4()),
        "creationTimestamp": now,
        "labels": {"ipaddress.kubernetes.io/ip-family": family_of(address), MANAGED: "ipallocator.k8s.io"},
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
        ranges = await ServiceRanges(self.store).of(context.tenant)
        spec, before = context.obj["spec"], (context.old or {}).get("spec") or {}
        own = list(dict.fromkeys(found.family for found in ranges if found.check is None))
        families = own or before.get("ipFamilies") or ["IPv4"]
        if problems := list(settle_families(context.obj, context.old, families)):
            raise invalid(SERVICES, context.name, problems)
        if has_address(spec):
            await self._addresses(context, spec, set(addresses(before)), ranges)
        await self._ports(context, spec, node_ports(before))
        if context.verb == "create" and spec.get("type") == "NodePort" and context.tenant != ROOT:
            context.warnings.append(INSIDE_ONLY)

    async def _addresses(
        self, context: AdmissionContext, spec: Raw, held: set[str], ranges: Sequence[ServiceRange]
    ) -> None:
        """An address of each family that the Service has; those that it holds stay."""
        found = list(spec.get("clusterIPs") or ())
        problems: list[FieldError] = []
        for number, family in enumerate(spec.get("ipFamilies") or ()):
            fitting = [known for known in ranges if known.family == family]
            if number >= len(found):
                found.append(await self._free_address(context, fitting))
            elif found[number] not in held and (why := await self._problem(context, found[number], fitting)):
                problems.append((_SPEC / "clusterIPs").invalid(spec["clusterIPs"], why))
        if problems:
            raise invalid(SERVICES, context.name, problems)
        spec["clusterIPs"] = found
        spec["clusterIP"] = found[0] if found else ""

    async def _free_address(self, context: AdmissionContext, ranges: Sequence[ServiceRange]) -> str:
        if not ranges:
            raise forbidden(SERVICES, context.name, "the tenant has no service addresses")
        async for address in ServiceRanges(self.store).candidates(context.tenant, ranges):
            context.given.add(address_key(context.tenant, address))
            return address
        raise internal(f'failed to allocate a serviceIP for Service "{context.name}": range is full')

    async def _problem(self, context: AdmissionContext, wanted: str, ranges: Sequence[ServiceRange]) -> str:
        """Why an address that is asked for cannot be given; what is no address of the family, validation refuses."""
        try:
            version = ipaddress.ip_address(wanted).version
        except ValueError:
            return ""
        if not ranges:
            raise forbidden(SERVICES, context.name, "the tenant has no service addresses")
        fitting = [found for found in ranges if found.prefix.version == version]
        if not fitting:
            return ""
        if not any(found.gives(wanted) for found in fitting):
            valid = ", ".join(str(found.prefix) for found in fitting)
            why = f"provided IP is not in the valid range. The range of valid IPs is {valid}"
        elif await ServiceRanges(self.store).is_taken(context.tenant, wanted):
            why = "provided IP is already allocated"
        else:
            return ""
        return f"failed to allocate IP {wanted}: {why}"

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
        if context.obj is None or (key not in context.given and key.resource != CIDRS.resource):
            return False
        spec = context.obj["spec"]
        if key.resource in (ADDRESSES.resource, CIDRS.resource):
            await self._again(context, spec, key)
            return True
        for port in spec.get("ports") or ():
            if port.get("nodePort") == int(key.name):
                del port["nodePort"]
        if spec.get("healthCheckNodePort") == int(key.name):
            del spec["healthCheckNodePort"]
        await self._ports(context, spec, node_ports(spec))
        return True

    async def _again(self, context: AdmissionContext, spec: Raw, key: Key) -> None:
        """Another address than the one that is taken; where a range has changed, others than all that were chosen."""
        known = spec.get("clusterIPs") or []
        chosen = [address_key(context.tenant, address) for address in known]
        lost = {at for at in chosen if at == key or (key.resource == CIDRS.resource and at in context.given)}
        first = next((number for number, at in enumerate(chosen) if at in lost), len(chosen))
        spec["clusterIPs"] = known[:first]
        held = set(addresses((context.old or {}).get("spec") or {}))
        await self._addresses(context, spec, held, await ServiceRanges(self.store).of(context.tenant))

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
                await self._hold_range(context, address)
        for port in sorted(node_ports(new) - node_ports(old)):
            row = orjson.dumps({"owner": f"{context.namespace}/{context.name}"})
            context.along.append(Put(_port_key(context.tenant, port), row, 0))
        await self._give_back(
            context, [_port_key(context.tenant, p) for p in sorted(node_ports(old) - node_ports(new))]
        )
        gone = [address for address in addresses(old) if address not in addresses(new)]
        await self._give_back(context, [address_key(context.tenant, address) for address in gone])

    async def _hold_range(self, context: AdmissionContext, address: str) -> None:
        """Has the commit expect that the address's range stands. Raises ConflictError where it does not any more."""
        ranges = [r for r in await ServiceRanges(self.store).of(context.tenant) if r.gives(address)]
        if not ranges:
            raise ConflictError(Key(CIDRS.resource, context.tenant, "", OWN), None)
        check = ranges[0].check
        if check is not None and all(op.key != check.key for op in context.along):
            context.along.append(check)

    async def _give_back(self, context: AdmissionContext, keys: Sequence[Key]) -> None:
        """Deletes rows that are this service's; what somebody removed by hand is no obstacle."""
        for key in keys:
            entry = await self.store.get(key)
            if entry is not None and claimant(entry.key, entry.value) == f"{context.namespace}/{context.name}":
                context.along.append(Delete(key, entry.revision))


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
