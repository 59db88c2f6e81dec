"""Whole trees of directories that somebody else wrote, or writes to meanwhile: walked, measured, removed.

Who may make directories makes them as deep and as full as he likes. So nothing here calls itself, builds a path, holds a handle
for each level, or follows a link; where a directory is moved while its tree is walked, the walk ends.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
BLOCK: Final = 512
MOST: Final = 1_000_000
"""Entries of a tree that are measured: a few seconds."""
_TRIES: Final = 8
"""How often a directory is emptied that somebody still fills."""


def walk(top: int, most: int | None = None) -> Iterator[tuple[int, str]]:
    """Every entry of the tree below the directory ``top``: a handle on the directory that it is in, good until the next is asked
    for, and its name. Ends after ``most`` entries. Raises OSError.
    """
    here, above = os.open(".", _DIRECTORY, dir_fd=top), list[tuple[tuple[int, int], list[str]]]()
    try:
        while True:
            below: list[str] = []
            with os.scandir(here) as entries:
                for entry in islice(entries, most):
                    most = None if most is None else most - 1
                    if _is_directory(entry):
                        below.append(entry.name)
                    yield here, entry.name
            above.append((_identity(here), below))
            following = None
            while following is None:
                while not above[-1][1]:
                    above.pop()
                    upper = _upper(here, above[-1][0]) if above else None
                    if upper is None:
                        return
                    os.close(here)
                    here = upper
                following = _below(here, above[-1][1].pop())
            os.close(here)
            here = following
            if most is not None and most <= 0:
                return
    finally:
        os.close(here)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # it went meanwhile


def _identity(held: int) -> tuple[int, int]:
    found = os.fstat(held)
    return found.st_dev, found.st_ino


def _upper(here: int, wanted: tuple[int, int]) -> int | None:
    """The directory that this one was found in; None where it was moved away since."""
    with suppress(OSError):
        upper = os.open("..", _DIRECTORY, dir_fd=here)
        if _identity(upper) == wanted:
            return upper
        os.close(upper)
    return None


def _below(here: int, name: str) -> int | None:
    with suppress(OSError):
        return os.open(name, _DIRECTORY, dir_fd=here)
    return None  # it went meanwhile


def tree_size(place: Path, most: int = MOST) -> int:
    """Bytes on disk below a directory, links and what they point to not counted; of the first ``most`` entries."""
    return tree_use(place, most)[0]


def tree_use(place: Path, most: int = MOST) -> tuple[int, int]:
    """The same, and how many entries were looked at: each is an inode, or a name of one."""
    total = entries = 0
    try:
        top = os.open(place, _DIRECTORY)
    except OSError:
        return total, entries
    try:
        for here, name in walk(top, most):
            entries += 1
            with suppress(FileNotFoundError):  # it went meanwhile
                found = os.stat(name, dir_fd=here, follow_symlinks=False)
                total += 0 if stat.S_ISDIR(found.st_mode) else found.st_blocks * BLOCK
    except OSError:
        return total, entries
    finally:
        os.close(top)
    return total, entries


def remove_tree(place: Path) -> None:
    """Removes a directory with all that is in it. Directories are first moved up, to right below it, so that none lies deep;
    one that something is mounted on is not entered. Raises OSError.
    """
    top = os.open(place, _DIRECTORY)
    try:
        _Removal(top).run()
    finally:
        os.close(top)
    place.rmdir()


class _Removal:
    """Directories that were moved up are called by numbers, so that no list of them need be kept."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._prefix = f".gone-{secrets.token_hex(8)}-"
        self._raised = 0

    def run(self) -> None:
        self._empty(self._top)
        done = 0
        while done < self._raised:
            self._remove(f"{self._prefix}{done}")
            done += 1

    def _remove(self, name: str) -> None:
        for left in reversed(range(_TRIES)):
            try:
                held = os.open(name, _DIRECTORY, dir_fd=self._top)
                try:
                    self._empty(held)
                finally:
                    os.close(held)
                os.rmdir(name, dir_fd=self._top)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY or not left:
                    raise
            else:
                return

    def _empty(self, directory: int) -> None:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if directory != self._top or not entry.name.startswith(self._prefix):
                        os.rename(
                            entry.name, f"{self._prefix}{self._raised}", src_dir_fd=directory, dst_dir_fd=self._top
                        )
                        self._raised += 1
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(entry.name, dir_fd=directory)
