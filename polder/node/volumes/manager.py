"""Volumes of pods on this node: made before the pod starts, kept up to date while it runs, removed after it.

Each is a directory ``PODS/UID/volumes/KIND/NAME``. Secrets, tokens and memory-backed scratch space are tmpfs, so that
they never reach the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import PodSpec
from polder.api.podvolumes import Volume
from polder.api.quantity import whole
from polder.base.errors import PermanentError, PolderError
from polder.base.ref import Ref
from polder.node.pods.fields import Surroundings
from polder.node.pods.ports import Cluster
from polder.node.volumes.atomic import ensure_files
from polder.node.volumes.hostpaths import host_path
from polder.node.volumes.mounting import Mounted
from polder.node.volumes.projections import Projections, mentioned
from polder.node.volumes.scratch import LOOKED_AT, ensure_scratch, is_mounted
from polder.node.volumes.tokens import Tokens
from polder.node.walks import Walks
from polder.system import mounts
from polder.system.trees import remove_tree, tree_size

IN_MEMORY = frozenset({"secret", "projected"})
_UNMOUNTS = 8
"""Tries, each of all mounts of a pod."""
MEASURE = 10.0
"""Seconds between looks at how much a limited emptyDir holds."""


class Source(Protocol):
    """Makes volumes of kinds that take more than this node and the pod's own objects."""

    async def mounted(self, pod: Pod, volume: Volume) -> Mounted | None:
        """The volume, ready; None if it is of another kind. Raises RetryableError, PermanentError."""
        ...

    async def release(self, uid: str) -> None:
        """Gives back what a pod's volumes held outside of the pod's directory; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """What volumes were last made from, and until when that is good."""

    spec: PodSpec
    labels: Mapping[str, str] | None
    annotations: Mapping[str, str] | None
    volumes: Mapping[str, Mounted]
    due: float

    def covers(self, pod: Pod) -> bool:
        meta = pod.metadata
        return (self.labels, self.annotations, self.spec) == (meta.labels, meta.annotations, pod.spec)


class Volumes:
    """Makes and removes them. ``around`` tells a pod's downward fields; ``more`` makes further kinds."""

    def __init__(
        self,
        pods: Path,
        cluster: Cluster,
        tokens: Tokens,
        around: Callable[[Pod], Surroundings],
        more: Iterable[Source] = (),
    ) -> None:
        self._pods = pods
        self._tokens = tokens
        self._around = around
        self._projections = Projections(cluster, tokens, around)
        self._more = tuple(more)
        self._seen: dict[str, _Seen] = {}
        self._mentioned: dict[str, frozenset[tuple[str, Ref]]] = {}
        self._stale: set[str] = set()
        self._measured: dict[str, float] = {}
        self._tenants: dict[str, str] = {}
        self._walks = Walks()

    async def ensure(self, pod: Pod) -> Mapping[str, Mounted]:
        """All volumes of the pod by name; also refreshes the files of those that exist, if something may have changed.

        Raises RetryableError for objects not there yet, PermanentError for what can never be.
        """
        uid, meta = pod.metadata.uid, pod.metadata
        seen = self._seen.get(uid)
        fresh = seen is not None and uid not in self._stale and self._tokens.now() < seen.due
        if seen is not None and fresh and seen.covers(pod):
            return seen.volumes
        self._stale.discard(uid)
        self._tenants[uid] = tenant_of(meta)
        self._mentioned[uid] = frozenset(
            (resource, Ref(tenant_of(meta), meta.namespace, name)) for resource, name in mentioned(pod)
        )
        try:
            found = await self._all(pod)
        except BaseException:
            self._stale.add(uid)
            raise
        due = self._tokens.now() + self._tokens.refresh_after(uid)
        self._seen[uid] = _Seen(pod.spec, meta.labels, meta.annotations, found, due)
        return found

    async def _all(self, pod: Pod) -> dict[str, Mounted]:
        """One that cannot be made, or refreshed, keeps none of the others from it."""
        found, failed = {}, None
        for volume in pod.spec.volumes or []:
            try:
                found[volume.name] = await self._ensure(pod, volume)
            except (PolderError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return found

    async def _ensure(self, pod: Pod, volume: Volume) -> Mounted:
        place = self._pods / pod.metadata.uid / "volumes"
        if volume.host_path is not None:
            path = await asyncio.to_thread(host_path, volume.host_path.path, volume.host_path.type)
            return Mounted(path, of_node=True)
        if volume.empty_dir is not None:
            here = place / "empty-dir" / volume.name
            await asyncio.to_thread(ensure_scratch, here, pod, volume.empty_dir, self._around(pod).node_memory)
            return Mounted(here)
        written = await self._projections.files(pod, volume)
        if written is not None:
            kind, files = written
            here = place / kind / volume.name
            group = pod.spec.security_context.fs_group if pod.spec.security_context else None
            await asyncio.to_thread(_ensure_directory, here, kind in IN_MEMORY)
            await asyncio.to_thread(ensure_files, here, files, group)
            return Mounted(here, ours=True, read_only=True)
        for source in self._more:
            mounted = await source.mounted(pod, volume)
            if mounted is not None:
                return mounted
        raise PermanentError(f"volume {volume.name} of pod {pod.metadata.name} is of a kind that is not supported")

    def changed(self, what: Iterable[tuple[str, Ref]] | None) -> list[str]:
        """Notes that objects, by (resource, reference), changed, or that any may have (None); answers the UIDs of the pods
        whose volumes show them, and should be ensured again.
        """
        changed = None if what is None else frozenset(what)
        found = [uid for uid, named in self._mentioned.items() if named and (changed is None or named & changed)]
        self._stale.update(found)
        return found

    async def exceeded(self, pod: Pod) -> str:
        """Upstream's sentence about an emptyDir on disk that holds more than its sizeLimit; empty while none does."""
        limited = [
            v for v in pod.spec.volumes or [] if v.empty_dir and v.empty_dir.size_limit and not v.empty_dir.medium
        ]
        uid, now = pod.metadata.uid, self._tokens.now()
        if not limited or now < self._measured.get(uid, now):
            return ""
        self._measured[uid] = now + MEASURE / 2
        for volume in limited:
            assert volume.empty_dir is not None and volume.empty_dir.size_limit is not None
            limit = volume.empty_dir.size_limit
            place = self._pods / uid / "volumes" / "empty-dir" / volume.name
            if await self._walks.run(tenant_of(pod.metadata), tree_size, place, LOOKED_AT) > whole(limit):
                del self._measured[uid]
                return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{limit}".'
        return ""

    def refresh_after(self, pod: Pod) -> float | None:
        """Seconds after which ``ensure`` should be called again; None if nothing can change."""
        volumes, uid = pod.spec.volumes or [], pod.metadata.uid
        written = any(v.config_map or v.secret or v.downward_api or v.projected for v in volumes)
        measured = any(v.empty_dir is not None and v.empty_dir.size_limit is not None for v in volumes)
        known = [self._tokens.refresh_after(uid)] if written else []
        known += [MEASURE] if written and uid in self._stale else []
        known += [MEASURE] if measured else []
        return min(known) if known else None

    async def remove(self, uid: str) -> None:
        """Removes all that a pod had here; idempotent."""
        self._tokens.forget(uid)
        for known in (self._seen, self._mentioned, self._measured):
            known.pop(uid, None)
        self._stale.discard(uid)
        await asyncio.to_thread(_unmount, self._pods / uid)
        for source in self._more:
            await source.release(uid)
        await self._walks.run(self._tenants.pop(uid, uid), _remove, self._pods / uid)


def _ensure_directory(place: Path, in_memory: bool) -> None:
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    if in_memory and not is_mounted(place):
        mounts.mount("tmpfs", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0755,size=16m")


def _unmount(place: Path) -> None:
    """Mounts are looked for until none is left: what is bound here may be the node's own."""
    for _ in range(_UNMOUNTS):
        if not mounts.unmount_below(place):
            break
    else:
        raise PermanentError(f"mounts below {place} cannot be taken away")


def _remove(place: Path) -> None:
    _unmount(place)
    if place.exists():
        remove_tree(place)
