"""The agent's end: starts the process or finds it again, tells it what holds, and keeps the sockets.

Copies of the sockets stay here. So while the process starts anew, questions wait in them and are answered then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polder.base.errors import PolderError, RetryableError
from polder.dns import facts
from polder.dns.channel import Channel, ChannelError, TooLargeError, channel_socket
from polder.system import process
from polder.system.process import Command, ProcessId

log = logging.getLogger(__name__)

PORT = 53
SHARED = "."
"""The space of the sockets that tenants share: no tenant has this name."""
READY_SECONDS = 15.0
STOP_SECONDS = 5.0
FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
STEADY = 10.0
"""Seconds of life after which the process's next end counts as the first."""

SocketsIn = Callable[[str, str, int], Awaitable[tuple[socket.socket, socket.socket]]]
"""(space, address, port): a UDP socket, and a listening TCP socket, made inside the namespace. Raises OSError, PolderError."""
Place = tuple[str, str, str]
"""Tenant, class and key of a fact."""


class DoorsError(RetryableError):
    """Some spaces have no sockets yet."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """``folder`` holds the process's socket, pidfile and log. ``upstreams`` are ``ADDRESS`` or ``ADDRESS#PORT``; ``enter`` is put
    before the command (for tests: to run it in another network namespace). A process of another ``release`` is replaced.
    """

    folder: Path
    upstreams: Sequence[str] = ()
    enter: Sequence[str] = ()
    release: str = ""

    @property
    def socket(self) -> Path:
        """Where the process listens for the agent."""
        return self.folder / "socket"

    @property
    def pidfile(self) -> Path:
        """Which process it is."""
        return self.folder / "pid"


@dataclass(frozen=True, slots=True)
class _Door:
    listen: facts.Listen
    sockets: tuple[socket.socket, socket.socket]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Link:
    """Everything that is put is told, now or when the process is there."""

    def __init__(self, settings: LinkSettings, sockets_in: SocketsIn) -> None:
        self._settings = settings
        self._sockets_in = sockets_in
        self._facts: dict[Place, facts.AnyFact] = {}
        self._doors: dict[str, _Door] = {}
        self._sources: dict[bytes, str] = {}
        self._changed: dict[Place | str, None] = {}
        self._wake = asyncio.Event()
        self._lock = asyncio.Lock()
        self._begun = asyncio.Event()
        self.told = asyncio.Event()
        """Set while the process knows everything that was put before."""

    # -- what holds -----------------------------------------------------------------------------------------------

    def put(self, fact: facts.AnyFact) -> None:
        """A fact holds."""
        place = fact.tenant, type(fact).__name__, fact.key
        if self._facts.get(place) != fact:
            self._facts[place] = fact
            self._note(place)

    def drop(self, tenant: str, kind: type[facts.Fact], key: str) -> None:
        """A fact holds no more."""
        place = tenant, kind.__name__, key
        if self._facts.pop(place, None) is not None:
            self._note(place)

    async def set(self, wanted: Mapping[str, tuple[str, str]]) -> None:
        """(tenant, address) by space: where to answer. Tries every one; raises DoorsError naming those that failed. A space whose
        namespace is made anew must be taken out once in between: its old sockets live in the old one. It waits until the process
        is spoken to: of questions that come to an address some go to the newest socket at once, which nobody would read.
        """
        await self._begun.wait()
        async with self._lock:
            for space, door in list(self._doors.items()):
                if space == SHARED:
                    continue
                tenant, address = wanted.get(space, ("", ""))
                if (door.listen.tenant, door.listen.address) != (tenant, packed(address)):
                    self._doors.pop(space).close()
                    self._note(space)
            failed = []
            for space in wanted.keys() - self._doors.keys():
                tenant, address = wanted[space]
                try:
                    pair = await self._sockets_in(space, address, PORT)
                except (OSError, PolderError) as error:
                    failed.append(f"{space}: {error}")
                    continue
                self._doors[space] = _Door(facts.Listen(space, tenant, packed(address)), pair)
                self._note(space)
            if failed:
                raise DoorsError(f"no resolver in {'; '.join(sorted(failed))}", after=0.5)

    def close(self) -> None:
        """Lets go of the sockets; the process has its own copies."""
        for door in self._doors.values():
            door.close()
        self._doors.clear()

    async def open_shared(self, address: str, sockets_in: SocketsIn) -> None:
        """Answer all tenants at this address too, each by where it comes from (``share``); nothing for no address."""
        if address:
            await self._begun.wait()
            pair = await sockets_in(SHARED, address, PORT)
            self._doors[SHARED] = _Door(facts.Listen(SHARED, "", packed(address)), pair)
            self._note(SHARED)

    def share(self, sources: Mapping[str, str]) -> None:
        """Which tenant is at which address, for doors without a tenant."""
        found = {packed(address): tenant for address, tenant in sources.items()}
        if self._sources != found:
            self._sources = found
            self._note("")

    def _note(self, what: Place | str) -> None:
        self._changed[what] = None
        self.told.clear()
        self._wake.set()

    # -- telling --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled; the process lives on."""
        wait = FIRST_WAIT
        while True:
            begun = time.monotonic()
            try:
                await self._talk()
            except (PolderError, OSError) as error:
                log.warning("the resolver: %s", error)
            self.told.clear()
            wait = FIRST_WAIT if time.monotonic() - begun > STEADY else min(wait * 2, LONGEST_WAIT)
            await asyncio.sleep(wait)

    async def _talk(self) -> None:
        channel = await self._connect()
        self._begun.set()
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(channel))
                await channel.ended()
                telling.cancel()
        except* ChannelError as errors:
            raise ChannelError(str(errors.exceptions[0]), 0.5) from None
        finally:
            channel.close()
        raise ChannelError("the process has ended; it is started again", FIRST_WAIT)

    async def _tell(self, channel: Channel) -> None:
        self._changed.clear()
        await channel.send(facts.Begin(tuple(self._settings.upstreams)))
        await channel.send(facts.Sources(dict(self._sources)))
        for space in list(self._doors):
            await self._tell_one(channel, space)
        for place in list(self._facts):
            await self._tell_one(channel, place)
        await self._tell_changes(channel)
        await channel.send(facts.End())
        while True:
            if not self._changed:
                self.told.set()
                self._wake.clear()
                await self._wake.wait()
            await self._tell_changes(channel)

    async def _tell_changes(self, channel: Channel) -> None:
        while self._changed:
            changed, self._changed = self._changed, {}
            for what in changed:
                await self._tell_one(channel, what)

    async def _tell_one(self, channel: Channel, what: Place | str) -> None:
        if isinstance(what, tuple):
            await self._tell_fact(channel, what)
        elif not what:
            await channel.send(facts.Sources(dict(self._sources)))
        elif (door := self._doors.get(what)) is not None:
            udp, tcp = door.sockets
            await channel.send(door.listen, (udp.fileno(), tcp.fileno()))
        else:
            await channel.send(facts.Leave(what))

    async def _tell_fact(self, channel: Channel, place: Place) -> None:
        fact, (tenant, kind, key) = self._facts.get(place), place
        gone = facts.Gone(tenant, key, kind)
        try:
            await channel.send(fact if fact is not None else gone)
        except TooLargeError as error:
            log.warning("the resolver: %s %s of tenant %s has no names: %s", kind, key, tenant, error)
            await channel.send(gone)

    # -- the process ----------------------------------------------------------------------------------------------

    async def _connect(self) -> Channel:
        running = find(self._settings)
        if running is not None and self._settings.release not in ["", *process.arguments(running)]:
            log.info("the resolver's process is of another release; it is replaced")
            await stop(self._settings)
            running = None
        if running is None:
            running = await asyncio.to_thread(self._start)
        end = time.monotonic() + READY_SECONDS
        while True:
            sock = channel_socket()
            try:
                sock.connect(str(self._settings.socket))
                return Channel(sock)
            except OSError as error:
                sock.close()
                if not process.alive(running):
                    process.reap(running.pid)
                    log_file = self._settings.folder / "log"
                    raise RetryableError(f"the process ended while it started; its output is in {log_file}") from error
                if time.monotonic() > end:
                    raise RetryableError(f"the process does not listen: {error.strerror}") from error
            await asyncio.sleep(0.02)

    def _start(self) -> ProcessId:
        settings = self._settings
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.socket.unlink(missing_ok=True)
        command = [*settings.enter, sys.executable, "-m", "polder.main.dns", "--socket", str(settings.socket)]
        command += ["--release", settings.release] if settings.release else []
        started = process.start_detached(Command(command, settings.folder / "log", {"PATH": os.defpath}))
        process.write_pidfile(settings.pidfile, started)
        return started


def packed(address: str) -> bytes:
    """An address as bytes; nothing for nothing."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address) if address else b""


def find(settings: LinkSettings) -> ProcessId | None:
    """The process, if it lives."""
    held = process.read_pidfile(settings.pidfile)
    return held if held is not None and process.alive(held) else None


async def stop(settings: LinkSettings) -> None:
    """Ends the process, if it lives."""
    found = find(settings)
    if found is not None:
        await process.stop(found, STOP_SECONDS)
    settings.pidfile.unlink(missing_ok=True)
    settings.socket.unlink(missing_ok=True)
