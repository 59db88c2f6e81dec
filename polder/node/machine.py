"""What the machine is: capacity, names, pressures. Read from /proc and the like."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from polder.api.quantity import milli, whole

GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Capacity:
    """CPU in thousandths, memory and disk in bytes."""

    cpu: int
    memory: int
    disk: int


def _meminfo() -> dict[str, int]:
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found


def observe_capacity(state: Path, cpu: str = "", memory: str = "") -> Capacity:
    """The machine's size, with overrides as quantities. Raises PermanentError for what is no quantity."""
    disk = os.statvfs(state)
    return Capacity(
        milli(cpu) if cpu else (os.cpu_count() or 1) * 1000,
        whole(memory) if memory else _meminfo()["MemTotal"],
        disk.f_frsize * disk.f_blocks,
    )


def allocatable(capacity: Capacity, pods: int, kept: Mapping[str, int]) -> dict[str, int]:
    """What pods may be given of a node, in the integer units of capacity: all but what is ``kept`` of it."""
    whole = {"cpu": capacity.cpu, "memory": capacity.memory, "ephemeral-storage": capacity.disk}
    return {**{name: max(0, size - kept.get(name, 0)) for name, size in whole.items()}, "pods": pods}


@dataclass(frozen=True, slots=True)
class MachineUse:
    """What the whole machine uses. ``at`` is in seconds since the epoch, ``cpu`` in nanoseconds since it was booted, memory in
    bytes: the working set is all but what is free or can be dropped at once.
    """

    at: float
    cpu: int
    memory: int
    working_set: int
    available: int


TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
"""Nanoseconds in the kernel's unit of CPU time."""


def observe_use(at: float) -> MachineUse:
    """The machine's use now, which is ``at``. Source: proc(5): user, nice, system, irq, softirq and steal are in use."""
    with Path("/proc/stat").open() as file:
        times = [int(part) for part in file.readline().split()[1:9]]
    memory = _meminfo()
    used = memory["MemTotal"] - memory["MemFree"]
    working = max(0, used - memory.get("Inactive(file)", 0))
    cpu = (sum(times) - times[3] - times[4]) * TICK
    return MachineUse(at, cpu, used, working, memory["MemTotal"] - working)


def observe_processes() -> tuple[int, int]:
    """Processes and threads that there are, and how many there can be."""
    now = int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])
    return now, int(Path("/proc/sys/kernel/pid_max").read_text())


def observe_booted() -> float:
    """When the machine was booted, in seconds since the epoch."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0


def observe_huge_pages() -> dict[str, str]:
    """The machine's huge pages, as the resources that nodes have of them."""
    found = {}
    for place in Path("/sys/kernel/mm/hugepages").glob("hugepages-*kB"):
        size, count = (
            int(place.name[len("hugepages-") : -len("kB")]),
            int(_first_line(str(place / "nr_hugepages")) or 0),
        )
        name = next(
            (f"{size // by}{unit}" for by, unit in ((1 << 20, "Gi"), (1 << 10, "Mi")) if size >= by), f"{size}Ki"
        )
        found[f"hugepages-{name}"] = f"{size * count}Ki" if count else "0"
    return found


def architecture() -> str:
    """The machine's architecture under Go's name."""
    return GO_ARCHITECTURES.get(platform.machine(), platform.machine())


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def observe_node_info(runtime: tuple[str, str], version: str) -> dict[str, str]:
    """core/v1 NodeSystemInfo."""
    release = platform.freedesktop_os_release()
    return {
        "machineID": _first_line("/etc/machine-id"),
        "systemUUID": _first_line("/sys/class/dmi/id/product_uuid") or _first_line("/etc/machine-id"),
        "bootID": _first_line("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": release.get("PRETTY_NAME", "Linux"),
        "containerRuntimeVersion": f"{runtime[0]}://{runtime[1]}",
        "kubeletVersion": version,
        "kubeProxyVersion": version,
        "operatingSystem": "linux",
        "architecture": architecture(),
    }
