"""fsGroup: a volume's files belong to a group that every container of the pod is in.

Source: Kubernetes documentation, "Configure volume permission and ownership change policy for Pods".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from polder.system.trees import walk

_READ: Final = 0o440
_WRITE: Final = 0o660
_SEARCH: Final = 0o110
ON_MISMATCH: Final = "OnRootMismatch"


def shared_mode(mode: int, *, directory: bool, read_only: bool) -> int:
    """The mode of what a group shares: readable, writable unless nobody writes, and inherited by what is made in it."""
    added = _READ if read_only else _WRITE
    return mode | added | (stat.S_ISGID | _SEARCH if directory else 0)


def give_to_group(volume: Path, group: int, policy: str = "") -> None:
    """Makes all of a volume the group's, links not followed; with OnRootMismatch only if the volume itself is not yet."""
    held = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if policy == ON_MISMATCH and _is_given(held, group):
            return
        for here, name in walk(held):
            _give(here, name, group)
        _give(held, ".", group)  # last: it stands for the whole
    finally:
        os.close(held)


def _is_given(held: int, group: int) -> bool:
    found = os.fstat(held)
    wanted = shared_mode(found.st_mode, directory=True, read_only=False)
    return found.st_gid == group and found.st_mode == wanted


def _give(directory: int, name: str, group: int) -> None:
    try:
        held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return  # it went meanwhile
    try:
        found = os.fstat(held)
        os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            mode = shared_mode(stat.S_IMODE(found.st_mode), directory=stat.S_ISDIR(found.st_mode), read_only=False)
            Path(f"/proc/self/fd/{held}").chmod(mode)
    except FileNotFoundError:
        return
    finally:
        os.close(held)
