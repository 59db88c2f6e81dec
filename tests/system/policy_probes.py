"""Many probes at once: who of the world's pods reaches whom, by TCP, UDP and SCTP, seen at the receiver."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from polder.sdn.topology.addressing import link_name, mac_of_port
from polder.sdn.topology.types import Port
from tests.system.frames import crc32c
from tests.system.lab import Host, Lab
from tests.unit.sdn.policy_world import PODS, Pod, Probe

SCTP = 132
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 0.2
"""Seconds for answers: what is dropped stays away for good."""
LONGEST, AGAIN = 10.0, 0.5
"""Seconds for what ought to arrive, and until datagrams of it are sent again."""


def populate(lab: Lab, tenants: Iterable[str]) -> None:
    """The world's pods for each tenant: the same names and addresses."""
    for number, tenant in enumerate(tenants, 7):
        lab.tenant(tenant, number, {"a": "10.0.1.0/24,fd00:10:0:1::/64", "b": "10.0.2.0/24,fd00:10:0:2::/64"})
        for pod in PODS:
            put_pod(lab, tenant, pod)


def put_pod(lab: Lab, tenant: str, pod: Pod) -> Host:
    full = f"{tenant}.{pod.namespace}.{pod.name}"
    host = lab.pods[full] = Host(full, lab.directory / "pods" / full)
    lab.put(
        Port(
            tenant,
            pod.full,
            f"default/{pod.network}",
            pod.node,
            pod.addresses,
            mac_of_port(pod.addresses),
            sandbox=full,
            netns=str(host.path),
            link=link_name(f"{tenant}:{pod.full}", full),
        )
    )
    return host


class Servers:
    """Every pod listens on TCP 80 and 81 and on UDP 80, which answers, and hears SCTP on a raw socket (kernels often lack the
    protocol itself, not the rules for it).
    """

    def __init__(self, lab: Lab, tenants: Iterable[str]) -> None:
        self._lab = lab
        self._sockets: list[socket.socket] = []
        self._poll = select.poll()
        self._by_number: dict[int, tuple[socket.socket, str]] = {}
        self.heard: set[bytes] = set()
        self._ended = False
        for tenant in tenants:
            for pod in PODS:
                self._serve(tenant, pod)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Servers:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._thread.join()
        for sock in self._sockets:
            sock.close()

    def _serve(self, tenant: str, pod: Pod) -> None:
        host = self._lab.pods[f"{tenant}.{pod.namespace}.{pod.name}"]
        for family in FAMILY.values():
            for port in (80, 81):
                tcp = host.socket(family, socket.SOCK_STREAM)
                self._bind(tcp, family, port)
                tcp.listen(4096)
            udp = host.socket(family, socket.SOCK_DGRAM)
            self._bind(udp, family, 80)
            raw = host.socket(family, socket.SOCK_RAW, SCTP)
            self._sockets.append(raw)
            for sock, what in ((udp, "udp"), (raw, "raw")):
                sock.setblocking(False)
                self._by_number[sock.fileno()] = (sock, what)
                self._poll.register(sock, select.POLLIN)

    def _bind(self, sock: socket.socket, family: int, port: int) -> None:
        self._sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("", port))

    def _run(self) -> None:
        while not self._ended:
            for number, _ in self._poll.poll(50):
                sock, what = self._by_number[number]
                data, peer = sock.recvfrom(2048)
                if what == "udp":
                    sock.sendto(data, peer)
                else:
                    self.heard.add(data[-16:])


@dataclass(frozen=True)
class Sent:
    """A probe under way; ``packet`` is what is sent again, for nobody else repeats it."""

    probe: Probe
    sock: socket.socket
    mark: bytes
    packet: bytes = b""

    def send(self) -> None:
        if self.packet:
            at = (self.probe.addresses[1], 0 if self.probe.protocol == "SCTP" else self.probe.port)
            with suppress(OSError):  # an ICMP error that came before
                self.sock.sendto(self.packet, at)


def reached(lab: Lab, tenant: str, probes: list[Probe], servers: Servers, hoped: set[Probe]) -> set[Probe]:
    """Those probes that arrive. Those that are ``hoped`` for get longer, since a machine may be busy."""
    started: list[Sent] = []
    for number, probe in enumerate(probes):
        mark = f"{number:06d}{time.monotonic_ns() % 10**10:010d}".encode()
        started.append(_start(lab, tenant, probe, mark))
    began, found = time.monotonic(), set[Probe]()
    waiting = {one.sock.fileno(): one for one in started if one.probe.protocol != "SCTP"}
    poll = select.poll()
    for number, one in waiting.items():
        poll.register(number, select.POLLOUT if one.probe.protocol == "TCP" else select.POLLIN)
    again = AGAIN
    while (passed := time.monotonic() - began) < PATIENCE or (hoped - found and passed < LONGEST):
        for number, _ in poll.poll(20):
            one = waiting.pop(number)
            poll.unregister(number)
            if one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.add(one.probe)
        found |= {one.probe for one in started if one.mark in servers.heard}
        if passed > again:
            again += AGAIN
            for one in started:
                if one.probe in hoped - found:
                    one.send()
    for one in started:
        one.sock.close()
    return found


def _start(lab: Lab, tenant: str, probe: Probe, mark: bytes) -> Sent:
    host = lab.pods[f"{tenant}.{probe.source.namespace}.{probe.source.name}"]
    family = FAMILY[probe.family]
    if probe.protocol == "SCTP":
        sent = Sent(probe, host.socket(family, socket.SOCK_RAW, SCTP), mark, _sctp(probe.port, mark))
    else:
        kind, packet = (socket.SOCK_STREAM, b"") if probe.protocol == "TCP" else (socket.SOCK_DGRAM, mark)
        sent = Sent(probe, host.socket(family, kind), mark, packet)
        sent.sock.setblocking(False)
        sent.sock.connect_ex((probe.addresses[1], probe.port))
    sent.send()
    return sent


def _sctp(port: int, mark: bytes) -> bytes:
    """A packet with an INIT chunk (RFC 9260), the mark as a parameter that nobody knows."""
    parameter = struct.pack("!HH", 0x8008, 4 + len(mark)) + mark
    tag = int.from_bytes(mark[-4:], "big") | 1
    body = struct.pack("!IIHHI", tag, 65535, 1, 1, 1) + parameter
    chunk = struct.pack("!BBH", 1, 0, 4 + len(body)) + body
    source = 20000 + int(mark[:6]) % 20000
    head = struct.pack("!HHI", source, port, 0)
    return head + struct.pack("<I", crc32c(head + b"\0" * 4 + chunk)) + chunk
