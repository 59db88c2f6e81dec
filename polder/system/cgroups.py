"""Control groups of pods, version 1 (also hybrid) and 2: limits of a pod as a whole, and their removal."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polder.system.mounts import Mount, observe_mounts
from polder.system.process import ProcessId, identify

CPU_PERIOD = 100_000
"""Microseconds in which a CPU quota is counted."""
REMOVAL_PAUSE = 0.02
"""Seconds between two tries to remove a group."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a pod as a whole may use. Shares as in version 1 (1024 per CPU), quota in microseconds per CPU_PERIOD.

    Processes and threads are bounded always: their numbers are the whole machine's, and one pod that forks for ever
    would leave none for the others and for Polder.
    """

    cpu_shares: int = 2
    cpu_quota: int | None = None
    memory: int | None = None
    processes: int = 1024
    huge_pages: Sequence[tuple[str, int]] = ()
    """Bytes of huge pages by the kernel's name of their size, such as 2MB."""


@dataclass(frozen=True, slots=True)
class Standing:
    """The limits that a group has now, in version 1's terms; 0 for no quota and no limit of memory."""

    cpu_shares: int
    cpu_quota: int
    memory: int


def page_size(size: int) -> str:
    """The kernel's name of a huge page of so many bytes."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if size >= unit:
            return f"{size // unit}{name}"
    return f"{size}B"


UNLIMITED = 1 << 60
"""Bytes from which a limit of memory is none: version 1 shows the largest number of pages."""


def weight(shares: int) -> int:
    """Version 2's cpu.weight (1 to 10000) for version 1's cpu.shares (2 to 262144); the map that runc uses."""
    return 1 + ((max(2, min(shares, 262144)) - 2) * 9999) // 262142


def shares_of(found: int) -> int:
    """The smallest cpu.shares that give this cpu.weight."""
    return 2 if found <= 1 else 2 + -(-(found - 1) * 262142 // 9999)


class Cgroups:
    """The host's hierarchies."""

    def __init__(self, mounts: Sequence[Mount] | None = None) -> None:
        known = observe_mounts() if mounts is None else mounts
        found = [m for m in known if m.kind in {"cgroup", "cgroup2"}]
        self._v1 = [m.target for m in found if m.kind == "cgroup"]
        unified = [m.target for m in found if m.kind == "cgroup2"]
        # In hybrid set-ups the version 2 tree carries no controllers that limits need, yet processes appear in it.
        self._v2 = unified[0] if unified else None
        self.unified = not self._v1 and self._v2 is not None
        self.swap_accounted = any((root / "memory.memsw.limit_in_bytes").exists() for root in self._v1)
        """Whether version 1's groups would swap beyond a limit of memory, unless the sum of both is limited too."""

    def standing(self, group: str) -> Standing | None:
        """The limits of a group; None where it is not there."""
        found = self._standing_v2(group) if self.unified else self._standing_v1(group)
        if found is None:
            return None
        shares, quota, memory = found
        return Standing(shares, max(0, quota), memory if memory < UNLIMITED else 0)

    def _standing_v1(self, group: str) -> tuple[int, int, int] | None:
        names = ("cpu.shares", "cpu.cfs_quota_us", "memory.limit_in_bytes")
        found = [self._read_v1(group, name) for name in names]
        if found[0] is None or found[1] is None or found[2] is None:
            return None
        return found[0], found[1], found[2]

    def _read_v1(self, group: str, name: str) -> int | None:
        for root in self._v1:
            try:
                return int((root / group.lstrip("/") / name).read_text())
            except FileNotFoundError:
                continue
        return None

    def _standing_v2(self, group: str) -> tuple[int, int, int] | None:
        assert self._v2 is not None
        here = self._v2 / group.strip("/")
        try:
            shares = shares_of(int((here / "cpu.weight").read_text()))
            quota, period = (here / "cpu.max").read_text().split()
            memory = (here / "memory.max").read_text().strip()
        except FileNotFoundError:
            return None
        found = -1 if quota == "max" else int(quota) * CPU_PERIOD // int(period)
        return shares, found, UNLIMITED if memory == "max" else int(memory)

    def share(self, group: str, shares: int) -> None:
        """Makes a group if need be, and gives it a share of the CPU; no other limit of it is touched."""
        if self.unified:
            (self._reach(group) / "cpu.weight").write_text(str(weight(shares)))
            return
        for root in self._v1:
            (root / group.lstrip("/")).mkdir(parents=True, exist_ok=True)
            _inherit_cpuset(root, group)
        self._write_v1(group, "cpu.shares", str(shares))

    def ensure(self, group: str, limits: Limits) -> None:
        """Makes a group ("/a/b") with these limits."""
        if self.unified:
            self._ensure_v2(group, limits)
        else:
            self._ensure_v1(group, limits)

    def _ensure_v1(self, group: str, limits: Limits) -> None:
        quota = limits.cpu_quota if limits.cpu_quota is not None else -1
        memory = limits.memory if limits.memory is not None else -1
        for root in self._v1:
            (root / group.lstrip("/")).mkdir(parents=True, exist_ok=True)
            _inherit_cpuset(root, group)
        self._write_v1(group, "cpu.shares", str(limits.cpu_shares))
        self._write_v1(group, "cpu.cfs_period_us", str(CPU_PERIOD))
        self._write_v1(group, "cpu.cfs_quota_us", str(quota))
        self._write_v1(group, "memory.limit_in_bytes", str(memory))
        self._write_v1(group, "pids.max", str(limits.processes))
        for size, held in limits.huge_pages:
            self._write_v1(group, f"hugetlb.{size}.limit_in_bytes", str(held))

    def _write_v1(self, group: str, name: str, value: str) -> None:
        for root in self._v1:
            path = root / group.lstrip("/") / name
            if path.exists():
                path.write_text(value)

    def _reach(self, group: str) -> Path:
        """A group of version 2, made with the controllers that limits need."""
        assert self._v2 is not None
        here = self._v2
        for part in group.strip("/").split("/"):
            offered = (here / "cgroup.controllers").read_text().split()
            wanted = [f"+{name}" for name in ("cpu", "memory", "pids", "cpuset", "hugetlb") if name in offered]
            (here / "cgroup.subtree_control").write_text(" ".join(wanted))
            here = here / part
            here.mkdir(exist_ok=True)
        return here

    def _ensure_v2(self, group: str, limits: Limits) -> None:
        here = self._reach(group)
        quota = "max" if limits.cpu_quota is None else str(limits.cpu_quota)
        (here / "cpu.weight").write_text(str(weight(limits.cpu_shares)))
        (here / "cpu.max").write_text(f"{quota} {CPU_PERIOD}")
        (here / "memory.max").write_text("max" if limits.memory is None else str(limits.memory))
        (here / "pids.max").write_text(str(limits.processes))
        for size, held in limits.huge_pages:
            if (here / f"hugetlb.{size}.max").exists():
                (here / f"hugetlb.{size}.max").write_text(str(held))

    def limit_processes(self, group: str) -> None:
        """All of an existing group together get a quarter of the machine's processes: several nodes may share it."""
        most = str(int(Path("/proc/sys/kernel/pid_max").read_text()) // 4)
        for root in [*self._v1, *([self._v2] if self._v2 else [])]:
            path = root / group.lstrip("/") / "pids.max"
            if path.exists():
                path.write_text(most)

    def remove(self, group: str, within: float = 0.0) -> bool:
        """Removes a group and all below it from every hierarchy; whether it is gone. A group with living processes stays.
        The kernel holds a group for a moment after its last process: up to ``within`` seconds are given to it, blocking.
        """
        tops = [root / group.lstrip("/") for root in [*self._v1, *([self._v2] if self._v2 else [])]]
        end = time.monotonic() + within
        while True:
            for top in tops:
                _remove_tree(top)
            if not any(top.is_dir() for top in tops):
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(REMOVAL_PAUSE)

    def processes(self, group: str) -> list[ProcessId]:
        """All that runs in a group or below it."""
        roots = [*self._v1, *([self._v2] if self._v2 else [])]
        found: set[ProcessId] = set()
        for root in roots:
            for listed in (root / group.lstrip("/")).rglob("cgroup.procs"):
                try:
                    pids = [int(line) for line in listed.read_text().split()]
                except OSError:
                    continue  # the group went meanwhile
                found.update(p for p in map(identify, pids) if p is not None)
        return sorted(found, key=lambda p: p.pid)

    def children(self, group: str) -> set[str]:
        """Names of the groups right below a group, in any hierarchy."""
        roots = [*self._v1, *([self._v2] if self._v2 else [])]
        found: set[str] = set()
        for root in roots:
            top = root / group.lstrip("/")
            if top.is_dir():
                found.update(entry.name for entry in top.iterdir() if entry.is_dir())
        return found


def _inherit_cpuset(root: Path, group: str) -> None:
    """A version 1 cpuset group starts empty and takes no process until it is filled from its parent."""
    here = root
    for part in group.strip("/").split("/"):
        parent, here = here, here / part
        for name in ("cpuset.cpus", "cpuset.mems"):
            path = here / name
            if path.exists() and not path.read_text().strip():
                path.write_text((parent / name).read_text())


def _remove_tree(top: Path) -> None:
    if not top.is_dir():
        return
    for here, _, _ in os.walk(top, topdown=False):
        try:
            Path(here).rmdir()
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.ENOENT, errno.ENOTEMPTY}:
                raise
