"""The nouns of a tenant's logical network. Frozen, hashable, free of API objects and of any backend."""

from __future__ import annotations

from dataclasses import dataclass

from polder.sdn.topology.policies import Group, Policy
from polder.sdn.topology.vips import Hosted, Outside, Vip


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """A machine of the cluster, its address on the underlay, and what else it answers to there (IPv6): no tenant reaches
    either. ``zone`` is where it stands, as its label says. ``egress`` are the addresses from which tenants' traffic leaves it.
    """

    name: str
    underlay: str
    others: tuple[str, ...] = ()
    zone: str = ""
    egress: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class RouterAddress:
    """The transit address of a tenant's router on one node."""

    node: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class Router:
    """A tenant's layer-3 domain. ``service_cidr`` and ``service_cidr6`` are its services' ranges, empty for a family that it
    does not have. ``entry`` is the address of the tenant's ``kubernetes`` service, the first host of the first range, ``dns``
    that of its resolver, the tenth; empty where the tenant has no services. ``further`` are the prefixes of ServiceCIDRs that the
    tenant made, sorted. ``addresses`` are sorted by node; the IPv6 ones follow from them (``addressing.six``).
    """

    tenant: str
    name: str
    service_cidr: str = ""
    entry: str = ""
    addresses: tuple[RouterAddress, ...] = ()
    service_cidr6: str = ""
    dns: str = ""
    further: tuple[str, ...] = ()

    def address_on(self, node: str) -> str:
        """The router's address on ``node``; empty where it has none."""
        return next((a.address for a in self.addresses if a.node == node), "")


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A layer-2 segment, named ``namespace/name``. ``router`` empty is isolated: no gateway, no way out. ``mtu`` 0 is what
    the underlay allows. It has one prefix of each family, or of one: ``cidr`` and ``gateway`` are IPv4, ``cidr6`` and
    ``gateway6`` IPv6; empty where it does not have the family.
    """

    tenant: str
    name: str
    vni: int
    cidr: str
    gateway: str = ""
    router: str = ""
    mtu: int = 0
    cidr6: str = ""
    gateway6: str = ""

    @property
    def prefixes(self) -> tuple[tuple[str, str], ...]:
        """(prefix, gateway) of each family that it has."""
        return tuple(one for one in ((self.cidr, self.gateway), (self.cidr6, self.gateway6)) if one[0])

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways that it has."""
        return tuple(gateway for _, gateway in self.prefixes if gateway)


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One attachment, named ``namespace/name``, on network ``namespace/name``, with one address of each of the network's
    families. ``sandbox``, ``netns`` and ``link`` are set
    while a sandbox uses it. ``pod`` is for messages.
    """

    tenant: str
    name: str
    network: str
    node: str
    addresses: tuple[str, ...]
    mac: str
    pod: str = ""
    interface: str = "eth0"
    sandbox: str = ""
    netns: str = ""
    link: str = ""

    @property
    def attached(self) -> bool:
        """Whether a sandbox uses it."""
        return bool(self.sandbox and self.link)


@dataclass(frozen=True, slots=True)
class TenantTopology:
    """All of one tenant; every tuple is sorted."""

    tenant: str
    routers: tuple[Router, ...] = ()
    networks: tuple[Network, ...] = ()
    ports: tuple[Port, ...] = ()
    policies: tuple[Policy, ...] = ()
    groups: tuple[Group, ...] = ()
    vips: tuple[Vip, ...] = ()
    outsides: tuple[Outside, ...] = ()
    hosted: tuple[Hosted, ...] = ()


Part = NodeAddress | Router | Network | Port | Policy | Group | Vip | Outside | Hosted
"""What a fragment of the topology can be."""
