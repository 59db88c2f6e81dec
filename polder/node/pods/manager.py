"""All pods of a node: a worker for each, woken by the API's changes and the runtime's, and the end of orphans."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from polder.api.core import Pod
from polder.api.meta import ref_of
from polder.base.errors import PolderError
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.loop.wait import wait_set
from polder.node.pods.context import Context
from polder.node.pods.sweep import sweep
from polder.node.pods.worker import PodWorker
from polder.system.cri import UID_LABEL
from polder.system.cri_types import ContainerInfo, RuntimeFailureError, SandboxInfo

log = logging.getLogger(__name__)

POLL = 5.0
"""Seconds between looks at the runtime while its events come."""
BLIND_POLL = 1.0
"""Likewise while they do not."""
ECHO = 0.05
"""The CRI plugin's state follows containerd's event by a moment: a second look after so many seconds."""
SWEEP = 300.0

Change = Callable[[Ref, Pod | None, Pod | None], None]


class PodSource(Protocol):
    """The informer of the pods that are bound to this node."""

    @property
    def synced(self) -> bool:
        """Whether the cache is complete."""
        ...

    def on_change(self, fn: Change) -> None:
        """Registers for changes: (reference, old, new)."""
        ...

    def get(self, ref: Ref) -> Pod | None:
        """The pod of this name; None if there is none."""
        ...

    def values(self) -> Iterable[Pod]:
        """All pods."""
        ...

    async def wait_synced(self) -> None:
        """Returns once the cache is complete."""
        ...


class PodManager:
    """Runs the pods that the source shows, and ends what runs without one."""

    def __init__(self, ctx: Context, source: PodSource) -> None:
        self._ctx = ctx
        self._source = source
        self._workers: dict[str, tuple[PodWorker, asyncio.Task[None]]] = {}
        self._prints: dict[str, frozenset[str]] = {}
        self._look = asyncio.Event()
        self._events_come = False
        source.on_change(self._changed)

    async def run(self) -> None:
        """Until cancelled. Containers live on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_events())
                group.create_task(self._watch_runtime())
                group.create_task(self._sweep())
        finally:
            tasks = [task for _, task in self._workers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, uids: Iterable[str]) -> None:
        """Has pods looked at: something changed that they show."""
        for uid in uids:
            if uid in self._workers:
                self._workers[uid][0].wake()

    def evict(self, uid: str, message: str) -> bool:
        """Ends a pod for good; whether it was not ending anyway."""
        held = self._workers.get(uid)
        return held is not None and held[0].evict(message)

    def end(self, uid: str) -> None:
        """Ends what runs under a UID that the source does not have."""
        if uid not in self._workers:
            self._add(uid, None)

    def runs(self, uid: str) -> bool:
        """Whether the pod has a worker: it has not left the node."""
        return uid in self._workers

    # --- the API's side ---

    def _changed(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        del ref
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            held = self._workers.get(old.metadata.uid)
            if held is not None:
                held[0].see(None)
        if new is not None:
            held = self._workers.get(new.metadata.uid)
            if held is not None:
                held[0].see(new)
            else:
                self._add(new.metadata.uid, new)

    def _add(self, uid: str, pod: Pod | None) -> None:
        worker = PodWorker(self._ctx, uid, pod)
        task = asyncio.create_task(worker.run(), name=f"pod {uid}")
        self._workers[uid] = (worker, task)
        task.add_done_callback(lambda done: self._finished(uid, worker, done))

    def _finished(self, uid: str, worker: PodWorker, task: asyncio.Task[None]) -> None:
        held = self._workers.get(uid)
        if held is not None and held[0] is worker:
            del self._workers[uid]
        if not task.cancelled() and task.exception() is not None:
            log.error("the worker of pod %s failed and is started again", uid, exc_info=task.exception())
            self._prints.pop(uid, None)
            if held is not None and worker.pod is not None:
                pod = worker.pod
                asyncio.get_running_loop().call_later(BLIND_POLL, lambda: self._again(uid, pod))

    def _again(self, uid: str, pod: Pod) -> None:
        """Not with the pod as it was: what happened meanwhile was told to nobody."""
        if uid not in self._workers:
            now = self._source.get(ref_of(pod))
            self._add(uid, now if now is not None and now.metadata.uid == uid else None)

    # --- the runtime's side ---

    async def _follow_events(self) -> None:
        """Looks at once when a container starts or ends."""
        while True:
            try:
                self._events_come = True
                async for _topic in self._ctx.cri.events():
                    self._look.set()
            except RuntimeFailureError as error:
                log.info("%s", error)
            self._events_come = False
            await asyncio.sleep(BLIND_POLL)

    async def _watch_runtime(self) -> None:
        while True:
            await self._relist_quietly()
            if not await wait_set(self._look, POLL if self._events_come else BLIND_POLL):
                continue
            self._look.clear()
            await self._relist_quietly()
            await asyncio.sleep(ECHO)

    async def _relist_quietly(self) -> None:
        try:
            await self._relist()
        except RuntimeFailureError as error:
            log.debug("the runtime was not listed: %s", error)

    async def _relist(self) -> None:
        sandboxes = await self._ctx.cri.list_sandboxes()
        containers = await self._ctx.cri.list_containers()
        prints = _fingerprints(sandboxes, containers)
        for uid, print_ in prints.items():
            if self._prints.get(uid) != print_ and uid in self._workers:
                self._workers[uid][0].wake()
        for uid in self._prints.keys() - prints.keys():
            if uid in self._workers:
                self._workers[uid][0].wake()
        self._prints = prints
        await self._end_orphans(sandboxes)

    async def _end_orphans(self, sandboxes: list[SandboxInfo]) -> None:
        """What runs and is in the API no more. Two must agree: the complete cache, and the server asked directly."""
        if not self._source.synced:
            return
        for sandbox in sandboxes:
            uid = sandbox.metadata.uid
            if uid in self._workers:
                continue
            tenant, _, namespace = sandbox.metadata.namespace.partition("/")
            ref = Ref(TenantName(tenant), namespace, sandbox.metadata.name)
            try:
                if await self._ctx.cluster.pod_exists(ref, uid):
                    continue
            except (PolderError, OSError) as error:
                log.info("whether pod %s still exists is not known: %s", ref, error)
                continue
            if uid not in self._workers:
                log.info("pod %s (%s) exists no more: it is ended", ref, uid)
                self._add(uid, None)

    async def _sweep(self) -> None:
        await self._source.wait_synced()
        while True:
            try:
                for pod in list(self._source.values()):
                    if pod.metadata.uid not in self._workers:
                        self._add(pod.metadata.uid, pod)  # its worker ended, and the pod is still there
                live = {s.metadata.uid for s in await self._ctx.cri.list_sandboxes()}
                await sweep(self._ctx, live | self._workers.keys())
                await asyncio.sleep(SWEEP)
            except RuntimeFailureError:
                await asyncio.sleep(BLIND_POLL)


def _fingerprints(sandboxes: list[SandboxInfo], containers: list[ContainerInfo]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {s.metadata.uid: set() for s in sandboxes}
    for sandbox in sandboxes:
        found[sandbox.metadata.uid].add(f"{sandbox.id} {sandbox.ready}")
    for container in containers:
        found.setdefault(container.labels.get(UID_LABEL, ""), set()).add(f"{container.id} {container.state.name}")
    return {uid: frozenset(items) for uid, items in found.items()}
