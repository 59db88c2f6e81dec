"""The nouns of a tenant's logical network. Frozen, hashable, free of API objects and of any backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class NodeAddress:
    """A machine of the cluster and its address on the underlay."""

    name: str
    underlay: str


@dataclass(frozen=True, slots=True, order=True)
class RouterAddress:
    """The transit address of a tenant's router on one node."""

    node: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class Router:
    """A tenant's layer-3 domain. ``entry`` is the address of the tenant's ``kubernetes`` service, the first host of
    ``service_cidr``; both are empty where the tenant has no services. ``addresses`` are sorted by node.
    """

    tenant: str
    name: str
    service_cidr: str = ""
    entry: str = ""
    addresses: tuple[RouterAddress, ...] = ()

    def address_on(self, node: str) -> str:
        """The router's address on ``node``; empty where it has none."""
        return next((a.address for a in self.addresses if a.node == node), "")


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A layer-2 segment, named ``namespace/name``. ``router`` empty is isolated: no gateway, no way out. ``mtu`` 0 is what
    the underlay allows.
    """

    tenant: str
    name: str
    vni: int
    cidr: str
    gateway: str = ""
    router: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """One attachment, named ``namespace/name``, on network ``namespace/name``. ``sandbox``, ``netns`` and ``link`` are set
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


Part = NodeAddress | Router | Network | Port
"""What a fragment of the topology can be."""
