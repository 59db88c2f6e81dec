"""What both daemons need: an event loop on uvloop, and an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

log = logging.getLogger(__name__)


async def run_until_signal(main: Callable[[], Awaitable[None]]) -> None:
    """Runs ``main`` until it ends, or until SIGTERM or SIGINT cancel it. What it raises is raised."""
    task = asyncio.ensure_future(main())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        log.info("ended by a signal")


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """The process's whole life."""
    uvloop.run(run_until_signal(main))
