"""The steps that end things: how long containers have, sandboxes, and all that a pod leaves on the node."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable

from polder.api.core import Pod
from polder.node.pods.configs import GRACE_ANNOTATION
from polder.node.pods.context import Context
from polder.node.pods.view import View
from polder.system.cri_types import ContainerInfo, ContainerState

ORPHAN_GRACE = 2
"""Seconds for containers whose pod nobody knows any more and which say nothing themselves."""


def grace_of(pod: Pod | None, view: View) -> int:
    """Seconds that containers have to end by themselves: the deletion's, the pod's, or what they were made with."""
    if pod is not None:
        asked = pod.metadata.deletion_grace_period_seconds
        return max(0, pod.spec.termination_grace_period_seconds if asked is None else asked)
    noted = [s.annotations.get(GRACE_ANNOTATION) for s in view.sandboxes]
    return max([ORPHAN_GRACE, *(int(text) for text in noted if text and text.isdigit())])


async def remove_sandboxes(ctx: Context, view: View) -> None:
    """Stops and removes every sandbox of a pod, and with each its network and containers."""
    for sandbox in view.sandboxes:
        await ctx.cri.stop_sandbox(sandbox.id)
    for info in _loose(view):
        await ctx.cri.remove_container(info.id)
    for sandbox in view.sandboxes:
        await ctx.cri.remove_sandbox(sandbox.id)


def _loose(view: View) -> Iterable[ContainerInfo]:
    known = {s.id for s in view.sandboxes}
    return [c for c in view.containers if c.sandbox not in known or c.state == ContainerState.CREATED]


async def clean_up(ctx: Context, uid: str) -> None:
    """Removes volumes, cgroup and logs of a pod that has no sandbox any more; idempotent."""
    await ctx.volumes.remove(uid)
    await asyncio.to_thread(_remove_traces, ctx, uid)


def _remove_traces(ctx: Context, uid: str) -> None:
    for group in ctx.places.classes:
        ctx.cgroups.remove(f"{group}/pod{uid}")
    if ctx.places.logs.is_dir():
        for directory in ctx.places.logs.glob(f"*_{uid}"):
            shutil.rmtree(directory, ignore_errors=True)
