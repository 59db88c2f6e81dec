"""How much of the disk pods and images use: what containers wrote, their logs, volumes on disk; asked for at most every ten
seconds, by whoever needs it first.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.node.volumes.storage import Held
from polder.node.walks import Walks
from polder.system.cri_types import DiskUse
from polder.system.trees import MOST, tree_size, tree_use

FRESH = 10.0
"""Seconds for which a measurement counts."""


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A file system: bytes and inodes, in all and free."""

    capacity: int = 0
    available: int = 0
    inodes: int = 0
    inodes_free: int = 0


@dataclass(frozen=True, slots=True)
class PodDisk:
    """What a pod uses of the node's disk, in bytes: by container what it wrote and its logs, and by volume."""

    written: Mapping[str, DiskUse] = field(default_factory=dict)
    logs: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    files: int = 0
    """What its volumes hold, by number."""

    def container(self, name: str) -> int:
        """What counts against a container's limit."""
        return self.written.get(name, DiskUse()).used + self.logs.get(name, 0)

    @property
    def total(self) -> int:
        """What counts against the pod's limit."""
        return sum(one.used for one in self.written.values()) + sum(self.logs.values()) + sum(self.volumes.values())

    @property
    def inodes(self) -> int:
        """What it has of the node's inodes."""
        return sum(one.inodes for one in self.written.values()) + self.files


@dataclass(frozen=True, slots=True)
class DiskReport:
    """A measurement."""

    at: float = 0.0
    node: Filesystem = Filesystem()
    images: Filesystem = Filesystem()
    images_used: int = 0
    pods: Mapping[str, PodDisk] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a claim's volume holds on this node, in bytes and by number, of which so many bytes were asked for; who has it."""

    tenant: TenantName
    asked: int
    used: int
    files: int
    pods: frozenset[str] = frozenset()


Written = Callable[[], Awaitable[Mapping[str, Mapping[str, DiskUse]]]]
"""What containers wrote, by the pod's UID and the container's name. Raises RuntimeFailureError."""
ImagesUsed = Callable[[], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class DiskPlaces:
    """The node's directory, in it those of pods and of logs, and the one that images are in."""

    state: Path
    pods: Path
    logs: Path
    images: Path


class Disk:
    """Measures."""

    def __init__(
        self,
        places: DiskPlaces,
        written: Written,
        images_used: ImagesUsed,
        clock: Clock,
        held: Callable[[], Iterable[Held]] = tuple,
    ) -> None:
        self.places = places
        self._written = written
        self._images_used = images_used
        self._clock = clock
        self._known = DiskReport()
        self._measured = -FRESH
        self._lock = asyncio.Lock()
        self._held = held
        self._walks = Walks()

    async def report(self) -> DiskReport:
        """What is used. Raises RuntimeFailureError, OSError."""
        async with self._lock:
            if self._clock.monotonic() - self._measured >= FRESH:
                written, images = await self._written(), await self._images_used()
                self._known = await asyncio.to_thread(self._look, written, images)
                self._measured = self._clock.monotonic()
            return self._known

    async def kept(self) -> list[Kept]:
        """What claims' volumes hold, measured now, tenants beside each other: only who is to choose a pod asks."""
        of: dict[TenantName, list[Held]] = {}
        for one in self._held():
            of.setdefault(one.tenant, []).append(one)
        found = await asyncio.gather(*(self._walks.run(tenant, _kept, held) for tenant, held in of.items()))
        return [one for tenant in found for one in tenant]

    def _look(self, written: Mapping[str, Mapping[str, DiskUse]], images: int) -> DiskReport:
        logs = _logs(self.places.logs)
        uids = [entry.name for entry in os.scandir(self.places.pods)] if self.places.pods.is_dir() else []
        pods = {uid: _pod(written.get(uid, {}), logs.get(uid, {}), self.places.pods / uid) for uid in uids}
        here = filesystem(self.places.state)
        return DiskReport(self._clock.now().timestamp(), here, filesystem(self.places.images), images, pods)


def filesystem(path: Path) -> Filesystem:
    """The file system that a path is on. Raises OSError."""
    found = os.statvfs(path)
    return Filesystem(found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail, found.f_files, found.f_favail)


def _kept(held: Sequence[Held]) -> list[Kept]:
    """Of a tenant: all of it together takes no longer than one large tree."""
    found = []
    for one in held:
        used, files = tree_use(one.place, MOST // len(held))
        found.append(Kept(one.tenant, one.asked, used, files, frozenset(one.pods)))
    return found


def _logs(root: Path) -> dict[str, dict[str, int]]:
    """Bytes of logs by the pod's UID and the container's name."""
    found: dict[str, dict[str, int]] = {}
    if root.is_dir():
        for directory in os.scandir(root):
            uid = directory.name.rsplit("_", 1)[-1]
            found[uid] = {entry.name: tree_size(Path(entry.path)) for entry in _scan(directory.path)}
    return found


def _pod(written: Mapping[str, DiskUse], logs: Mapping[str, int], place: Path) -> PodDisk:
    """With its emptyDirs that are on the disk: what is mounted there is memory, or somebody else's."""
    volumes, files = {}, 0
    for entry in _scan(place / "volumes" / "empty-dir"):
        if not os.path.ismount(entry.path):
            volumes[entry.name], entries = tree_use(Path(entry.path))
            files += entries
    return PodDisk(written, logs, volumes, files)


def _scan(place: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
