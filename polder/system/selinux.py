"""Whether the host has SELinux."""

from __future__ import annotations

from pathlib import Path


def is_enabled() -> bool:
    """Whether the kernel enforces or watches a policy: its file system is mounted then (selinuxfs)."""
    return Path("/sys/fs/selinux/enforce").exists()
