"""Commands of which the runtime does not say that they are over, though their container is.

A container that ends while a command is being started in it may leave the runtime waiting for the command's end, and the user
with it. So whoever waits looks at the container besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from polder.base.errors import PolderError
from polder.system.cri_types import ContainerInfo, ContainerState

LOOK: Final = 3.0
"""Seconds between looks at the runtime, one for however many commands run."""
LOOKS: Final = 2
"""Looks in which a container must not run: what it said last is on its way meanwhile."""

Containers = Callable[[str], Awaitable[list[ContainerInfo]]]
"""The runtime's containers of a pod, by its UID; all for none."""


class Flow:
    """What a command's output does: pieces that were passed on, and how many wait for the user to take them."""

    def __init__(self) -> None:
        self.passed = 0
        self.waiting = 0


class Ended:
    """Knows which containers are over."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._asking = asyncio.Lock()
        self._asked = -LOOK
        self._running: frozenset[str] = frozenset()

    async def quiet(self, container: str, flow: Flow) -> None:
        """Returns when a container, by id, is over and nothing has come of a command in it since."""
        missed = 0
        while missed < LOOKS:
            await asyncio.sleep(LOOK)
            missed = 0 if await self._runs(container) else missed + 1
        before = -1
        while flow.waiting or flow.passed != before:
            before = flow.passed
            await asyncio.sleep(LOOK)

    async def _runs(self, container: str) -> bool:
        """Whether it had not ended a look ago; also where the runtime does not say."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked >= LOOK / 2:
                try:
                    found = await self._containers("")
                except PolderError:
                    return True
                self._running = frozenset(one.id for one in found if one.state != ContainerState.EXITED)
                self._asked = loop.time()
        return container in self._running
