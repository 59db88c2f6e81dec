"""The last topology on disk, so that an agent that starts without the API knows what stands and can take away.

A log of lines ``+ PART`` and ``- KIND TENANT NAME`` (canonical text), compacted when it is opened and when it has grown. It
need not survive a power failure, since the kernel state that it describes does not either: nothing is synced to disk.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TextIO

from polder.sdn.render.linux.desired import PartKey, key_of
from polder.sdn.topology.lines import LineError, dump_line
from polder.sdn.topology.text import parse_part
from polder.sdn.topology.types import Part

log = logging.getLogger(__name__)

SLACK = 4096
"""Lines beyond twice the parts before the log is written anew."""
ROOM = 8 << 20
"""Characters beyond twice those of the parts: a service's line is as long as it has backends."""


class SavedTopology:
    """The parts of one node in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh = path.with_name(path.name + ".new")
        self._parts: dict[PartKey, Part] = self._read()
        self._lines = self._size = self._compacted = 0
        self._file: TextIO = self._compact()

    @property
    def parts(self) -> Mapping[PartKey, Part]:
        """What is saved."""
        return self._parts

    async def write(self, changes: list[tuple[PartKey, Part | None]], pause: Callable[[], Awaitable[None]]) -> None:
        """Add changes (None: gone), of which each leaves ``changes`` when it is written, with a pause after each: a part is as
        long as it has members. One call at a time. Raises OSError.
        """
        while changes:
            self._write(*changes[0])
            del changes[0]
            await pause()
        if self._lines > 2 * len(self._parts) + SLACK or self._size > 2 * self._compacted + ROOM:
            with self._fresh.open("w") as file:
                size = 0
                for part in self._parts.values():
                    size += file.write(_line(part))
                    await pause()
            self._file.close()
            self._file = self._renewed(size)

    def _write(self, key: PartKey, part: Part | None) -> None:
        if part is None:
            self._parts.pop(key, None)
        else:
            self._parts[key] = part
        self._size += self._file.write(_line(part) if part is not None else f"- {' '.join(key)}\n")
        self._file.flush()
        self._lines += 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _read(self) -> dict[PartKey, Part]:
        parts: dict[PartKey, Part] = {}
        text = self._path.read_text() if self._path.exists() else ""
        for line in text.splitlines():
            sign, _, rest = line.partition(" ")
            try:
                if sign == "+":
                    part = parse_part(rest)
                    parts[key_of(part)] = part
                elif sign == "-":
                    parts.pop(PartKey(*rest.split(" ")), None)
            except (LineError, TypeError) as error:
                log.warning("saved topology %s: a line is left out: %s", self._path, error)
        return parts

    def _compact(self) -> TextIO:
        self._fresh.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._renewed(self._fresh.write_text("".join(_line(part) for part in self._parts.values())))

    def _renewed(self, size: int) -> TextIO:
        """What was written beside it takes the log's place."""
        self._fresh.replace(self._path)
        self._size = self._compacted = size
        self._lines = len(self._parts)
        return self._path.open("a")


def _line(part: Part) -> str:
    return f"+ {dump_line(part)}\n"
