"""Sockets inside routers' namespaces, kept as the routers come and go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from polder.base.errors import PolderError, RetryableError

log = logging.getLogger(__name__)

Row = TypeVar("Row")


async def keep_sockets(
    changed: asyncio.Event,
    wanted: Callable[[], Mapping[str, Row]],
    netns: Path,
    put: Callable[[Mapping[str, Row]], Awaitable[None]],
) -> None:
    """Has ``put`` make what is ``wanted`` by space, after each change; until cancelled. A socket lives in the namespace that it
    was made in: where that is another one than at the last look, the space is taken out first.
    """
    known: Mapping[str, Row] = {}
    stood: dict[str, tuple[int, int]] = {}
    while True:
        await changed.wait()
        changed.clear()
        rows = wanted()
        stands = {space: _identity(netns / space) for space in rows}
        if rows == known and stands == stood:
            continue
        try:
            await put({space: row for space, row in rows.items() if stood.get(space, stands[space]) == stands[space]})
            await put(rows)
            known, stood = rows, stands
        except PolderError as error:
            log.warning("%s", error)
            await asyncio.sleep(error.after if isinstance(error, RetryableError) else 1.0)
            changed.set()


def _identity(netns: Path) -> tuple[int, int]:
    """Which namespace a file stands for (namespaces(7)); zeros where it is gone."""
    try:
        found = netns.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
