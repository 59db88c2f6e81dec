"""The tenants' ``kubernetes`` services on a node: one listening socket inside each router's namespace.

A connection is carried, untouched, over the node's stream to the server, which ends its TLS. What comes from one tenant
is bounded, so that it cannot use up the node's sockets or the stream.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from polder.api.meta import Raw
from polder.base.errors import PolderError, RetryableError
from polder.client.carry import ByteStream, carry

log = logging.getLogger(__name__)

CONNECTION_LIMIT = 128
"""Open connections of one tenant on one node."""
ACCEPT_PAUSE = 0.5
"""Seconds to wait after a failed accept (no file descriptors left, for example)."""


@dataclass(frozen=True, slots=True)
class Service:
    """What to listen for in one space: whose, and where."""

    tenant: str
    address: str
    port: int


ListenIn = Callable[[str, str, int], Awaitable[socket.socket]]
"""(space, address, port): a listening, non-blocking TCP socket made inside the namespace. Raises OSError, PolderError."""
OpenStream = Callable[[Raw], Awaitable[ByteStream]]
"""Opens a stream to the server. Raises ConnectionError when there is no connection."""


class EntryError(RetryableError):
    """Some spaces have no listening socket yet."""


class _Door:
    """The socket of one space, its accepting task and its connections."""

    def __init__(self, service: Service, sock: socket.socket, open_stream: OpenStream) -> None:
        self.service = service
        self._sock = sock
        self._open_stream = open_stream
        self._room = asyncio.Semaphore(CONNECTION_LIMIT)
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                self._room.release()
                log.warning("accept for tenant %s failed: %s", self.service.tenant, error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            except asyncio.CancelledError:
                self._room.release()
                raise
            task = asyncio.create_task(self._serve(sock))
            self._connections.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection of tenant %s broke", self.service.tenant, exc_info=error)

    async def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        try:
            stream = await self._open_stream({"kind": "api", "tenant": self.service.tenant})
        except ConnectionError as error:
            log.info("a connection of tenant %s finds no server: %s", self.service.tenant, error)
            sock.close()
            return
        except asyncio.CancelledError:
            sock.close()
            raise
        await carry(sock, stream)

    async def close(self) -> None:
        """Closes the socket and every connection."""
        tasks = [self._accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sock.close()


class Entries:
    """Keeps one listening socket in each router's namespace that is wanted."""

    def __init__(self, listen_in: ListenIn, open_stream: OpenStream) -> None:
        self._listen_in = listen_in
        self._open_stream = open_stream
        self._doors: dict[str, _Door] = {}
        self._lock = asyncio.Lock()

    async def set(self, wanted: Mapping[str, tuple[str, str, int]]) -> None:
        """Makes it so: (tenant, address, port) by space. Tries every one; raises EntryError naming those that failed.

        A space whose namespace is made anew must be taken out once in between: its old socket lives in the old one.
        """
        async with self._lock:
            services = {space: Service(*row) for space, row in wanted.items()}
            for space in [s for s, door in self._doors.items() if services.get(s) != door.service]:
                await self._doors.pop(space).close()
            failed = []
            for space in services.keys() - self._doors.keys():
                service = services[space]
                try:
                    sock = await self._listen_in(space, service.address, service.port)
                except (OSError, PolderError) as error:
                    failed.append(f"{space}: {error}")
                    continue
                self._doors[space] = _Door(service, sock, self._open_stream)
            if failed:
                raise EntryError(f"no entry to the API in {'; '.join(sorted(failed))}", after=1.0)

    async def close(self) -> None:
        """Closes everything."""
        await self.set({})
