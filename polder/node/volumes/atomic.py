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

DATA = "..data"


@dataclass(frozen=True, slots=True)
class FileSpec:
    """One file."""

    content: bytes
    mode: int = 0o644


def check_path(path: str) -> None:
    """Raises PermanentError for a path that would leave the volume or meet our own names."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise PermanentError(f"path {path!r} in a volume must be relative and must not contain '..'")


def _same(directory: Path, files: Mapping[str, FileSpec]) -> bool:
    held = {str(p.relative_to(directory)) for p in directory.rglob("*") if not p.is_dir()}
    if held != {str(PurePosixPath(name)) for name in files}:
        return False
    for name, spec in files.items():
        path = directory / name
        if path.read_bytes() != spec.content or path.stat().st_mode & 0o7777 != spec.mode:
            return False
    return True


def ensure_files(volume: Path, files: Mapping[str, FileSpec], group: int | None = None) -> bool:
    """Makes the volume hold exactly these files; answers whether anything changed. ``group``: fsGroup."""
    for name in files:
        check_path(name)
    link = volume / DATA
    if link.is_dir() and _same(link, files):
        return False
    made = Path(tempfile.mkdtemp(dir=volume, prefix="..v"))
    made.chmod(0o755)
    for name, spec in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(spec.content)
        path.chmod(spec.mode)
        if group is not None:
            os.chown(path, -1, group)
    draft = volume / "..data_new"
    draft.unlink(missing_ok=True)
    draft.symlink_to(made.name)
    draft.rename(link)
    _relink(volume, {PurePosixPath(name).parts[0] for name in files})
    _sweep(volume, made.name)
    return True


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
