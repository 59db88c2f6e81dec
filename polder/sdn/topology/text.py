"""Canonical text of a tenant's topology."""

from __future__ import annotations

from collections.abc import Iterable

from polder.sdn.topology.lines import LineError, dump_lines, parse_line
from polder.sdn.topology.policies import Group, Policy
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router, TenantTopology
from polder.sdn.topology.vips import Hosted, Outside, Vip

TYPES: dict[str, type] = {
    t.__name__: t for t in (NodeAddress, Router, Network, Port, Policy, Group, Vip, Outside, Hosted)
}


def dump(topology: TenantTopology) -> str:
    """``Tenant NAME``, then one sorted line for each router, network and port."""
    body = "".join(dump_lines(part) for part in _parts_of(topology))
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
    known = list(parts)
    return TenantTopology(
        tenant,
        routers=tuple(sorted(p for p in known if isinstance(p, Router))),
        networks=tuple(sorted(p for p in known if isinstance(p, Network))),
        ports=tuple(sorted(p for p in known if isinstance(p, Port))),
        policies=tuple(sorted(p for p in known if isinstance(p, Policy))),
        groups=tuple(sorted(p for p in known if isinstance(p, Group))),
        vips=tuple(sorted(p for p in known if isinstance(p, Vip))),
        outsides=tuple(sorted(p for p in known if isinstance(p, Outside))),
        hosted=tuple(sorted(p for p in known if isinstance(p, Hosted))),
    )


def _parts_of(topology: TenantTopology) -> Iterable[Iterable[Part]]:
    first = (topology.routers, topology.networks, topology.ports, topology.policies, topology.groups)
    return *first, topology.vips, topology.outsides, topology.hosted
