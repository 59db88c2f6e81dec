"""Keeps the log as long as watchers need to come back, and no longer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from polder.store.protocol import Store, StoreFailedError

log = logging.getLogger(__name__)

KEEP = 300.0
"""Seconds of history that stay, as kube-apiserver keeps."""
STEPS = 5
"""How many times in that period the log is cut."""


async def keep_compacted(store: Store, keep: float = KEEP) -> None:
    """Forgets what is older than ``keep`` seconds, until cancelled. A restart begins to count anew."""
    marks: deque[int] = deque()
    while True:
        marks.append(await store.revision())
        await asyncio.sleep(keep / STEPS)
        if len(marks) > STEPS:
            try:
                await store.compact(marks.popleft())
            except StoreFailedError as error:
                # A full disk heals, and the next cut takes what this one could not.
                log.warning("the log could not be cut: %s", error)
