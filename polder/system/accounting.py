"""What control groups have used, version 1 (also hybrid) and 2: CPU time, memory, processes. Read often, so read cheaply.

Source: the kernel's admin-guide, cgroup-v1 (cpuacct, memory) and cgroup-v2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from polder.system.mounts import Mount, observe_mounts

_CONTROLLERS = ("cpuacct", "memory", "pids")
_SIZE = 16 * 1024
"""Bytes of the longest file that is read (memory.stat has some 2,000)."""


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes, but for the faults. The working set is what is used less what the kernel can drop at once."""

    usage: int
    working_set: int
    rss: int
    faults: int
    major_faults: int


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where the machine's hierarchies are mounted, by controller; of version 2 there is one for all."""

    roots: dict[str, Path]
    unified: bool = False

    def place(self, controller: str, group: str) -> str:
        """The directory of a group; empty where the controller is not there."""
        root = self.roots.get(controller)
        return "" if root is None else f"{root}/{group.strip('/')}"


def observe_hierarchies(mounts: Iterable[Mount] | None = None) -> Hierarchies:
    """The hierarchies of this machine. In hybrid set-ups the controllers are those of version 1."""
    found = list(observe_mounts() if mounts is None else mounts)
    roots = {}
    for one in found:
        if one.kind == "cgroup":
            names = set(one.target.name.split(","))
            roots.update({name: one.target for name in _CONTROLLERS if name in names})
    unified = [one.target for one in found if one.kind == "cgroup2"]
    if roots or not unified:
        return Hierarchies(roots)
    return Hierarchies(dict.fromkeys(_CONTROLLERS, unified[0]), unified=True)


class Accounting:
    """Reads groups ("/a/b"). What is not there, or went meanwhile, is None."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._where = hierarchies

    def cpu(self, group: str) -> int | None:
        """CPU time used so far, in nanoseconds, by all that ran in the group or below it."""
        place = self._where.place("cpuacct", group)
        if not self._where.unified:
            return _number(_read(f"{place}/cpuacct.usage"))
        found = _number(_after(_read(f"{place}/cpu.stat"), b"usage_usec "))
        return None if found is None else found * 1000

    def memory(self, group: str) -> MemoryUse | None:
        """Memory in use now."""
        place = self._where.place("memory", group)
        names = _UNIFIED if self._where.unified else _SEPARATE
        usage, stat = _number(_read(f"{place}/{names[0]}")), _read(f"{place}/memory.stat")
        if usage is None or not stat:
            return None
        inactive, rss, faults, major = (_number(_after(stat, name)) or 0 for name in names[1])
        return MemoryUse(usage, max(0, usage - inactive), rss, faults, major)

    def processes(self, group: str) -> int | None:
        """Processes and threads that run now."""
        return _number(_read(f"{self._where.place('pids', group)}/pids.current"))

    def process_limit(self, group: str) -> int | None:
        """How many of them there may be; None where nothing says so."""
        return _number(_read(f"{self._where.place('pids', group)}/pids.max"))

    def throttled(self, group: str) -> tuple[int, int, int] | None:
        """(periods, periods in which the group was throttled, nanoseconds of it) of the quota of CPU, on version 2."""
        stat = _read(f"{self._where.place('cpuacct', group)}/cpu.stat") if self._where.unified else b""
        parts = [_number(_after(stat, name)) for name in (b"nr_periods ", b"nr_throttled ", b"throttled_usec ")]
        if parts[0] is None or parts[1] is None or parts[2] is None:
            return None
        return parts[0], parts[1], parts[2] * 1000

    def children(self, group: str) -> list[str]:
        """Names of the groups right below."""
        try:
            with os.scandir(self._where.place("memory", group) or self._where.place("cpuacct", group)) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []


_SEPARATE = (
    "memory.usage_in_bytes",
    (b"\ntotal_inactive_file ", b"\ntotal_rss ", b"\ntotal_pgfault ", b"\ntotal_pgmajfault "),
)
_UNIFIED = ("memory.current", (b"\ninactive_file ", b"\nanon ", b"\npgfault ", b"\npgmajfault "))


def _read(path: str) -> bytes:
    """A file in one call; empty where there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(handle, _SIZE)
    except OSError:
        return b""
    finally:
        os.close(handle)


def _after(text: bytes, name: bytes) -> bytes:
    """What follows a name up to the end of its line. A line's name begins with its line feed; the first line has none."""
    at = text.find(name)
    if at < 0 and name.startswith(b"\n") and text.startswith(name[1:]):
        at = -1
    elif at < 0:
        return b""
    start = at + len(name)
    return text[start : text.find(b"\n", start) if b"\n" in text[start:] else len(text)]


def _number(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None
