"""What a killed agent leaves behind: directories, cgroups and logs that belong to no pod."""

from __future__ import annotations

import asyncio
import logging

from polder.base.errors import PermanentError
from polder.node.pods.context import Context
from polder.node.pods.ending import clean_up

log = logging.getLogger(__name__)


async def sweep(ctx: Context, live: set[str]) -> None:
    """Removes the traces of every pod whose UID is not in ``live``."""
    for uid in sorted(await asyncio.to_thread(_traces, ctx) - live):
        log.info("removing what is left of pod %s", uid)
        try:
            await clean_up(ctx, uid)
        except (PermanentError, OSError) as error:
            log.warning("what is left of pod %s was not removed: %s", uid, error)


def _traces(ctx: Context) -> set[str]:
    groups = {name for group in ctx.places.classes for name in ctx.cgroups.children(group)}
    found = {name.removeprefix("pod") for name in groups if name.startswith("pod")}
    if ctx.places.pods.is_dir():
        found |= {entry.name for entry in ctx.places.pods.iterdir()}
    if ctx.places.logs.is_dir():
        found |= {entry.name.rsplit("_", 1)[-1] for entry in ctx.places.logs.iterdir() if "_" in entry.name}
    return found
