"""Canonical text of a tenant's topology."""

from __future__ import annotations

from collections.abc import Iterable

from polder.sdn.topology.lines import LineError, dump_lines, parse_line
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router, TenantTopology

TYPES: dict[str, type] = {t.__name__: t for t in (NodeAddress, Router, Network, Port)}


def dump(topology: TenantTopology) -> str:
    """``Tenant NAME``, then one sorted line for each router, network and port."""
    body = "".join(dump_lines(part) for part in (topology.routers, topology.networks, topology.ports))
    return f"Tenant {topology.tenant}\n{body}"


def parse(text: str) -> TenantTopology:
    """The inverse of dump. Raises LineError."""
    head, _, body = text.partition("\n")
    word, _, tenant = head.partition(" ")
    if word != "Tenant" or not tenant:
        raise LineError(f"line {head!r}: a topology starts with Tenant NAME")
    return assemble(tenant, (parse_part(line) for line in body.splitlines() if line))


def parse_part(line: str) -> Part:
    """One line. Raises LineError."""
    part: Part = parse_line(line, TYPES)
    return part


def assemble(tenant: str, parts: Iterable[Part]) -> TenantTopology:
    """A topology of its parts, sorted."""
    routers: list[Router] = []
    networks: list[Network] = []
    ports: list[Port] = []
    for part in parts:
        if isinstance(part, Router):
            routers.append(part)
        elif isinstance(part, Network):
            networks.append(part)
        elif isinstance(part, Port):
            ports.append(part)
    return TenantTopology(tenant, tuple(sorted(routers)), tuple(sorted(networks)), tuple(sorted(ports)))
