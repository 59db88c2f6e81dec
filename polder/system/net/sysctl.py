"""Kernel settings of the calling thread's network namespace, below /proc/sys/."""

from __future__ import annotations

from pathlib import Path

from polder.base.errors import PolderError

_ROOT = Path("/proc/sys")


class SysctlError(PolderError):
    """A setting could not be read or written."""


def read_sysctl(path: str) -> str | None:
    """The value with single spaces; None where the kernel has no such setting."""
    try:
        return " ".join((_ROOT / path).read_text().split())
    except OSError:
        return None


def write_sysctl(path: str, value: str) -> None:
    """Write the value; a setting that already has it is left alone."""
    if read_sysctl(path) == value:
        return
    try:
        (_ROOT / path).write_text(value)
    except OSError as exc:
        raise SysctlError(f"sysctl {path}: writing {value!r} failed: {exc.strerror}") from exc
