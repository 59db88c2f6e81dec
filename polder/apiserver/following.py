"""For indexes that follow the store as long as the server lives: a store that is away for a while ends none of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from polder.store.protocol import StoreFailedError

log = logging.getLogger(__name__)

T = TypeVar("T")
PAUSE: Final = 0.5
"""Seconds until a store that did not answer is asked again."""


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until the store answers."""
    while True:
        try:
            return await ask()
        except StoreFailedError as problem:
            log.warning("the store does not answer: %s", problem)
        await asyncio.sleep(PAUSE)
