"""emptyDir: scratch space of a pod, on disk, in memory or in huge pages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from polder.api.core import Pod
from polder.api.podvolumes import EmptyDir
from polder.api.quantity import whole
from polder.base.errors import PermanentError
from polder.node.pods import resources
from polder.system import mounts

_OPEN: Final = 0o777
_STICKY: Final = 0o1000
"""What tmpfs has where nobody says otherwise: of files there, only their owners dispose. Upstream leaves it so."""
_OF_GROUP: Final = 0o2000
_HUGE: Final = "HugePages"
_REQUEST: Final = "hugepages-"
_PAGES: Final = Path("/sys/kernel/mm/hugepages")
LOOKED_AT: Final = 200_000
"""Files of a volume that are counted at most: a tenant may make any number."""


def is_mounted(place: Path) -> bool:
    """Whether something is mounted at a path."""
    return place.exists() and place.stat().st_dev != place.parent.stat().st_dev


def ensure_scratch(place: Path, pod: Pod, spec: EmptyDir, node_memory: int) -> None:
    """Makes it, once; what the pod wrote stays. Raises PermanentError."""
    place.mkdir(parents=True, exist_ok=True)
    if spec.medium and not is_mounted(place):
        if spec.medium == "Memory":
            options = f"mode=1777,size={_memory(pod, spec, node_memory)}"
            mounts.mount("tmpfs", place, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
        elif spec.medium == _HUGE or spec.medium.startswith(f"{_HUGE}-"):
            _mount_huge(place, _page_size(pod, spec.medium))
        else:
            raise PermanentError(f"emptyDir.medium {spec.medium!r} is not supported; leave it out or write Memory")
    group = pod.spec.security_context.fs_group if pod.spec.security_context else None
    if group is not None:
        os.chown(place, -1, group)
    place.chmod(_OPEN | (_STICKY if spec.medium == "Memory" else 0) | (_OF_GROUP if group is not None else 0))


def _memory(pod: Pod, spec: EmptyDir, node_memory: int) -> int:
    """Bytes: the smallest of what the volume, the pod and the node allow."""
    known = [node_memory] if node_memory else []
    limits = [resources.memory(container, "limits") for container in pod.spec.containers]
    known += [sum(limits)] if limits and all(limits) else []
    known += [whole(spec.size_limit)] if spec.size_limit is not None and whole(spec.size_limit) else []
    return min(known, default=0)


def _page_size(pod: Pod, medium: str) -> int:
    """Bytes of a page: as the medium says, else the one size that the pod requests."""
    if medium != _HUGE:
        return whole(medium.removeprefix(f"{_HUGE}-"))
    asked = {
        name.removeprefix(_REQUEST)
        for container in [*pod.spec.containers, *(pod.spec.init_containers or [])]
        if container.resources is not None
        for name in {**(container.resources.requests or {}), **(container.resources.limits or {})}
        if name.startswith(_REQUEST)
    }
    if len(asked) != 1:
        raise PermanentError("emptyDir.medium HugePages needs containers that request huge pages of exactly one size")
    return whole(asked.pop())


def _mount_huge(place: Path, size: int) -> None:
    if not (_PAGES / f"hugepages-{size >> 10}kB").is_dir():
        raise PermanentError(f"the node has no huge pages of {size} bytes")
    options = f"pagesize={size},mode=0777"
    mounts.mount("nodev", place, "hugetlbfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
