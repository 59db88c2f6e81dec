"""All tenants of a node: their zones and doors, as the agent tells."""

from __future__ import annotations

import asyncio
import socket

from polder.dns import facts
from polder.dns.bounded import share_of
from polder.dns.door import Door
from polder.dns.forward import Forwarder, upstream_of
from polder.dns.resolver import Resolver

GRACE = 3.0
"""Seconds for which a new tenant's questions wait for its names."""
MARKS = ((facts.Service, "default/kubernetes"), (facts.Slice, "default/kubernetes"))
"""What every tenant has: where these are known, the list that holds them has come."""
KINDS = {kind.__name__: kind for kind in (facts.Namespace, facts.Service, facts.Slice, facts.Pod)}
Place = tuple[str, str, str]
"""Tenant, class and key of a fact; or a space, with two empty strings."""


class Server:
    """The process's state. ``take`` is given what the agent says, in order."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._resolvers: dict[str, Resolver] = {}
        self._doors: dict[str, tuple[facts.Listen, Door]] = {}
        self._sources: dict[bytes, str] = {}
        self._seen: set[Place] | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.synced = False

    async def take(self, message: facts.Message, sockets: list[socket.socket]) -> None:
        """Does what a message says. ``sockets`` came with it."""
        match message:
            case facts.Begin():
                self._forwarder.upstreams = [upstream_of(text) for text in message.upstreams]
                self._seen = set()
            case facts.End():
                await self._end()
            case facts.Listen():
                await self._listen(message, sockets)
            case facts.Leave():
                await self._leave(message.space)
            case facts.Sources():
                self._sources = dict(message.tenants)
            case facts.Gone():
                self._forget(message.tenant, KINDS[message.what], message.key)
            case _:
                self._put(message)

    def _put(self, fact: facts.AnyFact) -> None:
        if self._seen is not None:
            self._seen.add((fact.tenant, type(fact).__name__, fact.key))
        resolver = self._resolver(fact.tenant)
        if resolver.zone.put(fact):
            resolver.changed()
        if (type(fact), fact.key) in MARKS:
            self._open_doors(fact.tenant)

    def _forget(self, tenant: str, kind: type[facts.Fact], key: str) -> None:
        resolver = self._resolvers.get(tenant)
        if resolver is not None and resolver.zone.remove(kind, key):
            resolver.changed()
            self._tidy(tenant)

    def _resolver(self, tenant: str) -> Resolver:
        found = self._resolvers.get(tenant)
        if found is None:
            found = self._resolvers[tenant] = Resolver(tenant, self._forwarder)
            self._share_out()
        return found

    def _tidy(self, tenant: str) -> None:
        """A tenant of which nothing is left leaves nothing."""
        resolver = self._resolvers.get(tenant)
        listened = any(listen.tenant == tenant for listen, _ in self._doors.values())
        if resolver is not None and not listened and not resolver.zone.keys():
            del self._resolvers[tenant]
            self._share_out()

    def _share_out(self) -> None:
        for resolver in self._resolvers.values():
            resolver.limit(share_of(len(self._resolvers)))

    # -- sockets --------------------------------------------------------------------------------------------------

    async def _listen(self, message: facts.Listen, sockets: list[socket.socket]) -> None:
        if len(sockets) != 2:
            for sock in sockets:
                sock.close()
            raise ValueError(f"space {message.space}: {len(sockets)} sockets came, not two")
        if self._seen is not None:
            self._seen.add((message.space, "", ""))
        old = self._doors.pop(message.space, None)
        if message.tenant:
            resolver = self._resolver(message.tenant)
            resolver.zone.address = message.address
            resolver.changed()
            door = Door(sockets[0], sockets[1], self._by_source, resolver)
        else:
            door = Door(sockets[0], sockets[1], self._by_source)
        self._doors[message.space] = message, door
        self._open_doors(message.tenant)
        if not door.is_open:
            self._timers[message.space] = asyncio.get_running_loop().call_later(GRACE, self._waited, message.space)
        if old is not None:
            await old[1].close()

    def _by_source(self, address: bytes) -> Resolver | None:
        return self._resolvers.get(self._sources.get(address, ""))

    def _open_doors(self, tenant: str) -> None:
        """Opens the doors of a tenant whose names are known."""
        if not self.synced:
            return
        resolver = self._resolvers.get(tenant)
        known = not tenant or (resolver is not None and all(resolver.zone.has(*mark) for mark in MARKS))
        if known:
            for listen, door in self._doors.values():
                if listen.tenant == tenant:
                    door.open()

    def _waited(self, space: str) -> None:
        """Opens the door of a tenant of which nothing more is to come, as it seems."""
        self._timers.pop(space, None)
        if space in self._doors and self.synced:
            self._doors[space][1].open()

    async def _leave(self, space: str) -> None:
        timer = self._timers.pop(space, None)
        if timer is not None:
            timer.cancel()
        found = self._doors.pop(space, None)
        if found is not None:
            await found[1].close()
            self._tidy(found[0].tenant)

    async def _end(self) -> None:
        """Everything has been told: what was not, is not."""
        seen, self._seen = self._seen or set(), None
        self.synced = True
        for tenant, resolver in list(self._resolvers.items()):
            for kind, key in resolver.zone.keys():  # noqa: SIM118 - a list of its own, for facts go
                if (tenant, kind.__name__, key) not in seen:
                    self._forget(tenant, kind, key)
        for space in [space for space in self._doors if (space, "", "") not in seen]:
            await self._leave(space)
        for tenant in {listen.tenant for listen, _ in self._doors.values()}:
            self._open_doors(tenant)
        for space in self._doors.keys() - self._timers.keys():
            self._waited(space)

    async def close(self) -> None:
        """Ends all."""
        for space in list(self._doors):
            await self._leave(space)
        await self._forwarder.close()
