"""Reading the kernel back into items: what stands in the routers' namespaces, and what is ours in the node's.

A link that is not finished (no owner) or not as made (a bridge port's flags) shows with an empty owner, so that it differs from
what is wanted. A table that someone edited shows with a text that says so.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from polder.base.errors import PolderError
from polder.sdn.apply.linux.links import PORT, UPLINK
from polder.sdn.apply.linux.reaper import Reaper
from polder.sdn.apply.linux.rules import comment_of
from polder.sdn.apply.linux.spaces import GONE_GROUP, OpenSpace, Spaces
from polder.sdn.render.linux.items import (
    NODE,
    Addr,
    Announced,
    Bridge,
    Chain,
    Element,
    Fdb,
    Item,
    NamedSet,
    Neigh,
    PortLink,
    Route,
    Ruleset,
    Space,
    Sysctl,
    Transit,
    Vxlan,
)
from polder.system.net import dumps, nfsets, nft, requests
from polder.system.net.dumps import Link
from polder.system.net.requests import BridgePort
from polder.system.net.sysctl import read_sysctl

_KERNELS, _LINK_SCOPE = 2, 253
EDITED = "# not as Polder loaded it"
"""The text of an observed table that was edited, or whose text is not among the expected."""


@dataclass(slots=True)
class Observation:
    """One look at the kernel; used by one worker thread. ``expected`` gives the texts that tables' digests stand for, the
    settings to read, and which of the node's own addresses and routes are ours.
    """

    spaces: Spaces
    reaper: Reaper
    expected: frozenset[Item]
    found: set[Item] = field(default_factory=set)
    _node_links: dict[int, Link] = field(default_factory=dict)
    _ours: set[int] = field(default_factory=set)
    _texts: dict[tuple[str, str, str, str], str] = field(default_factory=dict)

    def run(self) -> frozenset[Item]:
        """All that is there."""
        self.spaces.unheed((NODE,), seen=True)
        self._node_links = {link.index: link for link in dumps.links(self.spaces.node.route)}
        for name in self.spaces.names():
            try:
                space = self.spaces.get(name)
            except PolderError:
                self.found.add(Space(name, ""))  # a file without namespace: a crash, or a reboot
                continue
            self._router(space)
        self._node()
        self._sysctls()
        return frozenset(self.found)

    def _router(self, space: OpenSpace) -> None:
        self.spaces.noted((space.name,))
        self.spaces.unheed((space.name,), seen=True)
        links = dumps.links(space.route)
        names = {link.index: link.name for link in links}
        space.indexes = {link.name: link.index for link in links}
        dying = [link.index for link in links if link.group == GONE_GROUP]
        if dying:
            self.reaper.condemn(space.name, {}, dying)
        alive = {link.index: link for link in links if link.group != GONE_GROUP}
        for link in alive.values():
            self.found |= self._link(space, link, names)
        self.found |= _entries(space, alive)
        self._tables(space, every=True)

    def _link(self, space: OpenSpace, link: Link, names: dict[int, str]) -> set[Item]:
        if link.name == "lo":
            return {Space(space.name, link.alias)}
        at, bridge = (space.name, link.name), names.get(link.master, "")
        match link.kind:
            case "bridge":
                return {Bridge(*at, link.mac, link.mtu, link.alias if link.up else "")}
            case "vxlan":
                owner = link.alias if link.up and _flags(link) == UPLINK else ""
                return {Vxlan(*at, link.vni, link.mac, link.mtu, bridge, link.local, owner)}
            case "veth" if other := self._node_end(link):
                self._ours.add(other.index)
                up = link.up and other.up and link.mtu == other.mtu
                return {Transit(*at, other.name, link.mtu, link.alias if up else "")}
            case _:
                owner = link.alias if link.up and _flags(link) == PORT else ""
                return {PortLink(*at, bridge, link.mtu, owner)}

    def _node_end(self, link: Link) -> Link | None:
        """The other end of a veth, if that is a transit's in the node's namespace."""
        other = self._node_links.get(link.peer)
        pair = link.peer_elsewhere and other and other.kind == "veth" and other.peer == link.index and not link.master
        prefix = self.spaces.settings.prefix
        return other if pair and other and other.name.startswith(prefix) and other.alias == link.alias else None

    def _node(self) -> None:
        node = self.spaces.node
        self.spaces.noted((node.name,))
        node.indexes = {link.name: link.index for link in self._node_links.values()}
        for item in _entries(node, self._node_links):
            link = getattr(item, "link", "")
            if item in self.expected or node.indexes.get(link) in self._ours:
                self.found.add(item)
        for one in dumps.proxies(node.route):
            if one.ours and one.index in self._node_links:
                self.found.add(Announced(node.name, self._node_links[one.index].name, one.address))
        self._tables(node, every=False)

    def _tables(self, space: OpenSpace, *, every: bool) -> None:
        prefix = self.spaces.settings.prefix
        texts = {
            (one.family, one.table): one.text
            for one in self.expected
            if isinstance(one, Ruleset) and one.space == space.name
        }
        for table in nft.list_tables(space.nft):
            if not every and not table.comment.startswith(f"polder {prefix} "):
                continue
            at = (table.family, table.name)
            text = texts.get(at, EDITED)
            whole = table.sealed == table.actual and table.comment == comment_of(prefix, text)
            self.found.add(Ruleset(space.name, *at, text if whole else EDITED))
            space.sets.pop(at, None)
            chains = nft.list_chains(space.nft, *at)
            if not whole and (chains or any(nft.is_single(name) for name in space.table_sets(*at))):
                continue  # with the table all that is in it by itself comes anew, in one transaction
            self._elements(space, *at)
            self._chains((space.name, *at), chains)

    def _elements(self, space: OpenSpace, family: str, table: str) -> None:
        for one in space.table_sets(family, table).values():
            if nft.is_single(one.name):
                self.found.add(NamedSet(space.name, family, table, one.name, one.type))
            if one.kept:
                listed = nfsets.list_elements(space.nft, one)
                self.found |= {Element(space.name, family, table, one.name, key, value) for key, value in listed}

    def _chains(self, at: tuple[str, str, str], chains: dict[str, list[str]]) -> None:
        """Chains by themselves: each rule carries the digest of its text."""
        if not self._texts:
            known = (one for one in self.expected if isinstance(one, Chain))
            self._texts = {(one.space, one.family, one.table, one.name): one.text for one in known}
        for name, comments in chains.items():
            text = self._texts.get((*at, name), EDITED)
            whole = comments == [nft.digest_of(rule) for rule in text.splitlines()]
            self.found.add(Chain(*at, name, text if whole else EDITED))

    def _sysctls(self) -> None:
        wanted: dict[str, list[Sysctl]] = defaultdict(list)
        for item in self.expected:
            if isinstance(item, Sysctl):
                wanted[item.space].append(item)
        for name, items in wanted.items():
            try:
                space = self.spaces.get(name)
            except PolderError:
                continue
            values = self.spaces.run_in(space, lambda items=items: [read_sysctl(one.path) for one in items])  # type: ignore[misc]
            for item, value in zip(items, values, strict=True):
                if value is not None:
                    self.found.add(Sysctl(item.space, item.path, value))


def _flags(link: Link) -> BridgePort:
    return BridgePort(link.hairpin, link.learning, link.flood, link.neigh_suppress, link.broadcast)


def _entries(space: OpenSpace, links: dict[int, Link]) -> set[Item]:
    """Addresses, routes, permanent neighbours and forwarding entries on ``links``, without what the kernel makes itself."""
    at = space.name
    found: set[Item] = set()
    for one in dumps.addresses(space.route):
        if one.index in links and one.scope != _LINK_SCOPE and not _loopback(one.address):
            found.add(Addr(at, links[one.index].name, one.address, one.prefix))
    for way in dumps.routes(space.route):
        if way.index in links and way.protocol != _KERNELS:
            found.add(Route(at, way.destination, links[way.index].name, way.via, way.src, way.onlink))
    for near in dumps.neighbours(space.route):
        if near.index in links and near.state & requests.PERMANENT:
            found.add(Neigh(at, links[near.index].name, near.address, near.mac))
    for entry in dumps.forwarding_entries(space.route):
        if entry.index in links and dumps.is_given(entry):
            found.add(Fdb(at, links[entry.index].name, entry.mac, entry.remote))
    return found


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
