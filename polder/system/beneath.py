"""Paths below a directory that somebody else writes to: looked up by the kernel so that none leads out of it.

openat2(2) with RESOLVE_BENEATH: links within the directory are followed, whatever is renamed meanwhile; one that leads out,
or an absolute one, is an error. Missing directories are made one by one from a handle on their parent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from pathlib import Path, PurePosixPath
from typing import Final

from polder.base.errors import PermanentError

_OPENAT2: Final = 437
_NO_MAGIC_LINKS: Final = 0x02
_BENEATH: Final = 0x08
_RACES: Final = 16
"""How often a look-up that met a rename is begun anew (openat2(2), EAGAIN)."""

_libc = ctypes.CDLL(None, use_errno=True)


class MissingError(PermanentError):
    """There is nothing at the path."""


def open_beneath(root: int, path: str, flags: int) -> int:
    """A handle on a path below the directory ``root``. Raises OSError; EXDEV for one that leads out of it."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, _BENEATH | _NO_MAGIC_LINKS)
    for _ in range(_RACES):
        found = int(_libc.syscall(_OPENAT2, root, os.fsencode(path), how, len(how)))
        if found >= 0:
            return found
        code = ctypes.get_errno()
        if code not in {errno.EAGAIN, errno.EINTR}:
            break
    raise OSError(code, os.strerror(code), path)


def ensure_beneath(directory: Path, path: str) -> int:
    """A handle (O_PATH) on a path below a directory; directories that are missing are made, with the directory's own mode.

    Raises PermanentError for a path that leads out of the directory, and for one that cannot be made.
    """
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _ensure(root, PurePosixPath(path).parts)
    except OSError as error:
        why = "it leads out of the volume" if error.errno == errno.EXDEV else error.strerror
        raise PermanentError(f"path {path!r}: {why}") from error
    finally:
        os.close(root)


def _ensure(root: int, parts: tuple[str, ...]) -> int:
    try:
        return open_beneath(root, str(PurePosixPath(*parts)), os.O_PATH)
    except FileNotFoundError:
        mode = stat.S_IMODE(os.fstat(root).st_mode)
    held = os.dup(root)
    for number, part in enumerate(parts):
        try:
            try:
                below = open_beneath(root, str(PurePosixPath(*parts[: number + 1])), os.O_PATH)
            except FileNotFoundError:
                below = _make(held, part, mode)
        finally:
            os.close(held)
        held = below
    return held


def _make(parent: int, name: str, mode: int) -> int:
    """A new directory, as itself: what took its name meanwhile is not followed."""
    os.mkdir(name, 0o700, dir_fd=parent)
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    Path(f"/proc/self/fd/{held}").chmod(mode)
    return held


def read_beneath(directory: Path, path: str, largest: int) -> bytes:
    """A regular file below a directory. Raises PermanentError for another, one that leads out, and one that is too large."""
    root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        held = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except FileNotFoundError as error:
        raise MissingError(f"file {path!r} does not exist") from error
    except OSError as error:
        why = "it leads out of the volume" if error.errno == errno.EXDEV else error.strerror
        raise PermanentError(f"file {path!r}: {why}") from error
    finally:
        os.close(root)
    with os.fdopen(held, "rb") as file:
        if not stat.S_ISREG(os.fstat(held).st_mode):
            raise PermanentError(f"file {path!r} is no regular file")
        text = file.read(largest + 1)
    if len(text) > largest:
        raise PermanentError(f"file {path!r} has more than {largest} bytes")
    return text
