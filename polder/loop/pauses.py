"""Long work in slices, so that others have a turn: what tenants write decides how long it takes."""

from __future__ import annotations

import asyncio
import time

SLICE = 0.002
"""Seconds of work between turns of others."""


class Pauses:
    """``here`` is called between the pieces of work."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SLICE

    async def here(self) -> None:
        """Lets others have a turn if this one's slice is over."""
        if time.monotonic() >= self._until:
            await asyncio.sleep(0)
            self._until = time.monotonic() + SLICE
