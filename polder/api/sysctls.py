"""Kernel parameters of pods: how they are named, and which of them reach no further than the pod.

Source: Kubernetes documentation, "Using sysctls in a Kubernetes Cluster" (the safe set); sysctl.d(5) (dots and slashes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from polder.api.errors import Field, FieldError
from polder.api.meta import Raw

_PART: Final = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_NAME: Final = re.compile(rf"({_PART}[\./])*{_PART}")
_RULE: Final = rf"must have at most 253 characters and match regex ^({_PART}[\\./])*{_PART}$"
_LONGEST: Final = 253
SAFE: Final = frozenset(
    {"kernel.shm_rmid_forced"}
    | {f"net.ipv4.{name}" for name in ("ip_local_port_range", "ip_local_reserved_ports", "ip_unprivileged_port_start")}
    | {f"net.ipv4.{name}" for name in ("ping_group_range", "tcp_syncookies", "tcp_fin_timeout", "tcp_rmem", "tcp_wmem")}
    | {f"net.ipv4.tcp_keepalive_{name}" for name in ("time", "intvl", "probes")}
)
_NET: Final = ("net.",)
_IPC: Final = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def is_pods_own(pattern: str) -> bool:
    """Whether a name, or one that ends with ``*``, is of the namespaces that a pod has for itself."""
    return pattern.startswith((*_NET, *_IPC)) and "*" not in pattern[:-1]


def is_allowed(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter is safe, or one that this node lets pods set."""
    return name in SAFE or any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def dotted(name: str) -> str:
    """The name with dots between its parts; one that begins with slashes between them has the two the other way round."""
    first = next((letter for letter in name if letter in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def validate_sysctls(spec: Raw, at: Field) -> Iterator[FieldError]:
    """``securityContext.sysctls`` of a pod's spec."""
    seen: set[Any] = set()
    for number, sysctl in enumerate((spec.get("securityContext") or {}).get("sysctls") or ()):
        where, name = at[number] / "name", sysctl.get("name") or ""
        if not name:
            yield where.required()
        elif len(name) > _LONGEST or not _NAME.fullmatch(name):
            yield where.invalid(name, _RULE)
        elif name in seen:
            yield where.duplicate(name)
        seen.add(name)
        if spec.get("hostNetwork") and dotted(name).startswith(_NET):
            yield where.invalid(name, "may not be specified when 'hostNetwork' is true")
        if spec.get("hostIPC") and dotted(name).startswith(_IPC):
            yield where.invalid(name, "may not be specified when 'hostIPC' is true")
