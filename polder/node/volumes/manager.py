"""Volumes of pods on this node: made before the pod starts, kept up to date while it runs, removed after it.

Each is a directory ``PODS/UID/volumes/KIND/NAME``. Secrets, tokens and memory-backed scratch space are tmpfs, so that
they never reach the disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podvolumes import EmptyDir, HostPath, ProjectedSource, Volume
from polder.api.quantity import whole
from polder.base.errors import PermanentError
from polder.base.ref import Ref
from polder.node.pods.fields import Surroundings
from polder.node.pods.ports import Cluster
from polder.node.volumes import contents
from polder.node.volumes.atomic import FileSpec, ensure_files
from polder.node.volumes.contents import DEFAULT_MODE, Files
from polder.node.volumes.tokens import Tokens
from polder.system import mounts

IN_MEMORY = frozenset({"secret", "projected"})


MEASURE = 10.0
"""Seconds between looks at how much a limited emptyDir holds."""


@dataclass(frozen=True, slots=True)
class Volumes:
    """Makes and removes them. ``around`` tells a pod's downward fields."""

    pods: Path
    cluster: Cluster
    tokens: Tokens
    around: Callable[[Pod], Surroundings]

    async def ensure(self, pod: Pod) -> dict[str, Path]:
        """All volumes of the pod by name; also refreshes the files of those that exist.

        Raises RetryableError for objects not there yet, PermanentError for what can never be.
        """
        return {volume.name: await self._ensure(pod, volume) for volume in pod.spec.volumes or []}

    async def _ensure(self, pod: Pod, volume: Volume) -> Path:
        kind, files = await self._files(pod, volume)
        if volume.host_path is not None:
            return _host_path(volume.name, volume.host_path)
        place = self.pods / pod.metadata.uid / "volumes" / kind / volume.name
        group = pod.spec.security_context.fs_group if pod.spec.security_context else None
        if volume.empty_dir is not None:
            await asyncio.to_thread(_ensure_empty, place, volume.empty_dir, group)
        else:
            await asyncio.to_thread(_ensure_directory, place, kind in IN_MEMORY)
            await asyncio.to_thread(ensure_files, place, files, group)
        return place

    async def _files(self, pod: Pod, volume: Volume) -> tuple[str, Files]:
        if volume.empty_dir is not None:
            return "empty-dir", {}
        if volume.host_path is not None:
            return "host-path", {}
        if volume.config_map is not None:
            source = volume.config_map
            held = await self.cluster.config_map(self._ref(pod, source.name))
            rules = (_mode(source.default_mode), source.optional)
            return "config-map", contents.config_map_files(source.name, held, source.items, rules)
        if volume.secret is not None:
            name, rules = volume.secret.secret_name, (_mode(volume.secret.default_mode), volume.secret.optional)
            secret = await self.cluster.secret(self._ref(pod, name))
            return "secret", contents.secret_files(name, secret, volume.secret.items, rules)
        if volume.downward_api is not None:
            mode = _mode(volume.downward_api.default_mode)
            return "downward-api", contents.downward_files(pod, volume.downward_api, mode, self.around(pod))
        if volume.projected is not None:
            mode = _mode(volume.projected.default_mode)
            parts = [await self._projected(pod, source, mode) for source in volume.projected.sources or []]
            return "projected", contents.merged(parts)
        raise PermanentError(f"volume {volume.name} of pod {pod.metadata.name} is of a kind that is not supported")

    async def _projected(self, pod: Pod, source: ProjectedSource, mode: int) -> Files:
        if source.config_map is not None:
            held = await self.cluster.config_map(self._ref(pod, source.config_map.name))
            rules = (mode, source.config_map.optional)
            return contents.config_map_files(source.config_map.name, held, source.config_map.items, rules)
        if source.secret is not None:
            secret = await self.cluster.secret(self._ref(pod, source.secret.name))
            rules = (mode, source.secret.optional)
            return contents.secret_files(source.secret.name, secret, source.secret.items, rules)
        if source.downward_api is not None:
            return contents.downward_files(pod, source.downward_api, mode, self.around(pod))
        if source.service_account_token is not None:
            token = await self.tokens.token(pod, source.service_account_token)
            # Readable by the pod's own user whoever that is; the tmpfs is shown to this pod alone.
            return {source.service_account_token.path: FileSpec(token.encode(), mode)}
        raise PermanentError(f"a projected volume of pod {pod.metadata.name} has a source that is not supported")

    def _ref(self, pod: Pod, name: str) -> Ref:
        return Ref(tenant_of(pod.metadata), pod.metadata.namespace, name)

    async def exceeded(self, pod: Pod) -> str:
        """Upstream's sentence about an emptyDir on disk that holds more than its sizeLimit; empty while none does."""
        for volume in pod.spec.volumes or []:
            spec = volume.empty_dir
            if spec is None or spec.size_limit is None or spec.medium:
                continue
            place = self.pods / pod.metadata.uid / "volumes" / "empty-dir" / volume.name
            if await asyncio.to_thread(_size, place) > whole(spec.size_limit):
                return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{spec.size_limit}".'
        return ""

    def refresh_after(self, pod: Pod) -> float | None:
        """Seconds after which ``ensure`` should be called again; None if nothing can change."""
        volumes = pod.spec.volumes or []
        written = any(v.empty_dir is None and v.host_path is None for v in volumes)
        measured = any(v.empty_dir is not None and v.empty_dir.size_limit is not None for v in volumes)
        known = [self.tokens.refresh_after(pod.metadata.uid)] if written else []
        known += [MEASURE] if measured else []
        return min(known) if known else None

    async def remove(self, uid: str) -> None:
        """Removes all that a pod had here; idempotent."""
        self.tokens.forget(uid)
        await asyncio.to_thread(_remove, self.pods / uid)


def _size(place: Path) -> int:
    """Bytes on disk below a directory, links and what they point to not counted."""
    total = 0
    for here, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(Path(here) / name).st_blocks * 512
            except OSError:
                continue  # it went meanwhile
    return total


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _mounted(place: Path) -> bool:
    return place.exists() and place.stat().st_dev != place.parent.stat().st_dev


def _ensure_directory(place: Path, in_memory: bool) -> None:
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o755)
    if in_memory and not _mounted(place):
        mounts.mount("tmpfs", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, "mode=0755,size=16m")


def _ensure_empty(place: Path, spec: EmptyDir, group: int | None) -> None:
    if spec.medium not in {"", "Memory"}:
        raise PermanentError(f"emptyDir.medium {spec.medium!r} is not supported; leave it out or write Memory")
    place.mkdir(parents=True, exist_ok=True)
    if spec.medium == "Memory" and not _mounted(place):
        size = f",size={whole(spec.size_limit)}" if spec.size_limit is not None else ""
        mounts.mount("tmpfs", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, f"mode=0777{size}")
    mode = 0o777
    if group is not None:
        os.chown(place, -1, group)
        mode = 0o2777
    place.chmod(mode)


def _is_of_type(path: Path, kind: str) -> bool:
    found = {
        "Directory": path.is_dir(),
        "File": path.is_file(),
        "Socket": path.is_socket(),
        "CharDevice": path.is_char_device(),
        "BlockDevice": path.is_block_device(),
    }
    return found.get(kind, False)


def _host_path(name: str, spec: HostPath) -> Path:
    path = Path(spec.path)
    if spec.type == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif spec.type == "FileOrCreate":
        path.touch(exist_ok=True)
    elif spec.type and not _is_of_type(path, spec.type):
        raise PermanentError(f"volume {name}: hostPath {spec.path} is not of type {spec.type}")
    return path


def _remove(place: Path) -> None:
    mounts.unmount_below(place)
    if place.exists():
        shutil.rmtree(place)
