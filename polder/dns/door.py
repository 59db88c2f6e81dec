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
from functools import cache
from typing import Any

from polder.dns.resolver import Resolver, Waiting
from polder.dns.wire import UDP_SIZE
from polder.system.net.datagrams import Batch

log = logging.getLogger(__name__)

LARGEST_QUERY = 1024
"""Bytes of a query; a name, its question and options known to be sent need half."""
BATCH, FEW = 64, 8
"""Packets of one turn; and of one that follows a turn with so many that were not ready: half a millisecond either way."""
CONNECTIONS = 32
"""TCP connections of one tenant at a time."""
IDLE = 10.0
"""Seconds that a connection may be silent, or not take its answer."""
DRAINED = 1024
PAUSE = 0.5

ResolverOf = Callable[[bytes], Resolver | None]
"""Who answers a client at this address of 4 or 16 bytes."""


@cache
def _batch(family: socket.AddressFamily) -> Batch:
    """Room for one turn, which all doors share: they have their turns one after the other."""
    return Batch(family, BATCH, LARGEST_QUERY, UDP_SIZE)


class Door:
    """Answers what comes to the two sockets, once ``open`` is called."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, resolver_of: ResolverOf, only: Resolver | None = None
    ) -> None:
        self._udp, self._tcp = udp, tcp
        self._resolver_of = resolver_of
        self._only = only
        self._batch = _batch(udp.family)
        self._most = BATCH
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
        batch, number, begun = self._batch, self._udp.fileno(), time.monotonic()
        count = batch.receive(number, self._most)
        view, lengths, size, reply, only = batch.view, batch.lengths, batch.size, batch.reply, self._only
        slow = 0
        for index in range(count):
            resolver = only or self._resolver_of(batch.address(index))
            if resolver is None:
                continue
            at = index * size
            ready = resolver.ready.held.get(view[at + 2 : at + lengths[index]].tobytes())
            if ready is not None and ready.until > begun:
                reply(index, ready.tail, 2)
                if ready.others is not None:
                    ready.tail = next(ready.others)
            else:
                self._slow(resolver, index)
                slow += 1
        batch.send(number)
        self._most = FEW if slow >= FEW else BATCH
        return count > 0

    def _slow(self, resolver: Resolver, index: int) -> None:
        at = index * self._batch.size
        data = bytes(self._batch.view[at : at + self._batch.lengths[index]])
        try:
            answer = resolver.answer(data, time.monotonic())
        except Exception:
            # One message that we do not understand must not keep others from being answered.
            log.exception("tenant %s: a message of %d bytes could not be answered", resolver.tenant, len(data))
            return
        if isinstance(answer, Waiting):
            task = asyncio.create_task(self._later(resolver, answer, self._batch.peer(index)))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
        elif answer is not None:
            self._batch.reply(index, answer)

    async def _later(self, resolver: Resolver, waiting: Waiting, peer: Any) -> None:
        answer = await resolver.finish(waiting, time.monotonic)
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
        resolver = self._only or self._resolver_of(socket.inet_pton(sock.family, peer[0]))
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
