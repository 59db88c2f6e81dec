"""The nouns of services: addresses at which a tenant's service answers, and who answers. Frozen, free of API objects."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Who answers: an address and port of either family. ``node`` is where it runs, empty where nobody says so. ``zones`` and
    ``nodes`` are whose clients should come to it (KEP-2433).
    """

    address: str
    port: int
    node: str = ""
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class VipPort:
    """One port of a service. ``protocol`` is tcp, udp or sctp. ``ready`` are the backends in use; ``ending`` are those that
    terminate and still answer, in use where nothing is ready (KEP-1669). Their order is that of their slots (``arranged``).
    ``node_port`` 0 is none.
    """

    protocol: str
    port: int
    name: str = ""
    node_port: int = 0
    ready: tuple[Backend, ...] = ()
    ending: tuple[Backend, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class Vip:
    """A service that the datapath has a part in, named ``namespace/name``. ``addresses`` are of either family, all those at which
    it answers; of those ``cluster`` are the tenant's own service addresses, whose other ports refuse. ``local`` asks for
    backends of the client's own node alone, ``local_outside`` the same for what enters by a node port or from outside.
    ``affinity``
    is for how many seconds a client comes back to the backend that it had, 0 for not at all. ``balanced`` are the addresses
    that a load
    balancer was given, and ``sources`` the prefixes that may ask for those, all where it is empty (``CLOSED`` alone: nobody).
    ``health`` is the port at which a node says whether it has a backend; 0 is none.
    """

    tenant: str
    name: str
    addresses: tuple[str, ...]
    cluster: tuple[str, ...]
    ports: tuple[VipPort, ...]
    local: bool = False
    local_outside: bool = False
    affinity: int = 0
    balanced: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    health: int = 0

    @property
    def hinted(self) -> bool:
        """Whether it matters where a client is."""
        return any(backend.zones or backend.nodes for port in self.ports for backend in port.ready)


CLOSED = "closed"
"""In ``Vip.sources``: what was written there means no prefix, so nobody may ask."""


@dataclass(frozen=True, slots=True, order=True)
class Outside:
    """An address on the outside that the platform gave a tenant, for the service ``namespace/name``; named by the service's
    namespace and the address. ``node`` answers for it on its uplink; empty while none does.
    """

    tenant: str
    name: str
    address: str
    service: str
    node: str = ""


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    """A port of a machine that leads to a pod's ``port`` at ``address``. ``host`` is the one address of the machine where it
    does;
    empty is all of them. ``protocol`` is tcp, udp or sctp.
    """

    protocol: str
    number: int
    address: str
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Hosted:
    """A pod of this node, named ``namespace/name``, that ports of the node lead to."""

    tenant: str
    name: str
    ports: tuple[HostPort, ...]


def arranged(backends: dict[tuple[str, int], Backend], before: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """The backends by (address, port), each in the place that it had ``before``: who comes takes the place of one who went, else
    one at the end; the last ones fill what places are left. So one change of one backend moves one other at most.
    """
    places = [(one.address, one.port) if (one.address, one.port) in backends else None for one in before]
    known = set(places)
    fresh = sorted(at for at in backends if at not in known)
    holes = [number for number, at in enumerate(places) if at is None]
    for number, at in zip(holes, fresh, strict=False):
        places[number] = at
    places += fresh[len(holes) :]
    while None in places:
        last = places.pop()
        if last is not None:
            places[places.index(None)] = last
    return tuple(backends[at] for at in places if at is not None)
