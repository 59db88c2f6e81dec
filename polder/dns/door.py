"""The sockets of one space: a tenant's own, or shared by tenants who are told apart by their addresses.

The event loop serves one socket after the other, and each has a turn of bounded length; so who floods its resolver waits for
itself, and others for one turn at most.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from polder.dns.resolver import Resolver, Waiting

log = logging.getLogger(__name__)

LARGEST_QUERY = 1024
"""Bytes of a query; a name, its question and options known to be sent need half."""
BATCH = 64
"""Packets of one turn."""
TURN = 0.0005
"""Seconds of one turn; a slow answer may go beyond it."""
CONNECTIONS = 32
"""TCP connections of one tenant at a time."""
IDLE = 10.0
"""Seconds that a connection may be silent, or not take its answer."""
DRAINED = 1024
PAUSE = 0.5

ResolverOf = Callable[[str], Resolver | None]
"""Who answers a client at this address."""


class Door:
    """Answers what comes to the two sockets, once ``open`` is called."""

    def __init__(self, udp: socket.socket, tcp: socket.socket, resolver_of: ResolverOf) -> None:
        self._udp, self._tcp = udp, tcp
        self._resolver_of = resolver_of
        self._connections: dict[asyncio.Task[None], str] = {}
        self._counts: Counter[str] = Counter()
        self._pending: set[asyncio.Task[None]] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self.is_open = False
        for sock in (udp, tcp):
            sock.setblocking(False)

    def open(self) -> None:
        """Begins to answer; what came before has waited in the sockets."""
        if not self.is_open:
            self.is_open = True
            loop = asyncio.get_running_loop()
            loop.add_reader(self._udp.fileno(), self._datagrams)
            loop.add_reader(self._tcp.fileno(), self._accept)

    # -- UDP ------------------------------------------------------------------------------------------------------

    def _datagrams(self) -> bool:
        """One turn; whether more may wait."""
        begun = time.monotonic()
        receive, send, resolver_of = self._udp.recvfrom, self._udp.sendto, self._resolver_of
        for _ in range(BATCH):
            try:
                data, peer = receive(LARGEST_QUERY)
            except OSError:
                return False
            resolver = resolver_of(peer[0])
            if resolver is None:
                continue
            ready = resolver.ready.held.get(data[2:])
            if ready is not None and ready.until > begun:
                try:
                    send(data[:2] + ready.tail, peer)
                except OSError:
                    continue
                if ready.others is not None:
                    ready.tail = next(ready.others)
                continue
            self._slow(resolver, data, peer)
            if time.monotonic() - begun > TURN:
                return True
        return True

    def _slow(self, resolver: Resolver, data: bytes, peer: Any) -> None:
        try:
            answer = resolver.answer(data, time.monotonic())
        except Exception:
            # One message that we do not understand must not keep others from being answered.
            log.exception("tenant %s: a message of %d bytes could not be answered", resolver.tenant, len(data))
            return
        if isinstance(answer, Waiting):
            task = asyncio.create_task(self._later(resolver, answer, peer))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
        elif answer is not None:
            self._send(answer, peer)

    async def _later(self, resolver: Resolver, waiting: Waiting, peer: Any) -> None:
        self._send(await resolver.finish(waiting, time.monotonic), peer)

    def _send(self, answer: bytes, peer: Any) -> None:
        try:
            self._udp.sendto(answer, peer)
        except OSError as error:
            # The client has gone, or its network has no room: it asks again.
            log.debug("an answer to %s was not sent: %s", peer, error)

    # -- TCP ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, peer = self._tcp.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log.warning("a connection was not accepted: %s", error)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._tcp.fileno())
            loop.call_later(PAUSE, self._accept_again)
            return
        resolver = self._resolver_of(peer[0])
        if resolver is None or self._counts[resolver.tenant] >= CONNECTIONS:
            sock.close()
            return
        self._counts[resolver.tenant] += 1
        task = asyncio.create_task(self._serve(sock, resolver))
        self._connections[task] = resolver.tenant
        task.add_done_callback(self._left)

    def _accept_again(self) -> None:
        if self._tcp.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._tcp.fileno(), self._accept)

    def _left(self, task: asyncio.Task[None]) -> None:
        tenant = self._connections.pop(task)
        self._counts[tenant] -= 1
        if not self._counts[tenant]:
            del self._counts[tenant]
            self._turns.pop(tenant, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection of tenant %s broke", tenant, exc_info=error)

    async def _serve(self, sock: socket.socket, resolver: Resolver) -> None:
        reader, writer = await asyncio.open_connection(sock=sock, limit=2 * LARGEST_QUERY)
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    if size > LARGEST_QUERY:
                        return
                    data = await reader.readexactly(size)
                answer = await self._turn(resolver, data)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2, "big") + answer)
                async with asyncio.timeout(IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _turn(self, resolver: Resolver, data: bytes) -> bytes | None:
        """One answer; a tenant's connections take one in each round of the loop."""
        async with self._turns.setdefault(resolver.tenant, asyncio.Lock()):
            answer = resolver.answer(data, time.monotonic(), stream=True)
            await asyncio.sleep(0)
        return await resolver.finish(answer, time.monotonic) if isinstance(answer, Waiting) else answer

    # -- the end --------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Answers what has come, and closes."""
        if self.is_open:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._udp.fileno())
            loop.remove_reader(self._tcp.fileno())
            for _ in range(DRAINED // BATCH):
                if not self._datagrams():
                    break
        tasks = [*self._connections, *self._pending]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._udp.close()
        self._tcp.close()
