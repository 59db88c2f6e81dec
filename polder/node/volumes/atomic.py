"""Files of a volume that change all at once, as pods expect: a symbolic link to one of two directories is turned.

The layout is upstream's (``..data`` → ``..STAMP``, each first path component a link into ``..data``), since programs
watch for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from polder.base.errors import PermanentError
from polder.node.volumes.ownership import shared_mode

DATA = "..data"


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file. ``owner``: root where it is None."""

    content: bytes
    mode: int = 0o644
    owner: int | None = None


def check_path(path: str) -> None:
    """Raises PermanentError for a path that would leave the volume or meet our own names."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise PermanentError(f"path {path!r} in a volume must be relative and must not contain '..'")


def _same(directory: Path, files: Mapping[str, FileSpec], group: int | None) -> bool:
    held = {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}
    if held != {str(PurePosixPath(name)) for name in files}:
        return False
    for name, spec in files.items():
        path = directory / name
        found = path.stat()
        if path.read_bytes() != spec.content or found.st_mode & 0o7777 != _mode(spec, group):
            return False
        if (spec.owner is not None and found.st_uid != spec.owner) or (group is not None and found.st_gid != group):
            return False
    return True


def _mode(spec: FileSpec, group: int | None) -> int:
    return spec.mode if group is None else shared_mode(spec.mode, directory=False, read_only=True)


def ensure_files(volume: Path, files: Mapping[str, FileSpec], group: int | None = None) -> bool:
    """Makes the volume hold exactly these files; answers whether anything changed. ``group``: fsGroup."""
    for name in files:
        check_path(name)
    link = volume / DATA
    if link.is_dir() and _same(link, files, group):
        return False
    made = Path(tempfile.mkdtemp(dir=volume, prefix="..v"))
    try:
        made.chmod(0o755)
        for name, spec in files.items():
            _write(made / name, spec, group)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        raise
    draft = volume / "..data_new"
    draft.unlink(missing_ok=True)
    draft.symlink_to(made.name)
    draft.rename(link)
    _relink(volume, {PurePosixPath(name).parts[0] for name in files})
    _sweep(volume, made.name)
    return True


def _write(path: Path, spec: FileSpec, group: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(spec.content)
    if spec.owner is not None or group is not None:
        os.chown(path, -1 if spec.owner is None else spec.owner, -1 if group is None else group)
    path.chmod(_mode(spec, group))


def _relink(volume: Path, wanted: set[str]) -> None:
    for name in wanted:
        visible = volume / name
        if not visible.is_symlink():
            visible.symlink_to(f"{DATA}/{name}")
    for entry in volume.iterdir():
        if not entry.name.startswith("..") and entry.name not in wanted:
            entry.unlink()


def _sweep(volume: Path, current: str) -> None:
    """Older versions, and what a killed agent left behind."""
    for entry in volume.iterdir():
        if entry.name.startswith("..v") and entry.name != current:
            shutil.rmtree(entry)
