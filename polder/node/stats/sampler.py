"""Measures every fifteen seconds what the node's containers use, in pieces, so that five hundred pods cost no moment of
their own; what is told to others comes from here, however often they ask.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from polder.base.clock import Clock
from polder.node.machine import MachineUse
from polder.system.accounting import MemoryUse
from polder.system.cri import UID_LABEL
from polder.system.cri_types import ContainerInfo, RuntimeFailureError

log = logging.getLogger(__name__)

EVERY = 15.0
"""Seconds between two measurements, as of upstream's metrics server."""
FIRST = 2.0
"""Seconds from the start to the first."""
PIECE = 32
"""Containers that are read in one go: three milliseconds."""
PAUSE = 0.005
LEAST_WINDOW = 1.0
"""Seconds below which a difference of CPU time says nothing."""
CLASSES = ("", "/burstable", "/besteffort")
"""Where pods' groups are, below the node's."""
NAME_LABEL = "io.kubernetes.container.name"


class Reader(Protocol):
    """See ``polder.system.accounting.Accounting``."""

    def cpu(self, group: str) -> int | None:
        """CPU time in nanoseconds."""
        ...

    def memory(self, group: str) -> MemoryUse | None:
        """Memory in use."""
        ...

    def children(self, group: str) -> list[str]:
        """Names of the groups right below."""
        ...


@dataclass(frozen=True, slots=True)
class Point:
    """One reading. ``at`` is in seconds since the epoch, ``cpu`` in nanoseconds of CPU time."""

    at: float
    cpu: int
    memory: MemoryUse


@dataclass(slots=True)
class Measured:
    """A container and its last two readings. ``began`` is in seconds since the epoch."""

    id: str
    group: str
    name: str
    uid: str
    began: float
    labels: Mapping[str, str] = field(default_factory=dict)
    last: Point | None = None
    before: Point | None = None

    def rate(self) -> tuple[int, float] | None:
        """(Nanoseconds of CPU time in a second, seconds between the readings); None while there is nothing to compare."""
        if self.last is None:
            return None
        start, cpu = (self.began, 0) if self.before is None else (self.before.at, self.before.cpu)
        window = self.last.at - start
        if window < LEAST_WINDOW or self.last.cpu < cpu:
            return None
        return int((self.last.cpu - cpu) / window), window


Containers = Callable[[], Awaitable[list[ContainerInfo]]]
Machine = Callable[[], MachineUse]


class Sampler:
    """Keeps the newest readings of all running containers below one group, and of the machine."""

    def __init__(self, group: str, reader: Reader, containers: Containers, machine: Machine, clock: Clock) -> None:
        self._group = f"/{group.strip('/')}"
        self._reader = reader
        self._containers = containers
        self._machine = machine
        self._clock = clock
        self._known: dict[str, Measured] = {}
        self._foreign: set[str] = set()
        """Groups that are no container's: sandboxes."""
        self.machine: tuple[MachineUse | None, MachineUse | None] = (None, None)
        """The last reading of the machine and the one before it."""

    def containers(self) -> Iterable[Measured]:
        """All that ran when it was last measured."""
        return self._known.values()

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.sleep(FIRST)
        while True:
            try:
                await self.measure()
            except RuntimeFailureError as error:
                log.debug("containers were not measured: %s", error)
            await asyncio.sleep(EVERY)

    async def measure(self) -> None:
        """One reading of everything. Raises RuntimeFailureError."""
        found = await asyncio.to_thread(self._find)
        if any(id_ not in self._known and id_ not in self._foreign for id_ in found):
            await self._learn(found)
        self._known = {id_: one for id_, one in self._known.items() if id_ in found}
        self._foreign &= found.keys()
        self.machine = (self._machine(), self.machine[0])
        await asyncio.to_thread(self._read, list(self._known.values()))

    def _find(self) -> dict[str, str]:
        """The group of every container and sandbox, by its id."""
        found = {}
        for top in (f"{self._group}{part}" for part in CLASSES):
            for pod in self._reader.children(top):
                if pod.startswith("pod"):
                    found.update({id_: f"{top}/{pod}/{id_}" for id_ in self._reader.children(f"{top}/{pod}")})
        return found

    async def _learn(self, found: Mapping[str, str]) -> None:
        """Asks the runtime which containers the new groups are. Raises RuntimeFailureError."""
        listed = {info.id: info for info in await self._containers()}
        for id_, group in found.items():
            info = listed.get(id_)
            if info is None:
                self._foreign.add(id_)
            elif id_ not in self._known:
                uid = info.labels.get(UID_LABEL, "")
                self._known[id_] = Measured(id_, group, info.name, uid, info.created / 1e9, info.labels)

    def _read(self, wanted: list[Measured]) -> None:
        for number, one in enumerate(wanted):
            if number % PIECE == PIECE - 1:
                time.sleep(PAUSE)  # a thread's: the event loop has its turn
            cpu, memory = self._reader.cpu(one.group), self._reader.memory(one.group)
            if cpu is not None and memory is not None:
                one.last, one.before = Point(self._clock.now().timestamp(), cpu, memory), one.last
