"""Two tenants with the same names and addresses, and every way in which one could reach the other, tried with packets."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polder.sdn.topology.addressing import link_local_of
from polder.system.commands import run
from polder.system.net.netlink import NetlinkSocket
from polder.system.net.netns import open_netns, run_inside
from tests.e2e.harness import Cluster, eventually, pod
from tests.system import frames, frames6
from tests.system.lab import Host

NODES = ("node-1", "node-2")
PODS = {"client": ("node-1", "10.0.200.10"), "near": ("node-1", "10.0.200.11"), "far": ("node-2", "10.0.200.12")}
PODS6 = {"client": "fd00:10::c8:a", "near": "fd00:10::c8:b", "far": "fd00:10::c8:c"}
PORT, SERVED, GATEWAY, GATEWAY6, RESOLVER, METADATA = (
    8080,
    80,
    "10.0.0.1",
    "fd00:10::1",
    "10.96.0.10",
    "169.254.169.254",
)
CLUSTER = {"near": "10.96.0.91", "far": "10.96.0.92"}
NODE_PORT = {"near": 30777, "far": 30778}
Cell = tuple[str, str, str]
"""What is sent, to what, and on which node that is (seen from the client): same or other."""
SAME, OTHER = "same node", "other node"
WHERE = {"near": SAME, "far": OTHER}


class Inside(Host):
    """A namespace that is there already: a pod's, or a machine's."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.netns = name, path, open_netns(path)
        self.route: NetlinkSocket = run_inside(self.netns, NetlinkSocket)

    def close(self) -> None:
        self.route.close()
        self.netns.close()

    @contextmanager
    def udp_server(self, port: int) -> Iterator[None]:
        """Answers each datagram with the name."""
        sock = self.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("", port))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, peer = sock.recvfrom(64)
                    if not data:
                        return
                    sock.sendto(self.name.encode(), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
                end.sendto(b"", ("127.0.0.1", port))
            thread.join()
            sock.close()

    def udp(self, address: str, port: int, seconds: float = 0.7) -> str:
        """Who answers a datagram there; asked twice."""
        for _ in range(2):
            with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.settimeout(seconds / 2)
                with contextlib.suppress(OSError):
                    sock.sendto(b"who", (address, port))
                    return sock.recv(64).decode()
        return ""

    def resolve(self, name: str) -> str:
        """The address of a name, asked of the tenant's resolver; empty where there is none."""
        labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
        question, answer = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1", b""
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(1)
            with contextlib.suppress(OSError):
                sock.sendto(question, (RESOLVER, 53))
                answer = sock.recv(512)
        if not answer:
            return ""
        count = struct.unpack_from("!H", answer, 6)[0]
        return socket.inet_ntoa(answer[-4:]) if count and answer[3] & 15 == 0 else ""

    @contextmanager
    def captured(self, link: str) -> Iterator[list[bytes]]:
        """All frames that arrive on a link."""
        seen: list[bytes] = []
        sock = self.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind((link, 3))
        sock.settimeout(0.1)
        ended = threading.Event()

        def hear() -> None:
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    data, peer = sock.recvfrom(4096)
                    if peer[2] != 4:  # PACKET_OUTGOING
                        seen.append(data)

        thread = threading.Thread(target=hear)
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()
            sock.close()


def manifests(tenant: str) -> list[dict[str, Any]]:
    """The same for both, but for one name."""
    found: list[dict[str, Any]] = []
    for name, (node, address) in PODS.items():
        made = pod(name, node=node, address=f"{address},{PODS6[name]}")
        made["metadata"]["labels"] = {"role": name}
        found.append(made)
    for name, address in [*CLUSTER.items(), (f"only-{tenant}", "10.96.0.93")]:
        ports = [
            {"name": protocol.lower(), "protocol": protocol, "port": SERVED, "targetPort": PORT}
            for protocol in ("TCP", "UDP", "SCTP")
        ]
        spec: dict[str, Any] = {
            "selector": {"role": name if name in PODS else "near"},
            "clusterIP": address,
            "ports": ports,
        }
        if name in NODE_PORT:
            for port in ports:
                port["nodePort"] = NODE_PORT[name]  # type: ignore[assignment]
            spec |= {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    return found


@dataclass
class Matrix:
    """The two tenants on a cluster, with servers in their pods and on the machines."""

    cluster: Cluster
    tenants: tuple[str, str]
    hosts: dict[str, Inside] = field(default_factory=dict)
    given: dict[tuple[str, str], str] = field(default_factory=dict)
    routers: dict[tuple[str, str], str] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Make all of it, and have the servers answer."""
        subnet = self.cluster.subnet.rpartition(".")[0]
        pool = {"addresses": [f"{subnet}.230-{subnet}.240"], "tenants": list(self.tenants)}
        kind = {"apiVersion": "polder.dev/v1alpha1", "kind": "AddressPool", "metadata": {"name": "matrix"}}
        self.cluster.apply("root", {**kind, "spec": pool})
        for tenant in self.tenants:
            spec = {"podCidrs": ["10.0.0.0/16", "fd00:10::/64"]}
            made = {"apiVersion": "polder.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": tenant}, "spec": spec}
            self.cluster.apply("root", made)
            self.cluster.apply(tenant, *manifests(tenant))
        for tenant in self.tenants:
            for name in PODS:
                eventually(f"{tenant}'s {name} runs", lambda t=tenant, n=name: self.cluster.pod_running(t, n), 90)
        eventually("all addresses are announced", self._announced, 60)
        self._enter()

    def _announced(self) -> bool:
        claims = self.cluster.get("root", "externaladdresses")["items"]
        mine = [one for one in claims if one["spec"]["tenant"] in self.tenants and one.get("status", {}).get("node")]
        self.given = {
            (one["spec"]["tenant"], one["spec"]["service"].partition("/")[2]): one["spec"]["address"] for one in mine
        }
        return len(mine) == 4

    def _enter(self) -> None:
        for tenant in self.tenants:
            for port in self.cluster.get(tenant, "ports")["items"]:
                name = port["spec"]["pod"].rpartition("/")[2]
                self._host(f"{tenant}.{name}", Path(port["status"]["netns"]))
        for port in self.cluster.get("root", "ports", "-n", "kube-system")["items"]:
            if (of := port["spec"].get("routerOf")) in self.tenants:
                self.routers[of, port["spec"]["node"]] = port["spec"]["addresses"][0]
        for node in self.cluster.get("root", "nodes")["items"]:
            name = node["metadata"]["name"]
            said = {one["type"]: one["address"] for one in node["status"]["addresses"]}
            self.machines[name] = said["InternalIP"]
            path = self.cluster.state / "nodes" / name / "net"
            run("nsenter", f"--net={path}", "ip", "addr", "replace", f"{METADATA}/32", "dev", "lo")
            self._host(name, path)

    def _host(self, name: str, path: Path) -> None:
        self.hosts[name] = host = Inside(name, path)
        self.stack.callback(host.close)
        for port in (PORT, SERVED):
            self.stack.enter_context(host.tcp_server(port))
            self.stack.enter_context(host.udp_server(port))

    def close(self) -> None:
        """Servers, tenants and pool."""
        self.stack.close()
        for tenant in self.tenants:
            self.cluster.delete_tenant(tenant)
        self.cluster.kubectl("root", "delete", "addresspool", "matrix", check=False)

    def targets(self, tenant: str) -> dict[tuple[str, str], tuple[str, int, str]]:
        """By column and node: where to, the port, and who of the tenant's own ought to answer."""
        (rival,) = (one for one in self.tenants if one != tenant)
        client = self.hosts[f"{tenant}.client"]
        found: dict[tuple[str, str], tuple[str, int, str]] = {}
        for (name, where), node in zip(WHERE.items(), NODES, strict=True):
            own = f"{tenant}.{name}"
            found["pod", where] = PODS[name][1], PORT, own
            found["service", where] = CLUSTER[name], SERVED, own
            found["node port", where] = self.machines[node], NODE_PORT[name], own
            found["own load balancer", where] = self.given[tenant, name], SERVED, own
            found["other's load balancer", where] = self.given[rival, name], SERVED, ""
            found["name", where] = client.resolve(f"{name}.default.svc.cluster.local"), SERVED, own
            found["node address", where] = self.machines[node], PORT, ""
            found["other's router", where] = self.routers[rival, node], SERVED, ""
            found["other's node port", where] = self.routers[rival, node], NODE_PORT[name], ""
        found["other's name", SAME] = client.resolve(f"only-{rival}.default.svc.cluster.local"), SERVED, ""
        found["gateway", SAME] = GATEWAY, PORT, ""
        found["metadata", SAME] = METADATA, SERVED, ""
        return found

    def look(self, tenant: str) -> tuple[dict[Cell, object], dict[Cell, object]]:
        """What is seen from a tenant's client, and what ought to be."""
        client, targets = self.hosts[f"{tenant}.client"], self.targets(tenant)
        seen: dict[Cell, object] = {}
        wanted: dict[Cell, object] = {}
        jobs: dict[Cell, Callable[[], object]] = {}
        for (column, where), (address, port, own) in targets.items():
            for row, ask in (("TCP", client.tcp), ("UDP", client.udp)):
                jobs[row, column, where] = lambda ask=ask, to=address, at=port: ask(to, at) if to else ""  # type: ignore[misc]
                wanted[row, column, where] = own
            jobs["ICMP", column, where] = lambda to=address: bool(to) and client.ping(to)  # type: ignore[misc]
            wanted["ICMP", column, where] = column in ("pod", "gateway")
        with ThreadPoolExecutor(16) as pool:
            seen.update(zip(jobs, pool.map(lambda job: job(), jobs.values()), strict=True))
        marked, by_mark = self._marked(tenant, targets)
        seen |= marked
        wanted |= by_mark
        return seen, wanted

    def _marked(
        self, tenant: str, targets: dict[tuple[str, str], tuple[str, int, str]]
    ) -> tuple[dict[Cell, object], dict[Cell, object]]:
        """What no socket sends or hears: marked frames, and who of all pods and machines gets them."""
        client = self.hosts[f"{tenant}.client"]
        own_mac, gateway_mac = client.link("eth0").mac, "0a:58:0a:00:00:01"
        sent: dict[Cell, tuple[bytes, bytes]] = {}
        wanted: dict[Cell, object] = {}
        for number, ((column, where), (address, port, own)) in enumerate(targets.items()):
            to, mark = address or METADATA, struct.pack("!H", 40000 + number)
            init = frames.sctp_init(40000 + number, port)
            sent["SCTP", column, where] = (
                self._ip(own_mac, gateway_mac, PODS["client"][1], to, 132, init),
                mark + b"\x1f\x90",
            )
            wanted["SCTP", column, where] = {own} if own else set()
            question = frames.arp(1, own_mac, PODS["client"][1], "00:00:00:00:00:00", to)
            sent["ARP", column, where] = (
                frames.ethernet(frames.BROADCAST, own_mac, frames.ARP, question), question[8:18] + question[24:28],
            )  # fmt: skip
            forged = f"forged {tenant} {time.monotonic_ns()} {number}".encode()
            body = frames.udp(9, port, forged)
            sent["spoofing", column, where] = self._ip(own_mac, gateway_mac, PODS["near"][1], to, 17, body), forged
            wanted["ARP", column, where] = wanted["spoofing", column, where] = set()
        for name, where in WHERE.items():
            own = link_local_of(own_mac)
            asked = frames6.solicitation(own, PODS6[name], own_mac)
            frame = frames.ethernet(frames6.group_mac(PODS6[name]), own_mac, frames.IPV6, asked)
            sent["ND", "pod", where], wanted["ND", "pod", where] = (frame, asked[40:]), {f"{tenant}.{name}"}
        return self._who_hears(client, sent), wanted

    @staticmethod
    def _ip(own: str, gateway: str, source: str, to: str, protocol: int, body: bytes) -> bytes:
        return frames.ethernet(gateway, own, frames.IPV4, frames.ipv4(source, to, protocol, body))

    def _who_hears(self, client: Inside, sent: dict[Cell, tuple[bytes, bytes]]) -> dict[Cell, object]:
        with ExitStack() as stack:
            heard = {
                name: stack.enter_context(host.captured("eth0" if "." in name else "lo"))
                for name, host in self.hosts.items()
                if host is not client
            }
            client.send_frames("eth0", [frame for frame, _ in sent.values()])
            time.sleep(0.8)
        return {
            cell: {name for name, seen in heard.items() if any(mark in frame for frame in seen)}
            for cell, (_, mark) in sent.items()
        }
