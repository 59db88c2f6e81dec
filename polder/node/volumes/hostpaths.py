"""hostPath: a path of the node, for pods of the platform."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from polder.base.errors import PermanentError

_KINDS: Final = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}
_MADE: Final = {"DirectoryOrCreate": "Directory", "FileOrCreate": "File"}


def host_path(text: str, kind: str) -> Path:
    """The path, checked against its type; with an ``OrCreate`` type it is made. Raises PermanentError."""
    path = Path(text)
    if ".." in path.parts:
        raise PermanentError(f"hostPath {text} must not contain '..'")
    if kind in _MADE and not path.exists():
        _make(path, kind)
    wanted = _MADE.get(kind, kind)
    if not wanted:
        return path
    if wanted not in _KINDS:
        raise PermanentError(f"hostPath type {kind!r} is not known")
    is_kind, words = _KINDS[wanted]
    try:
        found = is_kind(path.stat().st_mode)
    except OSError:
        found = False
    if not found:
        raise PermanentError(f"hostPath type check failed: {text} is not a {words}")
    return path


def _make(path: Path, kind: str) -> None:
    try:
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, mode=0o755)
        else:
            path.touch(mode=0o644)
    except OSError as error:
        raise PermanentError(f"hostPath {path} cannot be made: {error.strerror}") from error
