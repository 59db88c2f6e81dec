"""What both daemons need: an event loop on uvloop, and an orderly end on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

log = logging.getLogger(__name__)

SWITCH = 0.0005
"""Seconds for which a thread keeps the interpreter while another waits for it. Of all threads the event loop's matters; the
store's threads need the interpreter for microseconds, many times in each scan and commit, and with Python's 5 ms each of
these times a busy loop made them wait that long."""
YOUNG = 5000
"""Allocations between two looks for garbage among the youngest objects."""


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
    sys.setswitchinterval(SWITCH)
    # What was imported stays. Left out of the search for garbage, a full one takes a millisecond, not fifty.
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
    uvloop.run(run_until_signal(main))
