"""Connections that came in through a tenant's ``kubernetes`` service, carried here by a node's stream.

Each is handed to the TLS stack as a connection pinned to the tenant, with a certificate for the tenant's service
address. A node brings connections only for tenants present on it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

from polder.api.meta import Raw
from polder.apiserver.bootstrap import service_address
from polder.apiserver.share import Share
from polder.apiserver.tenancy import Tenants
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.client.carry import ByteStream, carry
from polder.system.pki import LEAF_LIFE, Pki, server_context

log = logging.getLogger(__name__)

NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
TENANT_LIMIT = 512
"""Connections of one tenant at a time, over all its nodes."""
CONTEXT_LIMIT = 256
RENEW_AFTER = LEAF_LIFE.total_seconds() * 2 / 3

ServeSocket = Callable[[socket.socket, ssl.SSLContext, TenantName], Awaitable[None]]
"""Takes an accepted connection into the HTTP server, pinned; returns when the handshake is done; raises OSError."""


class Contexts:
    """TLS contexts by service address: many tenants have the same one."""

    def __init__(self, pki: Pki, clock: Clock) -> None:
        self._pki = pki
        self._clock = clock
        self._made: OrderedDict[tuple[str, int], tuple[float, ssl.SSLContext]] = OrderedDict()

    def of(self, address: str) -> ssl.SSLContext:
        """The context of one address, made anew at two thirds of its certificate's life and with other authorities."""
        now, key = self._clock.monotonic(), (address, self._pki.generation)
        made = self._made.get(key)
        if made is not None and now - made[0] < RENEW_AFTER:
            self._made.move_to_end(key)
            return made[1]
        leaf = self._pki.issue_serving(NAMES, [address])
        context = server_context(leaf, self._pki.clients_ca)
        self._made[key] = (now, context)
        if len(self._made) > CONTEXT_LIMIT:
            self._made.popitem(last=False)
        return context


class Entry:
    """The stream handler for ``{"kind": "api", "tenant": NAME}``."""

    def __init__(self, contexts: Contexts, tenants: Tenants, share: Share, serve: ServeSocket) -> None:
        self._contexts = contexts
        self._tenants = tenants
        self._share = share
        self._serve = serve
        self._open: Counter[TenantName] = Counter()

    async def handle(self, node: str, header: Raw, stream: ByteStream) -> None:
        """Serves one connection to its end."""
        tenant = TenantName(str(header.get("tenant", "")))
        record = await self._tenants.get(tenant)
        if record is None or not await self._share.enters(node, tenant):
            log.warning("node %s brought a connection of tenant %s, which is not on it", node, tenant)
            await stream.reset("no such tenant on this node")
            return
        if self._open[tenant] >= TENANT_LIMIT:
            await stream.reset("too many connections of this tenant")
            return
        self._open[tenant] += 1
        try:
            await self._carry(tenant, service_address(record.service_cidr), stream)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _carry(self, tenant: TenantName, address: str, stream: ByteStream) -> None:
        """A socket pair joins the mux to the TLS stack, which wants a socket of its own."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        carrying = asyncio.ensure_future(carry(ours, stream))
        try:
            await self._serve(theirs, self._contexts.of(address), tenant)
        except (OSError, ssl.SSLError) as error:
            log.info("a connection of tenant %s failed at its start: %s", tenant, error)
        finally:
            try:
                await carrying
            finally:
                carrying.cancel()
