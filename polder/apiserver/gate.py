"""How many connections, and how many handshakes, there may be: altogether, and of one source.

There are three ways in, and none uses up another's room: from the machine itself (Polder's own parts), from the network, and
through tenants' ``kubernetes`` services. A source is an address, or a tenant. Where there is no room left, an idle connection
of the source that has most gives way; one on which a request is served never does.
"""

from __future__ import annotations

import asyncio
import heapq
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from polder.loop.turns import Turns

log = logging.getLogger(__name__)

PREFIX: Final = 64
"""Bits of an IPv6 address that name a source: whoever has one address has all of its subnet."""
TRIED: Final = 8
"""Sources of which an idle connection is looked for."""
SAID_EVERY: Final = 10.0
"""Seconds between two lines of the log about what found no room."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one way in: connections and handshakes at a time, altogether and of one source. A handshake counts for ``hold``
    seconds at least, so that a source has no more than ``handshakes_each / hold`` of them in a second.
    """

    connections: int
    each: int
    handshakes: int
    handshakes_each: int
    hold: float = 0.0


@dataclass(frozen=True, slots=True)
class Doors:
    """The ways in. Times in seconds: to wait for a handshake's turn, for the handshake, and for a first request's head."""

    local: Limits = Limits(4096, 4096, 1024, 1024)
    network: Limits = Limits(4096, 512, 64, 8, 0.05)
    tenants: Limits = Limits(4096, 512, 64, 8, 0.05)
    waiting: float = 30.0
    handshake: float = 10.0
    first_request: float = 30.0


def source_of(peer: Any, own: Any) -> tuple[bool, str]:
    """Whether the connection is from this machine (where it comes from is where it goes to), and its source. Of addresses as
    sockets tell them.
    """
    if peer[0] == own[0]:
        return True, peer[0]
    address = ipaddress.ip_address(peer[0].partition("%")[0])
    if address.version == 4:
        return False, str(address)
    if address.ipv4_mapped is not None:
        return False, str(address.ipv4_mapped)
    return False, str(ipaddress.ip_network((address, PREFIX), strict=False))


class Waiter:
    """A connection that waits for its turn to shake hands."""

    __slots__ = ("future", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_waiting(self) -> bool:
        """Whether its turn has not come."""
        return not self.future.done()

    def give_way(self) -> None:
        """It gets no turn."""
        if not self.future.done():
            self.future.set_exception(ConnectionAbortedError("gave way to another source"))


class Handshakes:
    """Turns for handshakes, round robin between sources."""

    def __init__(self, limits: Limits) -> None:
        self._free = limits.handshakes
        self._hold = limits.hold
        self._turns: Turns[Waiter] = Turns(lambda waiter: waiter.source, limits.handshakes_each)

    async def take(self, waiter: Waiter, seconds: float) -> float:
        """Waits for the waiter's turn; when it began. Raises OSError where none comes."""
        self._turns.push(waiter)
        self._serve()
        try:
            async with asyncio.timeout(seconds):
                await waiter.future
        except BaseException:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self._give(waiter)
            raise
        return asyncio.get_running_loop().time()

    def give(self, waiter: Waiter, began: float) -> None:
        """The handshake is over."""
        loop = asyncio.get_running_loop()
        left = began + self._hold - loop.time()
        if left > 0:
            loop.call_later(left, self._give, waiter)
        else:
            self._give(waiter)

    def _give(self, waiter: Waiter) -> None:
        self._free += 1
        self._turns.done(waiter)
        self._serve()

    def _serve(self) -> None:
        while self._free and self._turns:
            waiter = self._turns.pop()
            if waiter.future.done():
                self._turns.done(waiter)
            else:
                self._free -= 1
                waiter.future.set_result(None)


class Place:
    """One connection's, from when it is accepted until it is lost. ``is_idle`` and ``end`` are its connection's."""

    __slots__ = ("_room", "end", "is_idle", "source")

    def __init__(self, room: Room, source: str, waiter: Waiter) -> None:
        self._room = room
        self.source = source
        self.is_idle: Callable[[], bool] = waiter.is_waiting
        self.end: Callable[[], None] = waiter.give_way

    def leave(self) -> None:
        """Gives the place back; twice is once."""
        self._room.leave(self)


class Room:
    """The places of one way in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: dict[str, dict[Place, None]] = {}
        self._total = 0
        self._refused = 0
        self._said = float("-inf")
        self.handshakes = Handshakes(limits)

    def enter(self, waiter: Waiter) -> Place | None:
        """A place, None if there is none."""
        mine = len(self._open.get(waiter.source, ()))
        if mine >= self._limits.each:
            found = self._end_one(waiter.source)
        else:
            found = self._total < self._limits.connections or self._make_room(waiter.source, mine)
        if not found:
            self._refuse(waiter.source)
            return None
        place = Place(self, waiter.source, waiter)
        self._open.setdefault(waiter.source, {})[place] = None
        self._total += 1
        return place

    def leave(self, place: Place) -> None:
        """One place is free."""
        places = self._open.get(place.source, {})
        if place in places:
            del places[place]
            self._total -= 1
            if not places:
                del self._open[place.source]

    def _make_room(self, source: str, mine: int) -> bool:
        """Takes a place from one of those that have most, never to their disadvantage."""
        sizes = ((len(places), other) for other, places in self._open.items())
        largest = heapq.nlargest(TRIED, sizes)
        return any(self._end_one(other) for size, other in largest if size > mine + 1 or other == source)

    def _end_one(self, source: str) -> bool:
        """Ends the oldest idle connection of a source."""
        for place in self._open.get(source, ()):
            if place.is_idle():
                self.leave(place)
                place.end()
                return True
        return False

    def _refuse(self, source: str) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._said > SAID_EVERY:
            self._said = now
            log.warning("%d connections found no room, the last one from %s", self._refused, source)
            self._refused = 0
