"""Writing a pod's status: the newest one only, until it is written."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from polder.api.core import Pod, PodStatus
from polder.api.errors import ApiError
from polder.base.errors import PolderError
from polder.loop.wait import wait_set
from polder.node.pods.ports import Cluster
from polder.node.pods.status import OWN, PENDING

log = logging.getLogger(__name__)

FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0
SOON = 0.05
"""Seconds after which it is said that a pod is about to run: what makes it run comes first at the server."""


class Reporter:
    """One pod's status writer. ``report`` returns at once; equal statuses are written once, that of a pod that waits after
    ``SOON`` unless there is news.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._wanted: tuple[Pod, PodStatus] | None = None
        self._written: PodStatus | None = None
        self._task: asyncio.Task[None] | None = None
        self._doubted = False
        self._news = asyncio.Event()

    def shown(self, status: PodStatus) -> None:
        """What the API shows. Somebody else says that the pod is not ready when its node falls silent: what is reported next is
        written then, though it is as it was.
        """
        written = self._written
        self._doubted = self._wanted is None and written is not None and _readiness(status) != _readiness(written)

    def report(self, pod: Pod, status: PodStatus) -> None:
        """Wants this status written; it replaces one that still waits."""
        if self._wanted is None and status == (self._written or _own(pod.status)) and not self._doubted:
            self._written = status  # an agent before this one wrote it: who says otherwise is noticed all the same
            return
        self._doubted = False
        self._wanted = (pod, status)
        if status.phase != PENDING:
            self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write())

    async def flush(self) -> None:
        """Waits until nothing waits to be written."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Writes no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _write(self) -> None:
        delay = FIRST_RETRY
        await wait_set(self._news, SOON)
        while self._wanted is not None:
            pod, status = self._wanted
            self._news.clear()
            try:
                await self._cluster.write_status(pod, status)
            except ApiError as error:
                if error.is_not_found or error.is_conflict or error.is_forbidden:
                    # This pod is gone, perhaps its tenant's last one here; another of its name is not ours to write.
                    self._wanted = None
                    return
                log.warning("status of pod %s was not written: %s", pod.metadata.name, error)
            except (PolderError, OSError) as error:
                log.info("status of pod %s waits for the server: %s", pod.metadata.name, error)
            else:
                self._written = status
                if self._wanted == (pod, status):
                    self._wanted = None
                delay = FIRST_RETRY
                continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, LONGEST_RETRY)


def _own(status: PodStatus) -> PodStatus:
    """Without the conditions of others, which the node does not write."""
    own = [condition for condition in status.conditions or [] if condition.type in OWN]
    return msgspec.structs.replace(status, conditions=own or None)


def _readiness(status: PodStatus) -> str:
    return next((c.status for c in status.conditions or [] if c.type == "Ready"), "")
