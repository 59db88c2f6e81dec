"""Mounts of the host: list, make, and undo everything below a directory."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from polder.base.errors import PermanentError

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
_MOUNT_SETATTR = 442
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 1

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo (proc(5)), as far as it is used."""

    target: Path
    kind: str
    source: str


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def observe_mounts() -> list[Mount]:
    """All mounts of this mount namespace, oldest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        kind, source, *_ = after.split(" ")
        found.append(Mount(Path(_unescape(before.split(" ")[4])), kind, _unescape(source)))
    return found


def mount(source: str, target: Path, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises PermanentError with the kernel's reason."""
    code = _libc.mount(source.encode(), bytes(target), kind.encode(), flags, data.encode() or None)
    if code != 0:
        number = ctypes.get_errno()
        raise PermanentError(f"mounting {kind} at {target} failed: {os.strerror(number)}")


def make_read_only(target: Path) -> None:
    """Makes a mount and all mounts below it read-only (mount_setattr(2), Linux 5.12). Raises PermanentError."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    if _libc.syscall(_MOUNT_SETATTR, -1, bytes(target), _AT_RECURSIVE, attributes, len(attributes)) != 0:
        number = ctypes.get_errno()
        raise PermanentError(f"making {target} read-only failed: {os.strerror(number)}")


def unmount(target: Path) -> None:
    """Takes one mount away, lazily when it is in use; none there is no error."""
    for flags in (0, MNT_DETACH):
        if _libc.umount2(bytes(target), flags) == 0:
            return
        number = ctypes.get_errno()
        if number in {errno.EINVAL, errno.ENOENT}:
            return
        if number != errno.EBUSY:
            raise PermanentError(f"unmounting {target} failed: {os.strerror(number)}")


def unmount_below(directory: Path) -> int:
    """Takes away all mounts at and below a directory, youngest first; answers how many there were."""
    root = Path(os.path.realpath(directory))
    below = [m.target for m in observe_mounts() if m.target == root or root in m.target.parents]
    for target in reversed(below):
        unmount(target)
    return len(below)


def overlay_works(directory: Path) -> bool:
    """Whether overlayfs can be mounted with its layers in this directory's filesystem."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="overlay-check-") as made:
        base = Path(made)
        for name in ("lower", "upper", "work", "merged"):
            (base / name).mkdir()
        options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
        try:
            mount("overlay", base / "merged", "overlay", 0, options)
        except PermanentError:
            return False
        unmount(base / "merged")
    return True
