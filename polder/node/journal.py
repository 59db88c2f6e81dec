"""Who uses each Port of this node, on disk before ADD or DEL answers; the API is told afterwards.

One file to whose end lines are written, for that is the fastest that a disk can hold something: a tenth of making a file.
The last line of a Port counts. It is written anew, with what stands, at each start and when it has grown.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.base.ids import TenantName
from polder.base.ref import Ref

log = logging.getLogger(__name__)

GROWN = 1 << 20
"""Bytes from which on the file is written anew."""


@dataclass(frozen=True, slots=True)
class Use:
    """What the last call for ``port`` left: the sandbox that uses it and its link, or nobody."""

    port: Ref
    sandbox: str = ""
    netns: str = ""
    link: str = ""


class _Row(msgspec.Struct, frozen=True, omit_defaults=True):
    tenant: str
    namespace: str
    name: str
    sandbox: str = ""
    netns: str = ""
    link: str = ""
    known: bool = False
    """The API knows it, so that it does not stand any more."""


class Journal:
    """Of each Port the last use that the API does not know yet. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path, grown: int = GROWN) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path, self._grown = folder / "uses", grown
        self._uses = _read(self._path)
        self._writing = 0
        self._fd = -1
        self._renew()

    def uses(self) -> list[Use]:
        """What stands."""
        return list(self._uses.values())

    def of(self, port: Ref) -> Use | None:
        """What stands of one port."""
        return self._uses.get(port)

    async def write(self, use: Use) -> None:
        """On disk, in place of what was there of the port, when this returns. Raises OSError."""
        if self._uses.get(use.port) == use:
            return
        self._writing += 1
        try:
            await asyncio.to_thread(_append, self._fd, _line(use), os.RWF_DSYNC)
        finally:
            self._writing -= 1
        self._uses[use.port] = use

    def forget(self, port: Ref) -> None:
        """The API knows it. (What comes back after a power failure is forgotten once more.)"""
        if self._uses.pop(port, None) is None:
            return
        try:
            _append(self._fd, _line(Use(port), known=True), 0)
            if not self._writing and os.fstat(self._fd).st_size > self._grown:
                self._renew()
        except OSError as error:
            log.warning("journal: %s is not noted as known: %s", port, error)

    def _renew(self) -> None:
        """Whole or not at all."""
        fresh = self._path.with_name(f".{self._path.name}")
        with fresh.open("wb") as file:
            file.write(b"".join(_line(use) for use in self._uses.values()))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        before, self._fd = self._fd, os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if before >= 0:
            os.close(before)


def _line(use: Use, *, known: bool = False) -> bytes:
    """It begins with the line's end, so that one that was cut off spoils none but itself."""
    port = use.port
    row = _Row(port.tenant, port.namespace, port.name, use.sandbox, use.netns, use.link, known)
    return b"\n" + msgspec.json.encode(row)


def _append(fd: int, line: bytes, flags: int) -> None:
    if os.pwritev(fd, [line], 0, flags) != len(line):  # O_APPEND: the offset does not count
        raise OSError(errno.ENOSPC, "a line was written in part")


def _read(path: Path) -> dict[Ref, Use]:
    found: dict[Ref, Use] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else []:
        if not line:
            continue
        try:
            row = msgspec.json.decode(line, type=_Row)
        except msgspec.DecodeError as error:
            log.warning("journal: a line of %s is no entry and is left out: %s", path, error)
            continue
        port = Ref(TenantName(row.tenant), row.namespace, row.name)
        if row.known:
            found.pop(port, None)
        else:
            found[port] = Use(port, row.sandbox, row.netns, row.link)
    return found
