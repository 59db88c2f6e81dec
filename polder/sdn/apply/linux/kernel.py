"""The Linux kernel as a set of items: observe it, apply a difference, get sockets in a space.

All calls into the kernel run in one worker thread, in the order of the calls; the event loop never waits for the kernel.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from polder.sdn.apply.linux.act import Change
from polder.sdn.apply.linux.announce import AGAIN, announce
from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.apply.linux.observe import Observation
from polder.sdn.apply.linux.reaper import Reaper
from polder.sdn.apply.linux.spaces import KernelSettings, Spaces
from polder.sdn.render.linux.items import Announced, Item
from polder.sdn.render.linux.policy_rules import POLICY_TABLE
from polder.system.net import nft
from polder.system.net.sockets import listening_socket, resolver_sockets, unconnected_socket

__all__ = ["ItemFailure", "Kernel", "KernelSettings"]
_log = logging.getLogger(__name__)
_COALESCE = 0.05
"""Seconds that a removed link waits for others to be deleted with."""
T = TypeVar("T")


class Kernel:
    """One node's kernel state. Everything is idempotent: after a kill at any point observe and apply converge."""

    def __init__(self, settings: KernelSettings) -> None:
        self._settings = settings
        self._worker = ThreadPoolExecutor(1, "kernel")
        self._spaces: Spaces | None = None
        self._reaper: Reaper | None = None
        self._pending: dict[tuple[str, ...], list[asyncio.Future[None]]] = {}
        self._listeners: list[Callable[[Item], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._jobs: set[asyncio.Future[None]] = set()
        self._announced: set[Announced] = set()
        self._repeats: list[asyncio.TimerHandle] = []

    async def observe(self, expected: Iterable[Item] = ()) -> frozenset[Item]:
        """What the kernel has of ours. ``expected`` are the items that should be there: from them come the texts of rulesets
        (the kernel keeps a digest), which settings to read, and which entries on the node's own links are ours.
        Unfinished, edited or foreign things inside a space show so that they differ from any wanted item.
        """
        wanted = frozenset(expected)
        found = await self._run(lambda spaces, reaper: Observation(spaces, reaper, wanted).run())
        self._schedule()
        return found

    async def apply(self, remove: Iterable[Item], add: Iterable[Item]) -> list[ItemFailure]:
        """Remove, then add, in the order in which nothing is open for a moment. An added slot that exists is changed in
        place or replaced; one that is both removed and added is changed. Removed links pass no packet when this
        returns and are deleted shortly after (see wait_gone). What fails is named; the rest is done.
        """
        change = Change(tuple(remove), tuple(add))
        for item in change.links_removed:
            self._pending.setdefault(item.slot, [])
        failures = await self._run(change.run)
        self._schedule()
        self._say_again(change)
        return failures

    def on_gone(self, listener: Callable[[Item], None]) -> None:
        """Call ``listener`` in the event loop with each removed link once the kernel has deleted it."""
        self._listeners.append(listener)

    async def wait_gone(self, items: Iterable[Item]) -> None:
        """Return when the links of these removed items no longer exist."""
        waiting: list[asyncio.Future[None]] = []
        for item in items:
            if item.slot in self._pending:
                waiting.append(asyncio.get_running_loop().create_future())
                self._pending[item.slot].append(waiting[-1])
        if waiting:
            await asyncio.gather(*waiting)

    async def meddled(self) -> bool:
        """Whether somebody else changed rules since the last call that changed or observed them. Microseconds for each space."""
        return await self._run(lambda spaces, _: spaces.meddled())

    async def listen_in(self, space: str, address: str, port: int) -> socket.socket:
        """A listening, non-blocking TCP socket in a space. OSError or NetnsError where that cannot be. Close it before the
        space is removed: it keeps the namespace alive.
        """
        return await self._run(lambda spaces, _: listening_socket(spaces.get(space).netns, address, port))

    async def resolver_sockets_in(self, space: str, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        """A UDP and a listening TCP socket in a space, as ``listen_in`` says."""
        return await self._run(lambda spaces, _: resolver_sockets(spaces.get(space).netns, address, port))

    async def connect_in(
        self, space: str, address: str, port: int, source: str = "", *, datagram: bool = False
    ) -> socket.socket:
        """A non-blocking TCP (or UDP) socket connected from a space, from the address ``source`` if one is given. OSError or
        NetnsError where that cannot be.
        """
        sock = await self._run(
            lambda spaces, _: unconnected_socket(spaces.get(space).netns, address, source, datagram=datagram)
        )
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def counts(self, space: str) -> dict[str, list[tuple[int, int]]]:
        """Packets and bytes that each rule of the policies' chains has counted, by chain; nothing where no space is."""
        if not await self._run(lambda spaces, _: space in spaces.names()):
            return {}
        return await self._run(lambda spaces, _: nft.list_counts(spaces.get(space).nft, "inet", POLICY_TABLE))

    async def close(self) -> None:
        """Delete what waits for it and let go of every namespace; what is in the kernel stays."""
        for timer in (self._timer, *self._repeats):
            if timer is not None:
                timer.cancel()
        if self._jobs:
            await asyncio.gather(*self._jobs)
        if self._spaces:
            await self._run(_flush)
            self._spaces.close()
        self._worker.shutdown()

    async def _run(self, what: Callable[[Spaces, Reaper], T]) -> T:
        loop = asyncio.get_running_loop()

        def body() -> T:
            if self._spaces is None or self._reaper is None:
                self._spaces = Spaces(self._settings)
                self._reaper = Reaper(self._spaces, lambda items: _hand(loop, self._gone, items))
            return what(self._spaces, self._reaper)

        return await loop.run_in_executor(self._worker, body)

    def _say_again(self, change: Change) -> None:
        """Repeat what was announced, as long as it stands."""
        self._announced.difference_update(item for item in change.remove if isinstance(item, Announced))
        items = change.announced
        self._announced.update(items)
        for delay in AGAIN if items else ():
            self._repeats = [timer for timer in self._repeats if timer.when() > asyncio.get_running_loop().time()]
            self._repeats.append(asyncio.get_running_loop().call_later(delay, self._repeat, items))

    def _repeat(self, items: list[Announced]) -> None:
        standing = [item for item in items if item in self._announced]
        self._job(self._run(lambda spaces, _: announce(spaces, standing)))

    def _schedule(self) -> None:
        if self._reaper and self._reaper.waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_COALESCE, self._reap)

    def _reap(self) -> None:
        """A job for each space, so that an apply gets its turn in between."""
        self._timer = None
        for name in self._reaper.waiting if self._reaper else []:
            self._job(self._run(lambda _, reaper, name=name: reaper.reap(name)))  # type: ignore[misc]

    def _job(self, what: Coroutine[Any, Any, None]) -> None:
        job = asyncio.ensure_future(what)
        self._jobs.add(job)
        job.add_done_callback(self._done)

    def _done(self, job: asyncio.Future[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (failed := job.exception()):
            _log.error("deleting links or announcing addresses failed: %s", failed)

    def _gone(self, items: list[Item]) -> None:
        for item in items:
            for future in self._pending.pop(item.slot, []):
                if not future.done():
                    future.set_result(None)
            for listener in self._listeners:
                listener(item)


def _hand(loop: asyncio.AbstractEventLoop, receiver: Callable[[list[Item]], None], items: list[Item]) -> None:
    loop.call_soon_threadsafe(receiver, items)


def _flush(_: Spaces, reaper: Reaper) -> None:
    for name in reaper.waiting:
        reaper.reap(name)
