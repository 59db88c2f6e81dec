"""Connections from inside pods' network namespaces, so that the addresses of tenants may overlap.

A socket belongs to the namespace that it was made in, whoever uses it. One thread makes them all: it enters a pod's
namespace for as long as socket(2) takes; the agent's own thread never leaves its namespace.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from polder.node.dial import is_address
from polder.node.names import Names
from polder.system.net.netns import NetnsError
from polder.system.net.sockets import socket_at

LOCAL = {"localhost": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Place:
    """From where a pod's probes are made: the file of its network namespace (None: the node's own) and its name servers."""

    space: Path | None
    servers: Sequence[str] = ()


class Reach:
    """Opens connections from pods' namespaces."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "reach")

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False)

    async def connect(self, place: Place, host: str, port: int) -> socket.socket:
        """A connected, non-blocking TCP socket. Raises OSError in the system's words; the caller bounds the time."""
        address = host if is_address(host) else await self._lookup(place, host)
        return await self._open(place, address, port, datagram=False)

    async def _lookup(self, place: Place, name: str) -> str:
        if name in LOCAL:
            return LOCAL[name]

        async def datagram(_space: str, _source: str, address: str, port: int) -> socket.socket:
            return await self._open(place, address, port, datagram=True)

        return (await Names(lambda: place.servers, datagram).lookup("", "", name))[0]

    async def _open(self, place: Place, address: str, port: int, *, datagram: bool) -> socket.socket:
        loop = asyncio.get_running_loop()
        made = loop.run_in_executor(self._thread, socket_at, place.space, address, datagram)
        try:
            sock = await asyncio.shield(made)
        except asyncio.CancelledError:
            made.add_done_callback(_close_unused)
            raise
        except NetnsError as error:
            raise OSError("the pod's network is gone") from error
        try:
            await loop.sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock


def _close_unused(made: asyncio.Future[socket.socket]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().close()


def words(error: OSError) -> str:
    """The reason in the system's words, without numbers."""
    return f"connect: {os.strerror(error.errno).lower()}" if error.errno else str(error)
