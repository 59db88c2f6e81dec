"""Which path of the host a container's volumeMount shows.

What Polder writes (configMap, secret, projected, downwardAPI) is always read-only, so that nothing in it is the tenant's.
A subPath of what a pod writes itself is walked without following links and bound to a path of ours while it is held open:
a link put in its place afterwards changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from polder.api.core import Pod
from polder.api.podspec import Container, VolumeMount
from polder.base.errors import PermanentError
from polder.system import mounts
from polder.system.cri_types import BindMount


def bind_mounts(pod: Pod, container: Container, volumes: Mapping[str, Path], area: Path) -> list[BindMount]:
    """The container's mounts; ``area`` is a directory of ours for the subPaths. Raises PermanentError."""
    ours = {v.name for v in pod.spec.volumes or [] if v.empty_dir is None and v.host_path is None}
    found = []
    for number, mount in enumerate(container.volume_mounts or []):
        if mount.name not in volumes:
            raise PermanentError(f"container {container.name} of pod {pod.metadata.name}: no volume {mount.name!r}")
        source = volumes[mount.name]
        if mount.sub_path:
            _check(mount, container)
            source = (
                _resolved(source, mount, container)
                if mount.name in ours
                else _bound(source, mount, area / container.name / str(number))
            )
        found.append(BindMount(mount.mount_path, str(source), mount.read_only or mount.name in ours))
    return found


def _check(mount: VolumeMount, container: Container) -> None:
    path = PurePosixPath(mount.sub_path)
    if path.is_absolute() or ".." in path.parts:
        raise PermanentError(
            f"container {container.name}: subPath {mount.sub_path!r} must be relative and must not contain '..'"
        )


def _resolved(volume: Path, mount: VolumeMount, container: Container) -> Path:
    path = (volume / mount.sub_path).resolve()
    if not path.exists():
        raise PermanentError(f"container {container.name}: volume {mount.name} has no {mount.sub_path!r}")
    return path


def _bound(volume: Path, mount: VolumeMount, target: Path) -> Path:
    held = _open(volume, mount)
    try:
        mounts.unmount_below(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rmdir()
        target.unlink(missing_ok=True)
        if stat.S_ISDIR(os.fstat(held).st_mode):
            target.mkdir()
        else:
            target.touch()
        mounts.mount(f"/proc/self/fd/{held}", target, "none", mounts.MS_BIND)
    finally:
        os.close(held)
    return target


def _open(volume: Path, mount: VolumeMount) -> int:
    """A handle (O_PATH) on the subPath, whose missing directories are made."""
    held = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    for part in PurePosixPath(mount.sub_path).parts:
        try:
            below = _step(held, part)
        except OSError as error:
            raise PermanentError(
                f"volume {mount.name}: subPath {mount.sub_path!r}: {part!r}: {error.strerror}"
            ) from error
        finally:
            os.close(held)
        held = below
        if stat.S_ISLNK(os.fstat(held).st_mode):
            os.close(held)
            raise PermanentError(f"volume {mount.name}: subPath {mount.sub_path!r} has a link at {part!r}")
    return held


def _step(held: int, part: str) -> int:
    try:
        return os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=held)
    except FileNotFoundError:
        os.mkdir(part, 0o755, dir_fd=held)
        return os.open(part, os.O_PATH | os.O_NOFOLLOW, dir_fd=held)
