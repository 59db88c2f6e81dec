"""Stopping containers within a grace: hooks before (preStop), sidecars after the others, in the reverse of their order."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polder.api.core import Pod
from polder.api.lifecycle import Hook
from polder.api.podspec import Container
from polder.base.clock import Clock
from polder.base.errors import PolderError
from polder.node.pods.context import Context
from polder.node.pods.ports import NORMAL, WARNING, part_of
from polder.node.pods.restarts import is_sidecar
from polder.node.probes.attempt import Target
from polder.system.cri_types import ContainerInfo

SHORTEST = 2
"""Seconds that a container has at least between its signal and its death (upstream's figure)."""


class Grace:
    """The seconds that containers have together; they may get fewer while they pass."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._until = clock.monotonic() + seconds
        self._shorter = asyncio.Event()

    def left(self) -> float:
        """Seconds; 0 when they are over."""
        return max(0.0, self._until - self._clock.monotonic())

    def shorten(self, seconds: float) -> None:
        """From now on no more than so many."""
        until = self._clock.monotonic() + seconds
        if until < self._until - 0.5:  # what only passed meanwhile is no shortening
            self._until = until
            told, self._shorter = self._shorter, asyncio.Event()
            told.set()

    async def within(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work for as long as the grace lasts; then it is given up. Raises what it raises."""
        task = asyncio.create_task(work)
        try:
            while not task.done() and (left := self.left()) > 0:
                await self._next({task}, left)
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def each(self, act: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        """Does something with the whole seconds that are left, and again with fewer whenever they become fewer. Returns when one
        of these is done; raises what it raises.
        """
        until = self._until
        tasks = {asyncio.create_task(act(self._whole()))}
        try:
            while not any(task.done() for task in tasks):
                await self._next(tasks, None)
                if self._until < until:
                    until = self._until
                    tasks.add(asyncio.create_task(act(self._whole())))
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _whole(self) -> int:
        return max(SHORTEST, math.ceil(self.left()))

    async def _next(self, tasks: set[asyncio.Task[None]], seconds: float | None) -> None:
        """Returns when one of them is done, the grace got shorter, or after so many seconds."""
        shorter = asyncio.create_task(self._shorter.wait())
        try:
            await asyncio.wait({*tasks, shorter}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            shorter.cancel()


@dataclass(frozen=True, slots=True)
class Stopping:
    """What is needed to stop containers of one pod; ``targets``: where their hooks reach them, by id."""

    ctx: Context
    pod: Pod | None
    targets: Mapping[str, Target]
    grace: Grace
    hooked: set[str] = field(default_factory=set)
    """Containers whose hook was begun, by id: it is not run twice when the runtime went away in between."""

    async def one(self, info: ContainerInfo, why: str, turn: Sequence[asyncio.Event] = ()) -> None:
        """Stops a container: its hook, then its turn, then the signal. ``why`` is what its event says."""
        if self.pod is not None:
            self.ctx.recorder.event(self.pod, NORMAL, "Killing", why, part_of(self.pod, info.name))
        target = self.targets.get(info.id)
        lifecycle = target.container.lifecycle if target is not None else None
        hook = lifecycle.pre_stop if lifecycle is not None else None
        if target is not None and hook is not None and self.grace.left() > 0 and info.id not in self.hooked:
            self.hooked.add(info.id)
            await self.grace.within(self._pre_stop(target, hook))
        if turn:
            await self.grace.within(_all(turn))
        await self.grace.each(lambda seconds: self.ctx.cri.stop_container(info.id, seconds))

    async def _pre_stop(self, target: Target, hook: Hook) -> None:
        try:
            outcome = await self.ctx.means.hook(target, hook, self.grace.left())
        except PolderError:
            outcome = None
        if self.pod is not None and (outcome is None or not outcome.good):
            # Not what it said: a hook's output may hold secrets.
            part = part_of(self.pod, target.container.name)
            self.ctx.recorder.event(self.pod, WARNING, "FailedPreStopHook", "PreStopHook failed", part)

    async def all(self, running: Sequence[ContainerInfo]) -> None:
        """Stops all of them: sidecars when what they serve has ended."""
        ended = {info.id: asyncio.Event() for info in running}
        before = order(self.pod, running)

        async def stop(info: ContainerInfo) -> None:
            try:
                turn = [ended[other] for other in before.get(info.id, ())]
                await self.one(info, f"Stopping container {info.name}", turn)
            finally:
                ended[info.id].set()

        tasks = {asyncio.create_task(stop(info)) for info in running}
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            task.result()


async def _all(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


def order(pod: Pod | None, running: Sequence[ContainerInfo]) -> dict[str, list[str]]:
    """For each running sidecar, by id, whose end it waits for: the containers', and the later sidecars'. Pure."""
    if pod is None:
        return {}
    specs: dict[str, Container] = {c.name: c for c in pod.spec.init_containers or [] if is_sidecar(c)}
    main = {container.name for container in pod.spec.containers}
    places = {name: number for number, name in enumerate(specs)}
    found = {}
    for info in running:
        if info.name in places:
            found[info.id] = [
                other.id for other in running if other.name in main or places.get(other.name, -1) > places[info.name]
            ]
    return found
