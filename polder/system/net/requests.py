"""Requests of rtnetlink, built from plain values (linux/if_link.h, rtnetlink.h, neighbour.h). Nothing here does I/O."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from polder.system.net.codec import (
    APPEND,
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Message,
    attr,
    family_of,
    ip,
    ip_bytes,
    mac,
    nested,
    text,
    u8,
    u16be,
    u32,
)

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
LINK = struct.Struct("=BxHiII")
"""ifinfomsg: family, device type, index, flags, changed flags."""
ADDR = struct.Struct("=BBBBI")
"""ifaddrmsg: family, prefix length, flags, scope, index."""
ROUTE = struct.Struct("=BBBBBBBBI")
"""rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags."""
NEIGH = struct.Struct("=BxxxiHBB")
"""ndmsg: family, index, state, flags, type."""
UP = 0x1
RUNNING = 0x40
"""IFF_RUNNING: the link is operational (RFC 2863), which the kernel's link watch says."""
AF_BRIDGE = 7
OUR_PROTOCOL = 112
"""The routing protocol number that marks our routes."""
PERMANENT, NOARP, REACHABLE = 0x80, 0x40, 0x02
NTF_SELF, NTF_MASTER, NTF_PROXY = 0x02, 0x04, 0x08
_ONLINK = 4
_VXLAN_PORT = 4789
_LINK_SCOPE = 253
_EXCLUSIVE = CREATE | EXCLUSIVE


@dataclass(frozen=True, slots=True)
class NewLink:
    """What any new link may have; ``master`` is an index where the link is made. ``netns`` (an open file descriptor) is
    where it is made, -1 the socket's own.
    """

    name: str
    mac: str = ""
    mtu: int = 0
    master: int = 0
    netns: int = -1
    up: bool = True


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A bridge port's attributes; see linux/if_link.h, IFLA_BRPORT_*."""

    hairpin: bool
    learning: bool
    flood: bool
    neigh_suppress: bool
    broadcast: bool = True

    def pack(self) -> bytes:
        """As attributes of IFLA_INFO_SLAVE_DATA; ports are never isolated from each other, and all get what is for groups."""
        return b"".join(
            (
                u8(4, self.hairpin),
                u8(8, self.learning),
                u8(9, self.flood),
                u8(27, 1),
                u8(30, self.broadcast),
                u8(32, self.neigh_suppress),
                u8(33, 0),
            )
        )


@dataclass(frozen=True, slots=True)
class NewRoute:
    """A route of the main table; ``via`` and ``src`` may be empty."""

    destination: str
    index: int
    via: str = ""
    src: str = ""
    onlink: bool = False


def add_bridge(link: NewLink) -> Message:
    """A bridge without spanning tree, multicast snooping and forward delay: they have no place in front of containers."""
    data = nested(2, u32(1, 0), u32(5, 0), u8(23, 0))
    return _new_link(link, text(1, "bridge") + data)


def add_vxlan(link: NewLink, vni: int, local: str) -> Message:
    """A VXLAN device, sent on a socket of the namespace that its outer packets leave from; learns and floods nothing."""
    data = nested(2, u32(1, vni), ip(4 if ":" not in local else 17, local), u8(7, 0), u16be(15, _VXLAN_PORT))
    return _new_link(link, text(1, "vxlan") + data)


def add_veth(link: NewLink, peer: NewLink) -> Message:
    """A pair; the kernel refuses to have the peer up at once."""
    inner = LINK.pack(0, 0, 0, 0, 0) + _link_attrs(peer)
    return _new_link(link, text(1, "veth") + nested(2, nested(1, inner)))


def change_link(
    index: int, *, up: bool | None = None, alias: str | None = None, port: BridgePort | None = None, more: bytes = b""
) -> Message:
    """Change an existing link; ``more`` are further attributes (see set_mac, set_mtu, set_master)."""
    body = LINK.pack(0, 0, index, UP if up else 0, 0 if up is None else UP) + more
    if alias is not None:
        body += attr(20, alias.encode())
    if port:
        body += nested(18, text(4, "bridge"), nested(5, port.pack()))
    return Message(NEWLINK, 0, body, f"link {index}")


def set_mac(value: str) -> bytes:
    """For change_link."""
    return mac(1, value)


def no_address6() -> bytes:
    """For change_link: the kernel makes no link-local address by itself (IN6_ADDR_GEN_MODE_NONE)."""
    return nested(26, nested(socket.AF_INET6, u8(8, 1)))


def set_mtu(value: int) -> bytes:
    """For change_link."""
    return u32(4, value)


def set_master(index: int) -> bytes:
    """For change_link; 0 takes the link out of its bridge."""
    return u32(10, index)


def set_group(group: int) -> bytes:
    """For change_link."""
    return u32(27, group)


def set_netns(fd: int) -> bytes:
    """For change_link: move it."""
    return u32(28, fd)


def set_name(value: str) -> bytes:
    """For change_link by index: rename it."""
    return text(3, value)


def get_link(name: str) -> Message:
    """Ask for one link by name."""
    return Message(GETLINK, 0, LINK.pack(0, 0, 0, 0, 0) + text(3, name), f"link {name}")


def del_link(index: int) -> Message:
    """Delete one link."""
    return Message(DELLINK, 0, LINK.pack(0, 0, index, 0, 0), f"link {index}")


def del_group(group: int) -> Message:
    """Delete all links of a group of the namespace in one go."""
    return Message(DELLINK, 0, LINK.pack(0, 0, 0, 0, 0) + u32(27, group), f"links of group {group}")


def address(index: int, value: str, prefix: int, *, add: bool) -> Message:
    """Add or delete an address; IPv6 without duplicate detection, since IPAM has done it."""
    family = family_of(value)
    body = ADDR.pack(family, prefix, 0x02 if ":" in value else 0, 0, index) + ip(2, value) + ip(1, value)
    return Message(NEWADDR if add else DELADDR, _EXCLUSIVE if add else 0, body, f"address {value}/{prefix}")


def route(new: NewRoute, *, add: bool) -> Message:
    """Add, replace or delete a route of the main table."""
    net, _, length = new.destination.partition("/")
    family = family_of(net)
    bits = int(length) if length else len(ip_bytes(net)) * 8
    scope = 0 if new.via or not add else _LINK_SCOPE
    if not add:
        scope = 255  # any
    flags = _ONLINK if new.onlink else 0
    body = ROUTE.pack(family, bits, 0, 0, 254, OUR_PROTOCOL, scope, 1, flags)
    body += (ip(1, net) if bits else b"") + u32(4, new.index)
    body += (ip(5, new.via) if new.via else b"") + (ip(7, new.src) if new.src else b"")
    return Message(NEWROUTE if add else DELROUTE, CREATE | REPLACE if add else 0, body, f"route {new.destination}")


def neighbour(index: int, value: str, lladdr: str, *, add: bool) -> Message:
    """Add, replace or delete a permanent neighbour."""
    body = NEIGH.pack(family_of(value), index, PERMANENT, 0, 0) + ip(1, value) + (mac(2, lladdr) if add else b"")
    return Message(NEWNEIGH if add else DELNEIGH, CREATE | REPLACE if add else 0, body, f"neighbour {value}")


def proxy(index: int, value: str, *, add: bool) -> Message:
    """Have the link answer for an address that is elsewhere (a proxy neighbour), or not any more. It carries our protocol
    number."""
    body = NEIGH.pack(family_of(value), index, 0, NTF_PROXY, 0) + ip(1, value) + (u8(12, OUR_PROTOCOL) if add else b"")
    return Message(NEWNEIGH if add else DELNEIGH, CREATE | REPLACE if add else 0, body, f"proxy neighbour {value}")


def forwarding(index: int, lladdr: str, remote: str, *, add: bool) -> Message:
    """Add, replace or delete a forwarding entry: with ``remote`` the VXLAN device's own, else its bridge's for the port. A
    VXLAN device's for the MAC of zeros may have several remotes: each is added to the others.
    """
    flags, state = (NTF_SELF, PERMANENT | NOARP) if remote else (NTF_MASTER, NOARP | REACHABLE)
    body = NEIGH.pack(AF_BRIDGE, index, state, flags, 0) + mac(2, lladdr) + (ip(1, remote) if remote else b"")
    adding = CREATE | (APPEND if remote and not lladdr.strip("0:") else REPLACE)
    return Message(NEWNEIGH if add else DELNEIGH, adding if add else 0, body, f"forwarding entry {lladdr}")


def _new_link(link: NewLink, info: bytes) -> Message:
    body = LINK.pack(0, 0, 0, UP if link.up else 0, UP if link.up else 0) + _link_attrs(link) + nested(18, info)
    return Message(NEWLINK, _EXCLUSIVE, body, f"link {link.name}")


def _link_attrs(link: NewLink) -> bytes:
    parts = [text(3, link.name)]
    if link.mac:
        parts.append(mac(1, link.mac))
    if link.mtu:
        parts.append(u32(4, link.mtu))
    if link.master:
        parts.append(u32(10, link.master))
    if link.netns >= 0:
        parts.append(u32(28, link.netns))
    return b"".join(parts)
