"""A server of names outside, resolvers on nodes, and pods that ask them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset

from polder.api.core import Namespace, Service
from polder.api.discovery import EndpointSlice
from polder.api.polder import Port
from polder.dns import link
from polder.dns.feed import Views, feed
from polder.dns.link import Link, LinkSettings
from polder.system.net.sockets import resolver_sockets
from tests.system.lab import OUTSIDE, Host
from tests.system.site import NodeUnderTest, Sandbox, Site, until

RESOLVER = "10.96.0.10"
LONG = 60


@dataclass
class Outside:
    """What an upstream server was asked: (name, port, id) of each question over UDP."""

    asked: list[tuple[str, int, int]] = field(default_factory=list)
    streams: int = 0

    def answer(self, data: bytes, *, stream: bool) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text().lower()
        reply = dns.message.make_response(query, recursion_available=True)
        if name == "www.example.com.":
            reply.answer.append(dns.rrset.from_text(name, LONG, "IN", "A", "198.51.100.7"))
        elif name == "big.example.com." and stream:
            reply.answer.append(dns.rrset.from_text(name, LONG, "IN", "TXT", *(f'"{n:0200}"' for n in range(40))))
        elif name == "big.example.com.":
            reply.flags |= dns.flags.TC
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            soa = "ns.example.com. root.example.com. 1 1 1 1 30"
            reply.authority.append(dns.rrset.from_text("example.com.", LONG, "IN", "SOA", soa))
        return reply.to_wire(max_size=65535 if stream else 0)


@contextmanager
def upstream(host: Host) -> Iterator[Outside]:
    """A server of names at OUTSIDE."""
    seen = Outside()
    udp, tcp = host.socket(socket.AF_INET, socket.SOCK_DGRAM), host.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind((OUTSIDE, 53))
    tcp.bind((OUTSIDE, 53))
    tcp.listen(8)

    def datagrams() -> None:
        while True:
            data, peer = udp.recvfrom(4096)
            if not data:
                return
            seen.asked.append((dns.message.from_wire(data).question[0].name.to_text(), peer[1], data[0] << 8 | data[1]))
            udp.sendto(seen.answer(data, stream=False), peer)

    def streams() -> None:
        while True:
            try:
                connection, _ = tcp.accept()
            except OSError:
                return
            with connection:
                size = int.from_bytes(connection.recv(2), "big")
                answer = seen.answer(connection.recv(size), stream=True)
                seen.streams += 1
                connection.sendall(len(answer).to_bytes(2, "big") + answer)

    threads = [threading.Thread(target=datagrams), threading.Thread(target=streams)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (OUTSIDE, 53))
        tcp.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        udp.close()
        tcp.close()


@dataclass
class Resolving:
    """One node's link to its resolver's process."""

    settings: LinkSettings
    link: Link
    task: asyncio.Task[Any]


@asynccontextmanager
async def resolving(node: NodeUnderTest, release: str = "", shared: str = "") -> AsyncIterator[Resolving]:
    """As the agent composes it; the process runs in the node's own namespace. It outlives this, as it outlives agents."""
    host = node.machine.host
    settings = LinkSettings(node.folder / "dns", (OUTSIDE,), ("nsenter", f"--net={host.path}"), release)
    made = Link(settings, node.machine.kernel.resolver_sockets_in)
    seen = node.live.informer
    views = Views(seen(Service), seen(EndpointSlice), seen(Namespace), seen(Port))

    async def own_sockets(_: str, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        return await asyncio.to_thread(resolver_sockets, host.netns, address, port)

    task = asyncio.gather(
        node.live.keep_resolvers(made.set, made.share), feed(views, made), made.open_shared(shared, own_sockets)
    )
    try:
        yield Resolving(settings, made, task)  # type: ignore[arg-type]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made.close()


async def ended(node: NodeUnderTest) -> None:
    await link.stop(LinkSettings(node.folder / "dns"))


async def create(site: Site, tenant: str, resource: str, name: str, body: dict[str, Any]) -> None:
    group = "/apis/discovery.k8s.io/v1" if resource == "endpointslices" else "/api/v1"
    kind = {"endpointslices": "EndpointSlice", "services": "Service"}[resource]
    version = group.removeprefix("/apis/").removeprefix("/api/")
    whole = {"apiVersion": version, "kind": kind, **body, "metadata": {"name": name, **body.get("metadata", {})}}
    await site.admin.raw("POST", f"/tenants/{tenant}{group}/namespaces/default/{resource}", json.dumps(whole).encode())


async def create_slice(site: Site, tenant: str, service: str, endpoints: list[tuple[str, str]]) -> None:
    points = [{"addresses": [address], **({"hostname": name} if name else {})} for address, name in endpoints]
    body = {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": points,
        "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
    }
    await create(site, tenant, "endpointslices", f"{service}-1", body)


async def ask(
    sandbox: Sandbox,
    name: str,
    kind: str = "A",
    *,
    stream: bool = False,
    seconds: float = 2.0,
    at: str = RESOLVER,
    **options: Any,
) -> dns.message.Message:
    """From inside a pod; sent once. Raises dns.exception.Timeout."""
    query = dns.message.make_query(name, kind, **options)

    def body() -> dns.message.Message:
        ways = dns.query.tcp if stream else dns.query.udp
        return ways(query, at, timeout=seconds)

    return await asyncio.to_thread(sandbox.host.run, body)


def shown(message: dns.message.Message) -> set[str]:
    return {f"{rrset.name} {item}" for rrset in message.answer for item in rrset}


async def first(sandbox: Sandbox, name: str, at: str = RESOLVER) -> dns.message.Message:
    """The first answer after resolvers were started, asked for as clients do."""

    async def answer() -> dns.message.Message | None:
        try:
            return await ask(sandbox, name, seconds=0.5, at=at)
        except dns.exception.Timeout:
            return None

    found = await until(answer, what=f"{name} is answered")
    assert isinstance(found, dns.message.Message)
    return found
