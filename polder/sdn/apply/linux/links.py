"""Making links as items say, or changing those that are there. Each function is idempotent: run again after a cut at any
line it ends in the same state. A link gets its owner (ifalias) last, a port comes up last; so one that is not finished is
known (see observe).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

from polder.sdn.apply.linux.keep import forwarding_of, neighbours_of
from polder.sdn.apply.linux.reaper import Reaper
from polder.sdn.apply.linux.spaces import GONE_GROUP, OpenSpace, SpaceError, Spaces
from polder.sdn.render.linux.items import Bridge, PortLink, Transit, Vxlan
from polder.sdn.topology.addressing import link_local_of
from polder.system.net import dumps, requests
from polder.system.net.codec import Message
from polder.system.net.netlink import NetlinkError, NetlinkSocket
from polder.system.net.netns import open_netns
from polder.system.net.requests import BridgePort, NewLink, NewRoute

PORT = BridgePort(hairpin=True, learning=False, flood=False, neigh_suppress=False, broadcast=True)
"""A pod's port. Its MAC is known and given as a forwarding entry, so nothing is learned and nothing unknown arrives."""
UPLINK = BridgePort(hairpin=False, learning=False, flood=False, neigh_suppress=True, broadcast=False)
"""A VXLAN device's port. What is for groups goes there, questions for MACs (broadcasts) do not."""
_WATCH = 0.5
"""Seconds to wait for the kernel's link watch at most."""
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


@dataclass(slots=True)
class Links:
    """Makes links; used by one worker thread."""

    spaces: Spaces
    reaper: Reaper

    def add(self, item: Bridge | Vxlan | PortLink | Transit) -> None:
        """Have the link as the item says. NetlinkError, NetnsError or SpaceError where that cannot be."""
        match item:
            case Bridge():
                self._bridge(item)
            case Vxlan():
                self._vxlan(item)
            case PortLink():
                self._port(item)
            case Transit():
                self._transit(item)

    def _bridge(self, item: Bridge) -> None:
        space = self.spaces.get(item.space)
        there = self._existing(space, item.name, "bridge")
        if not there:
            space.route.call(requests.add_bridge(NewLink(item.name, item.mac)))
        at = space.index(item.name)
        # the MTU counts as set by the user, and not as the ports' minimum, only by a change
        changes = [requests.change_link(at, up=True, more=requests.set_mtu(item.mtu))]
        if there and there.mac != item.mac:
            changes += [requests.change_link(at, more=requests.set_mac(item.mac)), *neighbours_of(space, at)]
        _all(space.route, [*changes, requests.change_link(at, alias=item.owner)])

    def _vxlan(self, item: Vxlan) -> None:
        space = self.spaces.get(item.space)
        bridge = space.index(item.bridge)
        there = self._existing(space, item.name, "vxlan")
        entries: Callable[[int], list[Message]] = lambda _: []  # noqa: E731 - nothing to give back to a new device
        if there and (there.vni, there.local) != (item.vni, item.local):
            entries = forwarding_of(space, there.index)
            self._delete(space, there)
            there = None
        if not there:
            self._make_vxlan(space, item)
        at = space.index(item.name)
        more = requests.set_mtu(item.mtu) + requests.set_master(bridge)
        if there and there.mac != item.mac:
            more += requests.set_mac(item.mac)
        _all(space.route, [requests.change_link(at, more=more), requests.change_link(at, port=UPLINK), *entries(at)])
        space.route.call(requests.change_link(at, up=True, alias=item.owner))

    def _make_vxlan(self, space: OpenSpace, item: Vxlan) -> None:
        """Asked in the node's namespace, which its packets leave from, and made in the router's."""
        new = NewLink(item.name, item.mac, item.mtu, up=False)
        node = self.spaces.node.route
        if self.spaces.settings.direct_vxlan:
            direct = NewLink(new.name, new.mac, new.mtu, netns=space.netns.fd, up=False)
            try:
                node.call(requests.add_vxlan(direct, item.vni, item.local))
                return
            except NetlinkError as exc:
                if exc.number not in _UNSUPPORTED:
                    raise
        passing = NewLink(f"{self.spaces.settings.prefix[:7]}{item.vni:x}", new.mac, new.mtu, up=False)
        node.call(requests.add_vxlan(passing, item.vni, item.local))
        at = dumps.link_named(node, passing.name).index
        moved = requests.change_link(at, more=requests.set_netns(space.netns.fd) + requests.set_name(item.name))
        node.call(moved)

    def _port(self, item: PortLink) -> None:
        space = self.spaces.get(item.space)
        bridge = space.index(item.bridge)
        there = self._existing(space, item.name, "veth")
        if not item.netns:
            if not there or not there.up:
                raise SpaceError(f"port {item.name}: no finished link and no sandbox namespace given to make it in")
            self._connect(space, item, bridge)
            return
        with open_netns(item.netns) as sandbox:
            inner = self.spaces.socket_in(sandbox)
            try:
                if there and not _paired(there, inner, item.interface):
                    self._delete(space, there)
                    there = None
                if not there:
                    peer = NewLink(item.interface, item.mac, item.mtu, netns=sandbox.fd, up=False)
                    self._veth(space, NewLink(item.name, mtu=item.mtu, up=False), peer)
                self._connect(space, item, bridge)
                _configure(inner, item)
                space.route.call(requests.change_link(space.index(item.name), up=True))
                _carrying((inner, item.interface), (space.route, item.name), (space.route, item.bridge))
            finally:
                inner.close()

    def _connect(self, space: OpenSpace, item: PortLink, bridge: int) -> None:
        """Owner and flags while the link is down: for one that is up the kernel walks all ports of the bridge."""
        at = space.index(item.name)
        more = requests.set_master(bridge) + requests.set_mtu(item.mtu)
        owned = requests.change_link(at, alias=item.owner)
        _all(space.route, [owned, requests.change_link(at, more=more), requests.change_link(at, port=PORT)])

    def _transit(self, item: Transit) -> None:
        space, node = self.spaces.get(item.space), self.spaces.node
        there = self._existing(space, item.name, "veth")
        if there and not _paired(there, node.route, item.node_name):
            self._delete(space, there)
            there = None
        if not there:
            node.indexes.pop(item.node_name, None)
            peer = NewLink(item.node_name, item.node_mac, item.mtu, netns=node.netns.fd, up=False)
            self._veth(space, NewLink(item.name, item.mac, item.mtu), peer)
        for end, name, mac in ((node, item.node_name, item.node_mac), (space, item.name, item.mac)):
            at = end.index(name)
            changes = [requests.change_link(at, up=True, more=requests.set_mtu(item.mtu))]
            if there and mac and dumps.link_named(end.route, name).mac != mac:
                changes += [requests.change_link(at, more=requests.set_mac(mac)), *neighbours_of(end, at)]
            _all(end.route, [*changes, requests.change_link(at, alias=item.owner)])
        _carrying((node.route, item.node_name), (space.route, item.name))

    def _veth(self, space: OpenSpace, link: NewLink, peer: NewLink) -> None:
        """Make a pair. Its other name may be held by a link that waits to be deleted."""
        try:
            space.route.call(requests.add_veth(link, peer))
        except NetlinkError as exc:
            if exc.number != errno.EEXIST:
                raise
            for name in self.reaper.waiting:
                self.reaper.reap(name)
            space.route.call(requests.add_veth(link, peer))

    def _existing(self, space: OpenSpace, name: str, kind: str) -> dumps.Link | None:
        """The link of that name, if it is of the kind and not condemned; else it is deleted first."""
        try:
            there = dumps.link_named(space.route, name)
        except NetlinkError as exc:
            if exc.number != errno.ENODEV:
                raise
            space.indexes.pop(name, None)
            return None
        space.indexes[name] = there.index
        if there.group == GONE_GROUP:
            self.reaper.reap(space.name)
        elif there.kind == kind:
            return there
        self._delete(space, there)
        return None

    def _delete(self, space: OpenSpace, link: dumps.Link) -> None:
        space.indexes.pop(link.name, None)
        try:
            space.route.call(requests.del_link(link.index))
        except NetlinkError as exc:
            if exc.number != errno.ENODEV:
                raise


def _carrying(*links: tuple[NetlinkSocket, str]) -> None:
    """Return when the links carry frames. A link that is up drops everything until the kernel's link watch has run, which on a
    busy machine is later than the next packet; a question for the gateway's MAC that is lost is repeated after 1 s only.
    (From Linux 6.8 on asking for a link runs the watch.)
    """
    until = time.monotonic() + _WATCH
    for sock, name in links:
        while not dumps.link_named(sock, name).running and time.monotonic() < until:
            time.sleep(0.0005)


def _paired(link: dumps.Link, elsewhere: NetlinkSocket, name: str) -> bool:
    """Whether the other end of ``link`` is the link ``name`` at that socket."""
    try:
        other = dumps.link_named(elsewhere, name)
    except NetlinkError:
        return False
    return other.kind == "veth" and other.index == link.peer and other.peer == link.index


def _configure(inner: NetlinkSocket, item: PortLink) -> None:
    """The pod's end: addresses, up, default routes; what is already so is fine. The kernel makes it no link-local address with
    its prefix: with that every pod could ask for any number of neighbours (ADR 5). One that has IPv6 gets its own alone.
    """
    at = dumps.link_named(inner, item.interface).index
    six = any(":" in one for one in item.addresses)
    failed = inner.batch([requests.change_link(at, more=requests.no_address6())])[0]
    if failed and (six or failed.number != errno.EAFNOSUPPORT):
        raise failed
    wanted: list[Message] = []
    for one in item.addresses:
        value, _, prefix = one.partition("/")
        wanted.append(requests.address(at, value, int(prefix), add=True))
    if six:
        wanted.append(requests.address(at, link_local_of(item.mac), 128, add=True))
    wanted += [requests.change_link(1, up=True), requests.change_link(at, up=True)]
    for gateway in item.gateways:
        default = "::/0" if ":" in gateway else "0.0.0.0/0"
        wanted.append(requests.route(NewRoute(default, at, via=gateway, onlink=True), add=True))
    _all(inner, wanted)


def _all(sock: NetlinkSocket, messages: list[Message]) -> None:
    """Send all; raise the first failure but EEXIST."""
    for failed in sock.batch(messages):
        if failed and failed.number != errno.EEXIST:
            raise failed
