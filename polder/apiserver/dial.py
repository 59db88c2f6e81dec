"""Connections that the server opens to where a tenant points: from the tenant's own router, through the agent of a node.

The agent opens the socket inside the tenant's router (``node/dial.py``), so that the connection reaches what the tenant's
pods reach and nothing else, whatever address a tenant wrote. Only ``root``, which is the platform, is dialled for
directly, and its pods through their node, because the server has no way into pods' networks.

On the stream ``{"kind": "dial", "tenant", "address", "port"}`` the agent sends one byte when it is connected; what
follows is the connection's. A refusal resets the stream with its reason.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from polder.api.meta import Raw
from polder.apiserver.stream import NotConnectedError
from polder.base.errors import RetryableError
from polder.base.ids import ROOT, TenantName
from polder.client.carry import ByteStream, carry

log = logging.getLogger(__name__)

CONNECT_LIMIT = 10.0
"""Seconds for one connection to come about."""
TENANT_LIMIT = 96
"""Connections of one tenant at a time, idle ones too."""
TRIES = 3
"""Nodes that are asked one after the other, where the agent of one has just gone."""


class DialError(RetryableError):
    """No connection came about; the sentence says why, and is fit for the tenant's eyes."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. ``address`` is an IP address or a host name; ``node`` is where a pod with this address runs, if known.
    ``direct`` allows root's connections from the server itself.
    """

    tenant: TenantName
    address: str
    port: int
    node: str = ""

    @property
    def direct(self) -> bool:
        """Whether the server dials by itself."""
        return self.tenant == ROOT and not self.node


class Streams(Protocol):
    """The agents' streams."""

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that are connected."""
        ...

    async def open(self, node: str, header: Raw) -> ByteStream:
        """A stream to a node. Raises NotConnectedError."""
        ...


Present = Callable[[str, str], bool]
"""(node, tenant): whether the tenant is on the node."""


class Dialer:
    """Gives connected, non-blocking sockets."""

    def __init__(self, streams: Streams, present: Present) -> None:
        self._streams = streams
        self._present = present
        self._open: Counter[TenantName] = Counter()
        self._carrying: set[asyncio.Task[None]] = set()

    async def connect(self, target: Target) -> socket.socket:
        """Raises DialError; the caller closes the socket."""
        if target.direct:
            return await _directly(target)
        if self._open[target.tenant] >= TENANT_LIMIT:
            raise DialError("too many connections are open for this tenant")
        self._open[target.tenant] += 1
        try:
            first, stream = await self._through(target)
            return self._join(target.tenant, first, stream)
        except BaseException:
            self._left(target.tenant)
            raise

    def _left(self, tenant: TenantName) -> None:
        self._open[tenant] -= 1
        if not self._open[tenant]:
            del self._open[tenant]

    def _nodes(self, target: Target) -> list[str]:
        """The nodes to ask, the address's own first."""
        tenant = target.tenant
        found = [node for node in sorted(self._streams.nodes) if node == target.node or self._present(node, tenant)]
        return sorted(found, key=lambda node: node != target.node)[:TRIES]

    async def _through(self, target: Target) -> tuple[bytes, ByteStream]:
        nodes = self._nodes(target)
        if not nodes:
            raise DialError(
                "no node that runs pods of this tenant is connected, so nothing can be reached from the tenant's network"
            )
        header: Raw = {"kind": "dial", "tenant": target.tenant, "address": target.address, "port": target.port}
        why = ""
        for node in nodes:
            try:
                stream = await self._streams.open(node, header)
            except NotConnectedError as error:
                why = str(error)
                continue
            return await _acknowledged(stream), stream
        raise DialError(f"the tenant's network cannot be reached now: {why}")

    def _join(self, tenant: TenantName, first: bytes, stream: ByteStream) -> socket.socket:
        """A socket pair joins the mux to the TLS stack, which wants a socket of its own."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        if first:
            ours.send(first)
        task = asyncio.ensure_future(_carry(ours, stream))
        self._carrying.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._carrying.discard(done)
            self._left(tenant)

        task.add_done_callback(ended)
        return theirs

    async def close(self) -> None:
        """Ends every connection that agents carry."""
        tasks = list(self._carrying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(sock: socket.socket, stream: ByteStream) -> None:
    try:
        await carry(sock, stream)
    except OSError as error:
        log.debug("a connection into a tenant's network broke: %s", error)


async def _acknowledged(stream: ByteStream) -> bytes:
    """Waits until the agent says that it is connected; what came with that is the connection's. Raises DialError."""
    try:
        async with asyncio.timeout(CONNECT_LIMIT + 1):
            said = await stream.read()
    except TimeoutError as error:
        await stream.reset("too slow")
        raise DialError("connection timed out") from error
    except ConnectionError as error:
        raise DialError(str(error).partition("reset by the peer: ")[2] or "the node's agent has gone") from error
    except asyncio.CancelledError:
        await stream.reset("nobody waits any more")
        raise
    if not said:
        raise DialError("the node's agent gave no connection")
    return said[1:]


async def _directly(target: Target) -> socket.socket:
    """From the server's own place, for root."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            found = await loop.getaddrinfo(target.address, target.port, type=socket.SOCK_STREAM)
            return await _first_of([(row[0], row[4]) for row in found], loop)
    except TimeoutError as error:
        raise DialError(f"dial tcp {target.address}:{target.port}: i/o timeout") from error
    except OSError as error:
        raise DialError(f"dial tcp {target.address}:{target.port}: {_plain(error)}") from error


async def _first_of(
    places: list[tuple[socket.AddressFamily, tuple[object, ...]]], loop: asyncio.AbstractEventLoop
) -> socket.socket:
    """The first address that answers. Raises OSError of the last."""
    last: OSError = OSError("no such host")
    for family, place in places:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, place)
        except OSError as error:
            sock.close()
            last = error
            continue
        except BaseException:
            sock.close()
            raise
        return sock
    raise last


def _plain(error: OSError) -> str:
    """The system's words without numbers: ``connect: connection refused``."""
    if isinstance(error, socket.gaierror):
        return "lookup: no such host"
    return f"connect: {os.strerror(error.errno).lower()}" if error.errno else str(error)
