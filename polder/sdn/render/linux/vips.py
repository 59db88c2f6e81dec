"""A service on one node: elements of the tenant's maps, and the chains that they lead to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.from_node import PLATFORM
from polder.sdn.render.linux.hosted import render_node_ports
from polder.sdn.render.linux.items import Element, Item, Ruleset
from polder.sdn.render.linux.names import TABLE, router_space
from polder.sdn.render.linux.rules import CHECKS
from polder.sdn.render.linux.service_rules import (
    AT,
    CLUSTER,
    COUNTS,
    DOORS,
    ENDS,
    FIRST_NEAR,
    FLOWS,
    HAIRPIN,
    HERE,
    IDS,
    NUMBERS,
    OWN_MARK,
    TEXT,
    VIPS,
    family_of,
    from_chain,
    keep_chain,
    near_chain,
    pick_chain,
    slot_chain,
    stay_chain,
)
from polder.sdn.topology.vips import CLOSED, Backend, Vip, VipPort

MOST_BACKENDS = 4096
"""Of one port of a service on one node; more are not used."""
MOST_MACHINES = 64
"""Machines at whose addresses a node port answers within its tenant; where there are more, this node is among them."""
MOST_PLACES = 65536
"""Backends of a service on one node, counted for each address and port at which they answer: they are in memory that no tenant
pays for. Where it is more, each port has fewer.
"""


def has_node_port(vip: Vip) -> bool:
    """Whether it answers at addresses of machines, within its tenant."""
    return any(port.node_port for port in vip.ports)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Vip is rendered: the node's zone, the address of the tenant's router there (empty: the tenant is not there), and
    the
    machines of the cluster with their addresses, its own first.
    """

    router: str
    zone: str
    machines: tuple[tuple[str, str], ...] = ()


def render_vip(vip: Vip, place: Place, facts: NodeFacts) -> frozenset[Item]:
    """Node ports answer at the address of the tenant's router here and, within the tenant, at those of the machines: what a
    tenant
    asks of a machine's address leads to its own services or nowhere.
    """
    if not place.router:
        return frozenset()
    space = router_space(vip.tenant)
    items: set[Item] = {Ruleset(space, *AT, TEXT)}
    for address in vip.cluster:
        items.add(Element(space, *AT, f"{CLUSTER}{family_of(address)}", address))
    wide = [(facts.name, place.router), *place.machines[:MOST_MACHINES]]
    targets = len(vip.ports) * (len(vip.addresses) + len(wide))
    most = max(1, min(MOST_BACKENDS, MOST_PLACES // max(1, targets)))
    for port in vip.ports:
        for address in vip.addresses:
            target = _Target(space, vip, address, port.protocol, port.port, most)
            items |= target.items(port, vip.local, place.zone, facts.name, facts)
            if address not in vip.cluster:
                items |= target.from_outside(port, facts)
        for node, address in wide if port.node_port else ():
            target = _Target(space, vip, address, port.protocol, port.node_port, most)
            items |= target.items(port, vip.local_outside, place.zone, node, facts)
        if port.node_port and vip.tenant == PLATFORM:
            items |= _Target(space, vip, place.router, port.protocol, port.node_port, most).from_outside(port, facts)
    if vip.health:
        items.add(Element(space, "inet", TABLE, CHECKS, str(vip.health)))
        items |= _checked(space, vip, place.router, facts)
    return frozenset(items).union(render_node_ports(vip, place.router, facts))


def _checked(space: str, vip: Vip, router_address: str, facts: NodeFacts) -> set[Item]:
    """Its health check at the machine's address leads to the router's, where the agent answers."""
    target = _Target(space, vip, facts.underlay, "tcp", vip.health, 1)
    return target.to(router_address, vip.health)


def chosen(port: VipPort, family: str, zone: str, node: str, *, local: bool) -> list[Backend]:
    """Who answers clients of this node, as kube-proxy chooses: what is ready, else what ends and still answers. With ``local``
    of this node alone; else, where all that is ready has hints and one of them is for this node (zone), those.
    """
    ready, ending = ([b for b in some if family_of(b.address) == family] for some in (port.ready, port.ending))
    if local:
        found = [b for b in ready if b.node == node] or [b for b in ending if b.node == node]
    else:
        found = _hinted(ready, zone, node) or ending
    return found


def _hinted(ready: list[Backend], zone: str, node: str) -> list[Backend]:
    if all(backend.nodes for backend in ready):
        near = [backend for backend in ready if node in backend.nodes]
        if near:
            return near
    if zone and all(backend.zones for backend in ready):
        near = [backend for backend in ready if zone in backend.zones]
        if near:
            return near
    return ready


@dataclass(frozen=True, slots=True)
class _Target:
    """What clients ask for: one address, protocol and port of a service."""

    space: str
    vip: Vip
    address: str
    protocol: str
    port: int
    most: int

    @property
    def key(self) -> str:
        """As the maps' keys begin."""
        return f"{self.address} . {self.protocol} . {self.port}"

    def items(self, port: VipPort, local: bool, zone: str, node: str, facts: NodeFacts) -> set[Item]:
        """Nothing where nobody answers, which is refused; a drop where somebody does, but not on ``node`` with ``local``."""
        family = family_of(self.address)
        backends = chosen(port, family, zone, node, local=local)[: self.most]
        if not backends:
            elsewhere = any(family_of(b.address) == family for b in (*port.ready, *port.ending))
            return {self._element(VIPS, self.key, "drop")} if local and elsewhere else set()
        items = self._stay(backends) if self.vip.affinity else self._spread(backends)
        for backend in backends:
            if backend.node in ("", facts.name):
                items.add(self._element(HAIRPIN, f"{backend.address} . {backend.address}"))
            if self.protocol == "udp":
                items.add(self._element(FLOWS, f"{self.key} . {backend.address} . {backend.port}"))
        return items

    def from_outside(self, port: VipPort, facts: NodeFacts) -> set[Item]:
        """What is different for those who come by the uplink: whose name they ask in, and who answers a local policy."""
        family, vip = family_of(self.address), self.vip
        here = chosen(port, family, "", facts.name, local=True)[: self.most]
        items: set[Item] = {self._element(HERE, backend.address) for backend in here}
        if not vip.local_outside:
            return items
        if not here:
            return {self._element(DOORS, self.key, "drop")}
        near = near_chain(self.space, family, len(here), stay=bool(vip.affinity))
        items.add(near)
        items |= self._lead(DOORS, near.name)
        for slot, backend in enumerate(here, FIRST_NEAR):
            items.add(self._element(ENDS, f"{self.key} . {slot}", f"{backend.address} . {backend.port}"))
            if self.protocol == "udp":
                items.add(self._element(FLOWS, f"{self.key} . {backend.address} . {backend.port}"))
        return items

    def to(self, address: str, port: int) -> set[Item]:
        """What leads to one address alone, whoever asks."""
        name, items = pick_chain(self.space, 1)
        items.add(self._element(VIPS, self.key, f"goto {name}"))
        items.add(self._element(ENDS, f"{self.key} . 0", f"{address} . {port}"))
        return items

    def _lead(self, name: str, beyond: str) -> set[Item]:
        """An element that leads to a chain, past the one that asks who it is where not everybody may."""
        if not self.vip.sources or self.address not in self.vip.balanced:
            return {self._element(name, self.key, f"goto {beyond}")}
        sources = [text for text in self.vip.sources if text != CLOSED]
        door = from_chain(self.space, family_of(self.address), sources, beyond)
        return {door, self._element(name, self.key, f"goto {door.name}")}

    def _spread(self, backends: Sequence[Backend]) -> set[Item]:
        name, items = pick_chain(self.space, len(backends))
        items |= self._lead(VIPS, name)
        for slot, backend in enumerate(backends):
            items.add(self._element(ENDS, f"{self.key} . {slot}", f"{backend.address} . {backend.port}"))
        return items

    def _stay(self, backends: Sequence[Backend]) -> set[Item]:
        family, seconds = family_of(self.address), self.vip.affinity
        stay, slots = stay_chain(self.space, family, seconds), slot_chain(self.space, family, len(backends))
        items: set[Item] = {
            stay,
            slots,
            keep_chain(self.space, family, seconds),
            *self._lead(VIPS, stay.name),
            self._element(COUNTS, self.key, f"jump {slots.name}"),
            self._element(NUMBERS, self.key, str(_number(self.key))),
        }
        for slot, (backend, mark) in enumerate(zip(backends, _marks(backends), strict=True)):
            items.add(self._element(IDS, f"{self.key} . {slot}", str(mark)))
            items.add(self._element(ENDS, f"{self.key} . {mark}", f"{backend.address} . {backend.port}"))
        return items

    def _element(self, name: str, key: str, value: str = "") -> Element:
        return Element(self.space, *AT, f"{name}{family_of(self.address)}", key, value)


def _marks(backends: Iterable[Backend]) -> list[int]:
    """A mark for each backend that follows from its address and port. Where two would have the same, one takes the next."""
    taken: set[int] = set()
    marks: list[int] = []
    for backend in backends:
        mark = _number(f"{backend.address} . {backend.port}") | OWN_MARK
        while mark in taken:
            mark = (mark + 1) | OWN_MARK
        taken.add(mark)
        marks.append(mark)
    return marks


def _number(text: str) -> int:
    """31 bits. Two services of a tenant may share a number: then a client of both is at times not remembered."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1 or 1
