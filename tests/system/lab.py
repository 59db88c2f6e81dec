"""A small machine room of namespaces: a wire, nodes on it, a server outside, pods as bare namespaces.

Everything is named by files below the test's own directory, and taken down by ``close`` whatever happened.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from polder.sdn.apply.linux.kernel import Kernel, KernelSettings
from polder.sdn.render.linux.desired import Desired, key_of
from polder.sdn.render.linux.facts import NodeFacts
from polder.sdn.render.linux.items import Item
from polder.sdn.topology.addressing import gateway_of, link_name, mac_of_port
from polder.sdn.topology.types import Network, NodeAddress, Part, Port, Router, RouterAddress
from polder.system.net import dumps, requests
from polder.system.net.codec import family_of
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.netns import Netns, ensure_netns, list_netns, open_netns, remove_netns, run_inside
from polder.system.net.nft import run_nft
from polder.system.net.requests import NewLink, NewRoute
from polder.system.net.sysctl import write_sysctl
from tests.system import frames

UNDERLAY = "192.168.77"
UNDERLAY6 = "fd77:77:77:77:"
OUTSIDE, OUTSIDE6 = "203.0.113.10", "2001:db8:ff::10"
"""A server beyond the wire, reached by the nodes' default route."""
PATIENT, BRIEF, AGAIN = 6.0, 0.5, 0.2
"""Seconds: for an answer that ought to come (machines may be busy), for one that ought not to, and until asked again."""
T = TypeVar("T")


def waited(condition: Callable[[], object], seconds: float = 6.0) -> bool:
    """Whether the condition comes true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


class Host:
    """A namespace and what can be done from inside it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        ensure_netns(path)
        self.netns: Netns = open_netns(path)
        self.route: NetlinkSocket = run_inside(self.netns, NetlinkSocket)
        self.route.call(requests.change_link(1, up=True))

    def run(self, what: Callable[[], T]) -> T:
        return run_inside(self.netns, what)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.run(lambda: socket.socket(family, kind, protocol))

    def close(self) -> None:
        self.route.close()
        self.netns.close()
        remove_netns(self.path)

    def ping(self, address: str, seconds: float = PATIENT, source: str = "") -> bool:
        """ICMP echo, asked again and again (the first may be lost while an ARP answer is under way)."""
        mark = f"{self.name} {time.monotonic_ns()}".encode()
        if ":" in address:
            family, protocol, asked = socket.AF_INET6, socket.IPPROTO_ICMPV6, b"\x80\0\0\0\0\7\0\1" + mark
        else:
            family, protocol, asked = socket.AF_INET, socket.IPPROTO_ICMP, frames.icmp_echo(7, mark)
        answer = (lambda data: data[0] == 129) if family == socket.AF_INET6 else (lambda data: data[20] == 0)
        with self.socket(family, socket.SOCK_RAW, protocol) as sock:
            if source:
                sock.bind((source, 0))
            for _ in range(max(2, round(seconds / AGAIN))):
                sock.settimeout(AGAIN)
                with suppress(OSError):
                    sock.sendto(asked, (address, 0))
                if _heard(sock, lambda data: answer(data) and mark in data):
                    return True
        return False

    @contextmanager
    def tcp_server(self, port: int = 8080, address: str = "") -> Iterator[list[str]]:
        """Answers each connection with the host's name; yields the list of the clients' addresses."""
        seen: list[str] = []
        listener = self.socket(family_of(address), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(64)

        def serve() -> None:
            while True:
                try:
                    connection, peer = listener.accept()
                except OSError:
                    return
                with connection:
                    seen.append(peer[0])
                    connection.sendall(self.name.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield seen
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join()

    def tcp(self, address: str, port: int = 8080, seconds: float = PATIENT) -> str:
        """Who answers there; empty when nobody does."""
        with self.socket(family_of(address), socket.SOCK_STREAM) as sock:
            sock.settimeout(seconds)
            try:
                sock.connect((address, port))
                return sock.recv(64).decode()
            except OSError:
                return ""

    def send_frames(self, interface: str, some: Iterable[bytes]) -> None:
        """Put frames on a link as they are."""
        with self.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind((interface, 0))
            for frame in some:
                sock.send(frame)

    @contextmanager
    def sniff(self, interface: str) -> Iterator[Callable[[bytes], bool]]:
        """Listen on a link; yields a question: has a frame with these bytes arrived (within a moment)?"""
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((interface, 3))
        sock.settimeout(0.3)
        seen: list[bytes] = []

        def arrived(mark: bytes) -> bool:
            _heard(sock, lambda data: bool(seen.append(data)) or mark in data)
            return any(mark in data for data in seen)

        try:
            yield arrived
        finally:
            sock.close()

    def link(self, name: str) -> dumps.Link:
        return dumps.link_named(self.route, name)


def _heard(sock: socket.socket, wanted: Callable[[bytes], bool]) -> bool:
    until = time.monotonic() + (sock.gettimeout() or 0.0)
    while time.monotonic() < until:
        try:
            data, peer = sock.recvfrom(4096)
        except OSError:
            return False
        outgoing = isinstance(peer, tuple) and len(peer) > 2 and peer[2] == 4  # PACKET_OUTGOING: our own
        if not outgoing and wanted(data):
            return True
    return False


def network_of(tenant: str, network: str) -> str:
    """Where a network is: the platform's own are its administrators'."""
    return f"{'kube-system' if tenant == 'root' else 'default'}/{network}"


@dataclass(slots=True)
class Node:
    """A machine: its namespace, its kernel's state as Polder keeps it."""

    host: Host
    kernel: Kernel
    facts: NodeFacts
    items: frozenset[Item] = frozenset()


@dataclass
class Lab:
    """``nodes`` machines n1, n2 … at 192.168.77.1, .2 …; the server ``outside``; the parts of the topology."""

    directory: Path
    size: int = 2
    prefix: str = "lab"
    six: bool = True
    nodes: dict[str, Node] = field(default_factory=dict)
    pods: dict[str, Host] = field(default_factory=dict)
    parts: dict[object, Part] = field(default_factory=dict)
    hosts: list[Host] = field(default_factory=list)

    def start(self) -> None:
        """Lay the wire and put the machines on it."""
        self.wire = self._host("wire")
        self.wire.route.call(requests.add_bridge(NewLink("wire", mtu=1500)))
        self.outside = self._host("outside")
        self._plug(self.outside, f"{UNDERLAY}.100")
        at = self.outside.link("lo").index
        self.outside.route.call(requests.address(at, OUTSIDE, 32, add=True))
        self.outside.route.call(requests.address(at, OUTSIDE6, 128, add=True))
        for number in range(1, self.size + 1):
            name, underlay = f"n{number}", f"{UNDERLAY}.{number}"
            host = self._host(name)
            index = self._plug(host, underlay)
            host.route.call(requests.route(NewRoute("0.0.0.0/0", index, via=f"{UNDERLAY}.100"), add=True))
            host.route.call(requests.route(NewRoute("::/0", index, via=f"{UNDERLAY6}:100"), add=True))
            host.run(lambda: write_sysctl("net/ipv4/conf/all/rp_filter", "0"))
            settings = KernelSettings(self.directory / f"{name}.routers", self.prefix, host.path)
            protected, egress6 = (f"{UNDERLAY}.99",), f"{UNDERLAY6}:{number}" if self.six else ""
            facts = NodeFacts(name, underlay, underlay, "eth0", 1500, protected, self.prefix, egress6)
            self.nodes[name] = Node(host, Kernel(settings), facts)
            self.put(NodeAddress(name, underlay, egress=tuple(filter(None, (underlay, egress6)))))

    async def close(self) -> None:
        """Take everything down; safe after a half start."""
        for node in self.nodes.values():
            await node.kernel.close()
        for host in [*self.pods.values(), *reversed(self.hosts)]:
            host.close()
        for name in self.nodes:
            where = self.directory / f"{name}.routers"
            for left in list_netns(where):
                remove_netns(where / left)

    def put(self, part: Part) -> None:
        """Have this part of the topology from the next ``deploy`` on."""
        self.parts[key_of(part)] = part

    def tenant(self, name: str, number: int, networks: dict[str, str]) -> None:
        """A tenant on all nodes: router addresses 100.64.NODE.number, networks by name and CIDR (one, or one of each family
        with a comma between them).
        """
        addresses = tuple(RouterAddress(node, f"100.64.{node[1:]}.{number}") for node in self.nodes)
        self.put(Router(name, "kube-system/default", "10.96.0.0/16", "10.96.0.1", addresses))
        for at, (network, cidr) in enumerate(networks.items(), 1):
            four, six = ("".join(one for one in cidr.split(",") if (":" in one) == wanted) for wanted in (False, True))
            gateways = gateway_of(four), gateway_of(six)
            vni = number * 256 + at
            self.put(Network(name, network_of(name, network), vni, four, gateways[0], "default", 0, six, gateways[1]))

    def pod(self, tenant: str, name: str, node: str, address: str, network: str = "a") -> Host:
        """A pod's namespace and its port, with one address or one of each family with a comma between them."""
        full = f"{tenant}.{name}"
        host = Host(full, self.directory / "pods" / full)
        self.pods[full] = host
        link = link_name(f"{tenant}:default/{name}", full)
        path = str(host.path)
        self.put(
            Port(
                tenant,
                f"default/{name}",
                network_of(tenant, network),
                node,
                tuple(address.split(",")),
                mac_of_port(address.split(",")),
                sandbox=full,
                netns=path,
                link=link,
            )
        )
        return host

    def desired(self, node: Node) -> frozenset[Item]:
        """All items of a node, by the real renderer."""
        known = Desired(node.facts)
        for part in self.parts.values():
            known.put(key_of(part), part)
        return frozenset(item for key in list(known.keys()) for item in known.render(key))

    async def deploy(self) -> None:
        """Make every node's kernel as the topology says; fails on the first refusal and on any difference after."""
        for node in self.nodes.values():
            wanted = self.desired(node)
            failures = await node.kernel.apply(node.items - wanted, wanted - node.items)
            assert not failures, "\n".join(str(one) for one in failures)
            node.items = wanted

    def space(self, node: str, name: str) -> Netns:
        """A router's namespace, to look into or to break; the caller closes it."""
        return open_netns(self.directory / f"{node}.routers" / name)

    def unguard(self, node: str, tenant: str) -> None:
        """Take the anti-spoofing away, as a control: what was dropped before arrives now."""
        with self.space(node, tenant) as netns:
            run_inside(netns, lambda: run_nft("delete table bridge polder"))

    def without_six(self, node: str) -> None:
        """From the next ``deploy`` on this machine has no way out by IPv6."""
        self.nodes[node].facts = replace(self.nodes[node].facts, egress6="")

    async def verify(self) -> None:
        """The kernels hold what is wanted, nothing else."""
        for node in self.nodes.values():
            seen = await node.kernel.observe(node.items)
            assert (node.items - seen, seen - node.items) == (frozenset(), frozenset())

    def _host(self, name: str) -> Host:
        host = Host(name, self.directory / "hosts" / name)
        self.hosts.append(host)
        return host

    def _plug(self, host: Host, address: str) -> int:
        """A link of ``host`` on the wire; its index."""
        bridge = self.wire.link("wire").index
        peer = NewLink("eth0", netns=host.netns.fd, up=False)
        self.wire.route.call(requests.add_veth(NewLink(f"w-{host.name}", master=bridge), peer))
        index = host.link("eth0").index
        host.route.call(requests.change_link(index, up=True))
        host.route.call(requests.address(index, address, 24, add=True))
        host.route.call(requests.address(index, f"{UNDERLAY6}:{address.rpartition('.')[2]}", 64, add=True))
        return index
