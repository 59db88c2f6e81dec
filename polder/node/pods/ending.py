"""The steps that end things: containers, sandboxes, and all that a pod leaves on the node."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from polder.api.core import Pod
from polder.node.pods.configs import GRACE_ANNOTATION
from polder.node.pods.context import Context
from polder.node.pods.ports import NORMAL
from polder.node.pods.view import View
from polder.system.cri_types import ContainerInfo, ContainerState

ORPHAN_GRACE = 2
"""Seconds for containers whose pod nobody knows any more and which say nothing themselves."""


def grace_of(pod: Pod | None, view: View) -> int:
    """Seconds that containers have to end by themselves: the deletion's, the pod's, or what they were made with."""
    if pod is not None:
        asked = pod.metadata.deletion_grace_period_seconds
        return max(1, pod.spec.termination_grace_period_seconds if asked is None else asked)
    noted = [s.annotations.get(GRACE_ANNOTATION) for s in view.sandboxes]
    return max([ORPHAN_GRACE, *(int(text) for text in noted if text and text.isdigit())])


async def stop_containers(
    ctx: Context,
    pod: Pod | None,
    view: View,
    grace: Callable[[], int],
    meanwhile: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Ends all containers of a pod, init containers too; a grace that gets shorter meanwhile counts from then on. ``meanwhile``
    returns when something changed.
    """
    running = view.running()
    for info in running:
        if pod is not None:
            ctx.recorder.event(pod, NORMAL, "Killing", f"Stopping container {info.name}")
    seconds = grace()
    stops = {asyncio.create_task(ctx.cri.stop_container(info.id, seconds)) for info in running}
    waiting, wake = set(stops), asyncio.create_task(meanwhile())
    try:
        while waiting:
            done, _ = await asyncio.wait({*waiting, wake}, return_when=asyncio.FIRST_COMPLETED)
            if wake in done:
                wake.result()
                wake = asyncio.create_task(meanwhile())
            waiting -= done
            if waiting and grace() < seconds:
                seconds = grace()
                more = {asyncio.create_task(ctx.cri.stop_container(info.id, seconds)) for info in running}
                stops |= more
                waiting |= more
    finally:
        for task in (*waiting, wake):
            task.cancel()
    for task in stops:
        task.result()


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
    ctx.cgroups.remove(ctx.places.pod_cgroup(uid))
    if ctx.places.logs.is_dir():
        for directory in ctx.places.logs.glob(f"*_{uid}"):
            shutil.rmtree(directory, ignore_errors=True)
