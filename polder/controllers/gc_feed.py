"""What the garbage collector is told of by the API server: one stream for all kinds of all tenants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from polder.base.errors import PolderError
from polder.client.client import Client
from polder.controllers.internal import Item, garbage

log = logging.getLogger(__name__)

RETRY = 0.5
"""Seconds before the stream is asked for again."""


class GarbageFeed:
    """Enqueues what the stream tells. After a break it goes on where it was; after a start it begins at the beginning."""

    def __init__(self, client: Client, enqueue: Callable[[Item], None]) -> None:
        self._client = client
        self._enqueue = enqueue
        self._revision = 0

    async def run(self) -> None:
        """Follows until cancelled."""
        while True:
            try:
                async with aclosing(garbage(self._client, self._revision)) as lines:
                    async for line in lines:
                        if line.item is not None:
                            self._enqueue(line.item.item)
                        self._revision = line.revision or self._revision
            except PolderError as error:
                log.debug("garbage collector: %s", error)
            await asyncio.sleep(RETRY)
