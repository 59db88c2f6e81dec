"""What a cluster may leave on a host: nothing. A snapshot before and after, compared."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/bridge/bridge-nf-call-iptables")


def _lines(*argv: str) -> list[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.splitlines()


def _processes() -> set[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if argv and int(entry.name) != os.getpid():
            found.add(f"{entry.name} {argv}")
    return found


def _cgroups() -> set[str]:
    return {str(p) for p in Path("/sys/fs/cgroup").glob("*/*") if p.is_dir()}


def snapshot(owned: str) -> dict[str, set[str]]:
    """Everything on the host that carries ``owned`` (a cluster's name or state directory), and the sysctls."""
    sysctls = {f"{p}={Path('/proc/sys', p).read_text().strip()}" for p in SYSCTLS if Path("/proc/sys", p).exists()}
    return {
        "processes": {p for p in _processes() if owned in p and "pytest" not in p},
        "links": {line for line in _lines("ip", "-o", "link") if owned in line},
        "namespaces": {line for line in _lines("ip", "netns", "list") if owned in line},
        "mounts": {line for line in Path("/proc/mounts").read_text().splitlines() if owned in line},
        "nft tables": {line for line in _lines("nft", "list", "tables") if owned in line},
        "cgroups": {line for line in _cgroups() if owned in line},
        "sysctls": sysctls,
        "routes": {line for line in _lines("ip", "route", "show", "table", "all") if owned in line},
    }
