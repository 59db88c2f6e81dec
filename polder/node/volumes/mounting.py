"""Which path of the host a container's volumeMount shows.

What Polder writes (configMap, secret, projected, downwardAPI) is always read-only, so that nothing in it is the tenant's.
A subPath of what a pod writes itself is looked up by the kernel, within the volume, and bound to a path of ours while it
is held open: a link put in its place afterwards changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from polder.api.core import Pod
from polder.api.podspec import Container, VolumeMount
from polder.base.errors import PermanentError
from polder.system import mounts
from polder.system.beneath import ensure_beneath
from polder.system.cri_types import BindMount

PROPAGATES = frozenset({"HostToContainer", "Bidirectional"})
_REFERENCE = re.compile(r"\$(?:\$|\(([^()]*)\))")


@dataclass(frozen=True, slots=True)
class Mounted:
    """A volume on this node. ``ours``: only Polder writes it. ``read_only``: no container may. ``of_node``: a path of the node's
    own, whose mounts are the node's to share.
    """

    path: Path
    ours: bool = False
    read_only: bool = False
    of_node: bool = False


def bind_mounts(
    pod: Pod, container: Container, volumes: Mapping[str, Mounted], area: Path, env: Mapping[str, str]
) -> list[BindMount]:
    """The container's mounts; ``area`` is a directory of ours for what is bound, ``env`` fills in subPathExpr.

    Raises PermanentError.
    """
    found = []
    for number, mount in enumerate(container.volume_mounts or []):
        if mount.name not in volumes:
            raise PermanentError(f"container {container.name} of pod {pod.metadata.name}: no volume {mount.name!r}")
        volume, place = volumes[mount.name], area / container.name / str(number)
        if mount.mount_propagation in PROPAGATES and not volume.of_node:
            volume = replace(volume, path=_shared(volume.path, area / f"..shared-{mount.name}"))
        source = _source(volume, sub_path(mount, env), mount, place)
        read_only = mount.read_only or volume.read_only
        if read_only and mount.recursive_read_only in ("Enabled", "IfPossible"):
            source = _read_only_tree(source, place)
        path = str(PurePosixPath("/") / mount.mount_path)
        found.append(BindMount(path, str(source), read_only, mount.mount_propagation))
    return found


def _shared(source: Path, place: Path) -> Path:
    """A view of a volume, one for the pod, within which mounts reach from container to container."""
    if not any(found.target == place for found in mounts.observe_mounts()):
        _bound(str(source), True, place, mounts.MS_REC)
        mounts.mount("none", place, "none", mounts.MS_REC | mounts.MS_SHARED)
    return place


def sub_path(mount: VolumeMount, env: Mapping[str, str]) -> str:
    """The path within the volume, filled in. Raises PermanentError for one that names what is unknown or leads out."""
    path = mount.sub_path
    if mount.sub_path_expr:
        path = _filled(mount.sub_path_expr, env)
    if path.startswith("/"):
        raise PermanentError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise PermanentError(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def _filled(text: str, env: Mapping[str, str]) -> str:
    missing = [name for name in _REFERENCE.findall(text) if name and name not in env]
    if missing:
        raise PermanentError(f'missing value for "{missing[0]}"')
    return _REFERENCE.sub(lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]), text)


def _source(volume: Mounted, path: str, mount: VolumeMount, place: Path) -> Path:
    if not path:
        return volume.path
    if volume.ours:
        found = (volume.path / path).resolve()
        if not found.exists():
            raise PermanentError(f"volume {mount.name} has no {path!r}")
        return found
    try:
        held = ensure_beneath(volume.path, path)
    except PermanentError as error:
        raise PermanentError(f"failed to prepare subPath of volume {mount.name}: {error}") from error
    try:
        return _bound(f"/proc/self/fd/{held}", stat.S_ISDIR(os.fstat(held).st_mode), place)
    finally:
        os.close(held)


def _bound(source: str, is_directory: bool, target: Path, flags: int = 0) -> Path:
    mounts.unmount_below(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rmdir()
    target.unlink(missing_ok=True)
    if is_directory:
        target.mkdir()
    else:
        target.touch()
    mounts.mount(source, target, "none", mounts.MS_BIND | flags)
    return target


def _read_only_tree(source: Path, place: Path) -> Path:
    """A view of it, other mounts below it included, that nobody can write through."""
    target = _bound(str(source), source.is_dir(), place.with_name(f"{place.name}-ro"), mounts.MS_REC)
    mounts.mount("none", target, "none", mounts.MS_REC | mounts.MS_PRIVATE)
    mounts.make_read_only(target)
    return target
