"""A pod's volumes, for its worker: made before its containers, read again while they run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from polder.api.core import Pod
from polder.base.errors import PolderError
from polder.node.pods.context import Context
from polder.node.pods.ports import WARNING
from polder.node.volumes.mounting import Mounted

log = logging.getLogger(__name__)


async def make_volumes(ctx: Context, pod: Pod) -> Mapping[str, Mounted]:
    """Raises PolderError or OSError for a volume that is not to be had, which is told in an event."""
    try:
        return await ctx.volumes.ensure(pod)
    except (PolderError, OSError) as error:
        ctx.recorder.event(pod, WARNING, "FailedMount", f"MountVolume.SetUp failed: {error}")
        raise


async def refresh_volumes(ctx: Context, pod: Pod) -> None:
    """Brings volumes up to date; where that fails, what runs keeps the files that it has, as upstream does."""
    try:
        await ctx.volumes.ensure(pod)
    except (PolderError, OSError) as error:
        log.info("volumes of pod %s were not refreshed: %s", pod.metadata.name, error)
