"""The last topology on disk, so that an agent that starts without the API knows what stands and can take away.

A log of lines ``+ PART`` and ``- KIND TENANT NAME`` (canonical text), compacted when it is opened and when it has grown. It
need not survive a power failure, since the kernel state that it describes does not either: nothing is synced to disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
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
        self._parts: dict[PartKey, Part] = self._read()
        self._lines = self._size = self._compacted = 0
        self._file: TextIO = self._compact()

    @property
    def parts(self) -> Mapping[PartKey, Part]:
        """What is saved."""
        return self._parts

    def write(self, changes: Iterable[tuple[PartKey, Part | None]]) -> None:
        """Add changes (None: gone). Raises OSError."""
        for key, part in changes:
            if part is None:
                self._parts.pop(key, None)
                line = "- " + " ".join(key)
            else:
                self._parts[key] = part
                line = "+ " + dump_line(part)
            self._file.write(line + "\n")
            self._lines += 1
            self._size += len(line)
        self._file.flush()
        if self._lines > 2 * len(self._parts) + SLACK or self._size > 2 * self._compacted + ROOM:
            self._file.close()
            self._file = self._compact()

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
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._size = self._compacted = fresh.write_text(
            "".join(f"+ {dump_line(part)}\n" for part in self._parts.values())
        )
        fresh.replace(self._path)
        self._lines = len(self._parts)
        return self._path.open("a")
