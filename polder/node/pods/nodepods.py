"""All pods of a node: those that the API binds to it, and static ones, which files of the node describe.

A static pod runs under a UID of its own; the pod of the API that shows it (its mirror) is run by nobody. Nothing of a static
pod waits for the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from polder.api.core import Pod
from polder.api.meta import ref_of, tenant_of
from polder.api.staticpods import MIRROR, is_static_uid
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.base.ref import Ref
from polder.node.pods.manager import Change, PodSource
from polder.node.pods.manifests import Folder, StaticPod
from polder.system.cri_types import RuntimeFailureError, SandboxInfo

log = logging.getLogger(__name__)

LOOK: Final = 1.0
"""Seconds between looks at the folder."""


class Ends(Protocol):
    """Who runs pods."""

    def end(self, uid: str) -> None:
        """Ends what runs under a UID that no source has."""
        ...

    def runs(self, uid: str) -> bool:
        """Whether anything of the pod is still there."""
        ...


class Sandboxes(Protocol):
    """The runtime, as far as it lists sandboxes."""

    async def list_sandboxes(self, uid: str = "") -> list[SandboxInfo]:
        """All of them. Raises RuntimeFailureError."""
        ...


def mirrored(pod: Pod) -> str:
    """The UID of the static pod that a pod of the API shows; empty for every other pod, any tenant's among them."""
    return (pod.metadata.annotations or {}).get(MIRROR, "") if tenant_of(pod.metadata) == ROOT else ""


def is_mirror(pod: Pod) -> bool:
    """Whether a pod of the API only shows a static one."""
    return tenant_of(pod.metadata) == ROOT and MIRROR in (pod.metadata.annotations or {})


class NodePods:
    """A ``PodSource`` made of two."""

    def __init__(self, api: PodSource, folder: Folder, clock: Clock) -> None:
        self._api = api
        self._folder = folder
        self._clock = clock
        self._static: dict[Ref, StaticPod] = {}
        self._ending: dict[str, Ref] = {}
        self._mirrors: dict[Ref, Pod] = {}
        self._handlers: list[Change] = []
        self._read = asyncio.Event()
        self._swept = False
        self.news = asyncio.Event()
        """Set, and replaced by another, when a static pod or a mirror came, changed or went."""
        api.on_change(self._api_changed)

    # --- PodSource ---

    @property
    def synced(self) -> bool:
        """Whether both are known as a whole."""
        return self._api.synced and self._read.is_set()

    async def wait_synced(self) -> None:
        """Returns once both are."""
        await self._api.wait_synced()
        await self._read.wait()

    def on_change(self, fn: Change) -> None:
        """Registers for changes, and tells of each pod that is known."""
        self._handlers.append(fn)
        for pod in self.values():
            fn(ref_of(pod), None, pod)

    def get(self, ref: Ref) -> Pod | None:
        """The pod of this name, never a mirror."""
        if ref in self._static:
            return self._shown(self._static[ref])
        found = self._api.get(ref)
        return None if found is None or is_mirror(found) else found

    def values(self) -> list[Pod]:
        """All pods but mirrors."""
        own = [self._shown(one) for one in self._static.values()]
        return [*own, *(pod for pod in self._api.values() if not is_mirror(pod))]

    # --- mirrors ---

    @property
    def statics(self) -> Mapping[Ref, StaticPod]:
        """The static pods that run."""
        return self._static

    @property
    def mirrors(self) -> Mapping[Ref, Pod]:
        """The API's mirrors on this node, right or wrong."""
        return self._mirrors

    def mirror_of(self, uid: str) -> Pod | None:
        """The mirror that shows the static pod of a UID, unless it is being deleted."""
        for ref, one in self._static.items():
            mirror = self._mirrors.get(ref)
            if one.uid == uid and mirror is not None and _stands_for(mirror, one):
                return mirror
        return None

    def own_uid(self, uid: str) -> str:
        """The UID under which the node runs what the API calls so: of a mirror its pod's."""
        for ref, one in self._static.items():
            mirror = self._mirrors.get(ref)
            if mirror is not None and mirror.metadata.uid == uid and mirrored(mirror) == one.uid:
                return one.uid
        return uid

    def shown_uid(self, uid: str) -> str:
        """The UID by which the API knows what the node runs: of a static pod its mirror's."""
        mirror = self.mirror_of(uid) if is_static_uid(uid) else None
        return mirror.metadata.uid if mirror is not None else uid

    def _shown(self, one: StaticPod) -> Pod:
        """The pod with the status that its mirror has."""
        mirror = self._mirrors.get(one.ref)
        if mirror is None or not _stands_for(mirror, one):
            return one.pod
        return msgspec.structs.replace(one.pod, status=mirror.status)

    # --- what changes ---

    def _api_changed(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        before = old if old is not None and not is_mirror(old) else None
        after = new if new is not None and not is_mirror(new) else None
        if new is not None and after is None:
            self._mirrors[ref] = new
        else:
            self._mirrors.pop(ref, None)
        if before is not None or after is not None:
            self._tell(ref, before, after)
        if (old is not None and before is None) or (new is not None and after is None):
            if (one := self._static.get(ref)) is not None:
                self._tell(ref, one.pod, self._shown(one))
            self._changed()

    def _changed(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def _tell(self, ref: Ref, old: Pod | None, new: Pod | None) -> None:
        for handler in self._handlers:
            handler(ref, old, new)

    async def run(self, ends: Ends, sandboxes: Sandboxes) -> None:
        """Follows the folder until cancelled; without one, until nothing is left of an earlier one's pods."""
        while True:
            try:
                await self.look(ends, sandboxes)
            except RuntimeFailureError as error:
                log.info("static pods wait for the runtime: %s", error)
            if self._folder.path is None and self._read.is_set() and self._swept:
                return
            await asyncio.sleep(LOOK)

    async def look(self, ends: Ends, sandboxes: Sandboxes) -> None:
        """One look: who is not wanted ends, and who comes in its place begins when it has gone. Raises RuntimeFailureError."""
        wanted = await asyncio.to_thread(self._folder.look, stamp(self._clock.now()))
        for ref, one in list(self._static.items()):
            if ref not in wanted or wanted[ref].uid != one.uid:
                log.info("static pod %s (%s) is not wanted any more", ref, one.uid)
                gone = self._shown(one)
                del self._static[ref]
                self._ending[one.uid] = ref
                self._tell(ref, gone, None)
                self._changed()
        waiting = {ref: one for ref, one in wanted.items() if ref not in self._static}
        if waiting or not self._swept:
            busy = await self._end_others({one.uid for one in wanted.values()}, ends, sandboxes)
            for ref, one in waiting.items():
                if ref not in busy and not ends.runs(one.uid):
                    self._begin(ref, one)
        self._read.set()

    async def _end_others(self, wanted: set[str], ends: Ends, sandboxes: Sandboxes) -> set[Ref]:
        """Ends static pods that no file has, an earlier agent's among them; where they still are."""
        self._ending = {uid: ref for uid, ref in self._ending.items() if ends.runs(uid)}
        busy = set(self._ending.values())
        for sandbox in await sandboxes.list_sandboxes():
            meta = sandbox.metadata
            if is_static_uid(meta.uid) and meta.uid not in wanted:
                tenant, _, namespace = meta.namespace.partition("/")
                busy.add(Ref(TenantName(tenant), namespace, meta.name))
                ends.end(meta.uid)
        self._swept = not busy
        return busy

    def _begin(self, ref: Ref, one: StaticPod) -> None:
        log.info("static pod %s (%s) begins", ref, one.uid)
        self._static[ref] = one
        self._tell(ref, None, self._shown(one))
        self._changed()


def _stands_for(mirror: Pod, one: StaticPod) -> bool:
    return mirrored(mirror) == one.uid and mirror.metadata.deletion_timestamp is None
