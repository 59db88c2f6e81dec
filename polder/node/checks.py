"""Health checks of load balancers: each node says, at a service's ``healthCheckNodePort``, whether it has a backend (HTTP, as
kube-proxy).

Answered at the address of the tenant's router, in its own namespace: rules there decide who gets so far.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import orjson

from polder.api.core import Service
from polder.api.meta import ref_of
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.node.keep import keep_sockets
from polder.sdn.compile.keys import Concern, Key
from polder.sdn.topology.types import Part
from polder.sdn.topology.vips import Vip

log = logging.getLogger(__name__)
HEAD = 4096
"""Bytes of a question; more is not read."""
PATIENCE = 2.0
AT_ONCE = 64
"""Questions about one tenant's services that a node answers at one time; others are closed."""
MOST = 1024
EACH = 128
"""Services that a node answers for, in all and of one tenant: each is a socket that is listened at."""
Listen = Callable[[str, str, int], Awaitable[socket.socket]]
Row = frozenset[tuple[int, str, Ref]]
"""(port, the router's address, the Service) of all that are checked in one space."""


class HealthChecks:
    """``services`` are those that the node sees, ``part`` gives what is compiled of them, ``router_of`` a tenant's space and
    address."""

    def __init__(
        self,
        services: Callable[[], Iterable[Service]],
        part: Callable[[Key], Part | None],
        router_of: Callable[[str], tuple[str, str] | None],
        listen: Listen,
        node: str,
    ) -> None:
        self._services = services
        self._part = part
        self._router_of = router_of
        self._listen = listen
        self._node = node
        self._open: dict[tuple[str, int, str, Ref], asyncio.Server] = {}
        self._busy: Counter[str] = Counter()

    async def run(self, changed: asyncio.Event, netns: Path) -> None:
        """Until cancelled: listen wherever a service is to be checked. ``changed`` is set after each run of the pipeline."""
        try:
            await keep_sockets(changed, self.wanted, netns, self.put)
        finally:
            await self.put({})

    def wanted(self) -> Mapping[str, Row]:
        """What is to be answered, by space."""
        found: dict[str, set[tuple[int, str, Ref]]] = {}
        for service in list(self._services()):
            port = service.spec.health_check_node_port
            if not port or service.spec.external_traffic_policy != "Local":
                continue
            ref = ref_of(service)
            router = self._router_of(ref.tenant)
            if router is not None:
                found.setdefault(router[0], set()).add((port, router[1], ref))
        left = MOST
        kept: dict[str, Row] = {}
        for space, rows in sorted(found.items(), key=lambda item: (len(item[1]), item[0])):
            kept[space] = frozenset(sorted(rows)[: min(EACH, left)])
            left -= len(kept[space])
        return {space: rows for space, rows in kept.items() if rows}

    async def put(self, rows: Mapping[str, Row]) -> None:
        """Open what is missing, close what is not wanted. Raises PolderError or OSError."""
        wanted = {(space, *row) for space, some in rows.items() for row in some}
        for key in self._open.keys() - wanted:
            server = self._open.pop(key)
            server.close()
        for key in wanted - self._open.keys():
            space, port, address, ref = key
            try:
                sock = await self._listen(space, address, port)
            except (OSError, PolderError) as error:
                log.info("health checks of Service %s at port %d are not answered: %s", ref, port, error)
                continue
            self._open[key] = await asyncio.start_server(self._answering(ref), sock=sock)

    def _answering(self, ref: Ref) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._busy[ref.tenant] >= AT_ONCE:
                writer.close()
                return
            self._busy[ref.tenant] += 1
            try:
                async with asyncio.timeout(PATIENCE):
                    await reader.read(HEAD)
                    writer.write(self.answer(ref))
                    await writer.drain()
            except (OSError, TimeoutError):
                pass  # who asked has left
            finally:
                self._busy[ref.tenant] -= 1
                if not self._busy[ref.tenant]:
                    del self._busy[ref.tenant]
                writer.close()

        return answer

    def answer(self, ref: Ref) -> bytes:
        """The whole answer: 200 where a backend that is ready is here, else 503."""
        vip = self._part(Key(Concern.VIP, Ref(TenantName(ref.tenant), ref.namespace, ref.name)))
        ports = vip.ports if isinstance(vip, Vip) else ()
        count = len({one.address for port in ports for one in port.ready if one.node == self._node})
        body = orjson.dumps(
            {
                "service": {"namespace": ref.namespace, "name": ref.name},
                "localEndpoints": count,
                "serviceProxyHealthy": True,
            }
        )
        status = "200 OK" if count else "503 Service Unavailable"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Load-Balancing-Endpoint-Weight: {count}\r\n"
        return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
