"""Connections that the server wants made from a tenant's network: opened inside the tenant's router on this node.

The socket is bound to the router's address on this node, never to a gateway's, which every node has: a reply to that would end
on the wrong node. So a tenant's address, also one that the tenant wrote, leads where the tenant's own pods could go: the
rules of router and node (``sdn/render/linux/rules.py``) hold for it. Names are looked up from inside the router as well
(``names.py``): what only the platform can resolve stays unknown.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

from polder.api.meta import Raw
from polder.base.errors import PolderError
from polder.client.carry import ByteStream, carry
from polder.sdn.topology.addressing import PLATFORM6, six

log = logging.getLogger(__name__)

CONNECT_LIMIT = 10.0
"""Seconds for name and connection together."""
TENANT_LIMIT = 128
"""Connections of one tenant at a time on this node."""
CONNECTED = b"\0"
"""What the server is told when the connection stands."""

RouterOf = Callable[[str], tuple[str, str] | None]
"""A tenant's router on this node: its space and its address here; None where there is none."""
ConnectIn = Callable[[str, str, int, str], Awaitable[socket.socket]]
"""(space, address, port, source): a connected, non-blocking socket made inside the namespace. Raises OSError, PolderError."""
Lookup = Callable[[str, str, str], Awaitable[list[str]]]
"""(space, source, name): the addresses of a name, asked from inside the namespace. Raises OSError, PolderError."""


class Dials:
    """Serves the server's streams of kind ``dial``."""

    def __init__(self, router_of: RouterOf, connect_in: ConnectIn, lookup: Lookup) -> None:
        self._router_of = router_of
        self._connect_in = connect_in
        self._lookup = lookup
        self._open: Counter[str] = Counter()

    async def serve(self, header: Raw, stream: ByteStream) -> None:
        """One connection to its end; a refusal resets the stream with its reason."""
        tenant, address, port = header.get("tenant"), header.get("address"), header.get("port")
        if not isinstance(tenant, str) or not isinstance(address, str) or not isinstance(port, int):
            await stream.reset("a dial needs tenant, address and port")
            return
        if self._open[tenant] >= TENANT_LIMIT:
            await stream.reset("too many connections are open for this tenant on this node")
            return
        self._open[tenant] += 1
        try:
            await self._serve(tenant, address, port, stream)
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _serve(self, tenant: str, address: str, port: int, stream: ByteStream) -> None:
        where = f"dial tcp {address}:{port}"
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                sock = await self._connect(tenant, address, port)
        except TimeoutError:
            await stream.reset(f"{where}: i/o timeout")
            return
        except (OSError, PolderError) as error:
            await stream.reset(f"{where}: {plain(error)}")
            return
        try:
            await stream.write(CONNECTED)
        except BaseException:
            sock.close()
            raise
        await carry(sock, stream)

    async def _connect(self, tenant: str, address: str, port: int) -> socket.socket:
        router = self._router_of(tenant)
        if router is None:
            raise OSError("the tenant has no router on this node")
        if not 0 < port < 65536:
            raise OSError("the port is not between 1 and 65535")
        space, source = router
        places = [address] if is_address(address) else await self._lookup(space, source, address)
        last: OSError | PolderError = OSError("no such host")
        for place in places:
            try:
                check(place)
                return await self._connect_in(space, place, port, six(source) if ":" in place else source)
            except (OSError, PolderError) as error:
                last = error
        raise last


def is_address(text: str) -> bool:
    """Whether it is an IP address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check(address: str) -> None:
    """Refuses what is no address of a host out there; routing and rules refuse the rest. Raises OSError."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and (found.ipv4_mapped or found in PLATFORM6 or found.scope_id):
        raise OSError("this address is not reachable from the tenant's network")
    if found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified:
        raise OSError("this address is not reachable from the tenant's network")


def plain(error: OSError | PolderError) -> str:
    """The reason in the system's words, without the numbers of errors or names of files."""
    if isinstance(error, PolderError):
        log.info("a dial failed: %s", error)
        return "the tenant's router on this node cannot be used now"
    return f"connect: {os.strerror(error.errno).lower()}" if error.errno else str(error)
