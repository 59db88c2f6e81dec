"""Desired kernel state as a set of items: one frozen value for each thing that should exist.

An item lives in a *space*: ``NODE`` (the node's own network namespace) or a router's namespace by name. Two items
with the same ``slot`` are the same thing with other attributes: apply changes it in place or replaces it. What is
desired is a set; order is apply's affair. Every item has one line of canonical text (see text.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

NODE = ""
"""The space of the node's own namespace."""
EVERYBODY = "00:00:00:00:00:00"
"""A VXLAN device's forwarding entries for this MAC say where frames go that are for no known one: groups."""


@dataclass(frozen=True, slots=True, order=True)
class Space:
    """A router's network namespace, with forwarding on."""

    name: str
    owner: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("space", self.name)


@dataclass(frozen=True, slots=True, order=True)
class Bridge:
    """A network's bridge, with the gateway's MAC. ``owner`` becomes the ifalias."""

    space: str
    name: str
    mac: str
    mtu: int
    owner: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("link", self.space, self.name)


@dataclass(frozen=True, slots=True, order=True)
class Vxlan:
    """A network's VXLAN device, made in ``space`` with the node's namespace as link namespace; a port of ``bridge``,
    learning off, neigh_suppress on. ``local`` is the node's underlay address.
    """

    space: str
    name: str
    vni: int
    mac: str
    mtu: int
    bridge: str
    local: str
    owner: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("link", self.space, self.name)


@dataclass(frozen=True, slots=True, order=True)
class PortLink:
    """A pod's veth: ``name`` is the router's end, a port of ``bridge`` with hairpin on. The other end is made directly in
    the sandbox's namespace ``netns`` (a path) as ``interface``, with MAC, addresses (``a.b.c.d/len``), MTU and, for each of
    ``gateways``, a default route of its family. What stands in the pod's namespace is given when the link is made and is no part
    of the comparison with the kernel.
    """

    space: str
    name: str
    bridge: str
    mtu: int
    owner: str
    netns: str = field(default="", compare=False)
    interface: str = field(default="eth0", compare=False)
    mac: str = field(default="", compare=False)
    addresses: tuple[str, ...] = field(default=(), compare=False)
    gateways: tuple[str, ...] = field(default=(), compare=False)

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("link", self.space, self.name)


@dataclass(frozen=True, slots=True, order=True)
class Transit:
    """The veth between the node and a router: ``node_name`` in the node's namespace, ``name`` in ``space``. The two MACs
    are given when the pair is made, so that each end can have a permanent neighbour, and are no part of the comparison.
    """

    space: str
    name: str
    node_name: str
    mtu: int
    owner: str
    mac: str = field(default="", compare=False)
    node_mac: str = field(default="", compare=False)

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity: the pair."""
        return ("link", self.space, self.name)


@dataclass(frozen=True, slots=True, order=True)
class Addr:
    """An address with prefix length on a link."""

    space: str
    link: str
    address: str
    prefix: int

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("addr", self.space, self.link, self.address, str(self.prefix))


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """A route: ``via`` empty is on-link; ``src`` the preferred source. ``onlink`` for an unnumbered next hop."""

    space: str
    destination: str
    link: str
    via: str = ""
    src: str = ""
    onlink: bool = False

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("route", self.space, self.destination)


@dataclass(frozen=True, slots=True, order=True)
class Neigh:
    """A permanent neighbour."""

    space: str
    link: str
    address: str
    mac: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("neigh", self.space, self.link, self.address)


@dataclass(frozen=True, slots=True, order=True)
class Announced:
    """An address for which the node answers on ``link`` (a proxy neighbour) although it routes what comes for it on. When it is
    added, the wire is told: gratuitous ARP, or an unsolicited advertisement.
    """

    space: str
    link: str
    address: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("announced", self.space, self.link, self.address)


@dataclass(frozen=True, slots=True, order=True)
class Fdb:
    """A forwarding entry of a link: ``remote`` set is the VXLAN's own entry (``self``, towards that node), empty is the
    bridge's entry for the port ``link`` (``master static``). A VXLAN's entries for EVERYBODY are one for each remote.
    """

    space: str
    link: str
    mac: str
    remote: str = ""

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        if self.mac == EVERYBODY:
            return ("fdb", self.space, self.link, self.mac, self.remote)
        return ("fdb", self.space, self.link, self.mac, "self" if self.remote else "master")


@dataclass(frozen=True, slots=True, order=True)
class Ruleset:
    """A whole nftables table: chains, rules, sets without elements. ``text`` is nft syntax between the braces; the table
    carries its digest, so that another text replaces it in one transaction that keeps the elements' set empty or full
    as desired.
    """

    space: str
    family: str
    table: str
    text: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("ruleset", self.space, self.family, self.table)


@dataclass(frozen=True, slots=True, order=True)
class NamedSet:
    """A set of a table that comes and goes by itself, beside those of the table's text: its name has a dot. ``type`` is nft's
    for its keys.
    """

    space: str
    family: str
    table: str
    name: str
    type: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("set", self.space, self.family, self.table, self.name)


@dataclass(frozen=True, slots=True, order=True)
class Chain:
    """A chain of a table that comes and goes by itself, beside those of the table's text: its name has a dot. ``text`` has a
    rule in each line; another text replaces all of them in one transaction.
    """

    space: str
    family: str
    table: str
    name: str
    text: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("chain", self.space, self.family, self.table, self.name)


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """One element of a set or map of a Ruleset: ``key`` in nft syntax (parts joined by `` . ``), ``value`` for maps."""

    space: str
    family: str
    table: str
    set: str
    key: str
    value: str = ""

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("element", self.space, self.family, self.table, self.set, self.key)


@dataclass(frozen=True, slots=True, order=True)
class Sysctl:
    """A kernel setting of a namespace, below /proc/sys/."""

    space: str
    path: str
    value: str

    @property
    def slot(self) -> tuple[str, ...]:
        """Identity."""
        return ("sysctl", self.space, self.path)


Item = (
    Space
    | Bridge
    | Vxlan
    | PortLink
    | Transit
    | Addr
    | Route
    | Neigh
    | Announced
    | Fdb
    | Ruleset
    | NamedSet
    | Chain
    | Element
    | Sysctl
)
