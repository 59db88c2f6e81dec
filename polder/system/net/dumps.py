"""What the kernel has, read by rtnetlink dumps into frozen values."""

from __future__ import annotations

from dataclasses import dataclass

from polder.system.net.codec import (
    Message,
    as_text,
    as_u32,
    attrs,
    ip_text,
    mac_text,
)
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.requests import (
    ADDR,
    AF_BRIDGE,
    GETADDR,
    GETLINK,
    GETNEIGH,
    GETROUTE,
    LINK,
    NEIGH,
    NOARP,
    NTF_PROXY,
    OUR_PROTOCOL,
    PERMANENT,
    ROUTE,
    RUNNING,
    UP,
    get_link,
)

_SKIP_STATISTICS = 8
_MAIN_TABLE, _UNICAST = 254, 1
_ANY4 = ip_text(b"\0" * 4)


@dataclass(frozen=True, slots=True)
class Link:
    """A link. ``running`` says that it carries frames, which is later than ``up``. ``peer`` is the index of a veth's other
    end, ``peer_elsewhere`` whether that is in another namespace; a bridge port's attributes and a VXLAN's are there where
    it is one.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    master: int
    alias: str
    group: int
    peer: int
    peer_elsewhere: bool
    hairpin: bool = False
    learning: bool = False
    flood: bool = False
    neigh_suppress: bool = False
    broadcast: bool = False
    vni: int = 0
    local: str = ""
    running: bool = False


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link; ``scope`` 253 is link, 254 host."""

    index: int
    address: str
    prefix: int
    scope: int


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """A unicast route of the main table; ``destination`` always has a prefix length. ``protocol`` 2 is the kernel's."""

    destination: str
    index: int
    via: str
    src: str
    onlink: bool
    protocol: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour; ``state`` as in linux/neighbour.h."""

    index: int
    address: str
    mac: str
    state: int


@dataclass(frozen=True, slots=True)
class Proxy:
    """An address that a link answers for; ``ours`` where it carries our protocol number."""

    index: int
    address: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A forwarding entry of a bridge (``master`` is its index) or of a VXLAN device itself (``master`` 0)."""

    index: int
    mac: str
    remote: str
    master: int
    state: int


def links(sock: NetlinkSocket) -> list[Link]:
    """All links of the socket's namespace."""
    request = LINK.pack(0, 0, 0, 0, 0) + b"\x08\0\x1d\0" + _SKIP_STATISTICS.to_bytes(4, "little")
    return [parse_link(reply.body) for reply in sock.dump(Message(GETLINK, 0, request, "links"))]


def link_named(sock: NetlinkSocket, name: str) -> Link:
    """One link; NetlinkError (ENODEV) where there is none."""
    return parse_link(sock.get(get_link(name)).body)


def parse_link(body: bytes) -> Link:
    """An answer to RTM_GETLINK."""
    _, _, index, flags, _ = LINK.unpack_from(body)
    have = attrs(body, LINK.size)
    info = attrs(have.get(18, b""))
    kind = as_text(info.get(1, b""))
    data = attrs(info.get(2, b"")) if kind == "vxlan" else {}
    port = attrs(info.get(5, b"")) if as_text(info.get(4, b"")) == "bridge" else {}
    return Link(
        index=index,
        name=as_text(have.get(3, b"")),
        kind=kind,
        mac=mac_text(have.get(1, b"")),
        mtu=as_u32(have.get(4, b"\0" * 4)),
        up=bool(flags & UP),
        running=bool(flags & RUNNING),
        master=as_u32(have.get(10, b"\0" * 4)),
        alias=as_text(have.get(20, b"")),
        group=as_u32(have.get(27, b"\0" * 4)),
        peer=as_u32(have.get(5, b"\0" * 4)),
        peer_elsewhere=37 in have,
        hairpin=_bit(port, 4),
        learning=_bit(port, 8),
        flood=_bit(port, 9),
        neigh_suppress=_bit(port, 32),
        broadcast=_bit(port, 30),
        vni=as_u32(data.get(1, b"\0" * 4)),
        local=ip_text(data[4]) if 4 in data else "",
    )


def addresses(sock: NetlinkSocket) -> list[Address]:
    """All addresses of the socket's namespace."""
    found = []
    for reply in sock.dump(Message(GETADDR, 0, ADDR.pack(0, 0, 0, 0, 0), "addresses")):
        _, prefix, _, scope, index = ADDR.unpack_from(reply.body)
        have = attrs(reply.body, ADDR.size)
        value = have.get(2) or have.get(1)
        if value:
            found.append(Address(index, ip_text(value), prefix, scope))
    return found


def routes(sock: NetlinkSocket) -> list[RouteEntry]:
    """The unicast routes with one next hop of the main table, both families."""
    found = []
    for reply in sock.dump(Message(GETROUTE, 0, ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0), "routes")):
        family, bits, _, _, table, protocol, _, kind, flags = ROUTE.unpack_from(reply.body)
        have = attrs(reply.body, ROUTE.size)
        if table != _MAIN_TABLE or kind != _UNICAST or 4 not in have:
            continue
        net = ip_text(have[1]) if 1 in have else ("::" if family == 10 else _ANY4)
        via = ip_text(have[5]) if 5 in have else ""
        src = ip_text(have[7]) if 7 in have else ""
        found.append(RouteEntry(f"{net}/{bits}", as_u32(have[4]), via, src, bool(flags & 4), protocol))
    return found


def neighbours(sock: NetlinkSocket) -> list[Neighbour]:
    """All neighbours of the socket's namespace, both families."""
    found = []
    for reply in sock.dump(Message(GETNEIGH, 0, NEIGH.pack(0, 0, 0, 0, 0), "neighbours")):
        _, index, state, _, _ = NEIGH.unpack_from(reply.body)
        have = attrs(reply.body, NEIGH.size)
        if 1 in have:
            found.append(Neighbour(index, ip_text(have[1]), mac_text(have.get(2, b"")), state))
    return found


def proxies(sock: NetlinkSocket) -> list[Proxy]:
    """The addresses that links answer for, both families."""
    found = []
    for reply in sock.dump(Message(GETNEIGH, 0, NEIGH.pack(0, 0, 0, NTF_PROXY, 0), "proxy neighbours")):
        _, index, _, _, _ = NEIGH.unpack_from(reply.body)
        have = attrs(reply.body, NEIGH.size)
        if 1 in have:
            found.append(Proxy(index, ip_text(have[1]), have.get(12, b"\0")[:1] == bytes([OUR_PROTOCOL])))
    return found


def forwarding_entries(sock: NetlinkSocket) -> list[Forwarding]:
    """All forwarding entries of the socket's namespace, bridges' and VXLAN devices'."""
    found = []
    for reply in sock.dump(Message(GETNEIGH, 0, NEIGH.pack(AF_BRIDGE, 0, 0, 0, 0), "forwarding entries")):
        _, index, state, _, _ = NEIGH.unpack_from(reply.body)
        have = attrs(reply.body, NEIGH.size)
        if 2 in have:
            remote = ip_text(have[1]) if 1 in have else ""
            found.append(Forwarding(index, mac_text(have[2]), remote, as_u32(have.get(9, b"\0" * 4)), state))
    return found


def is_given(entry: Forwarding) -> bool:
    """Whether a forwarding entry was given, not learned and not made by the kernel for a link's own MAC."""
    static = entry.master and entry.state & NOARP and not entry.state & PERMANENT
    return bool(entry.remote or static)


def _bit(port: dict[int, bytes], kind: int) -> bool:
    return port.get(kind, b"\0")[:1] == b"\1"
