"""Who uses each Port of this node, on disk before ADD or DEL answers; the API is told afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import msgspec

from polder.base.ids import TenantName
from polder.base.ref import Ref

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Use:
    """What the last call for ``port`` left: the sandbox that uses it and its link, or nobody."""

    port: Ref
    sandbox: str = ""
    netns: str = ""
    link: str = ""


class _Row(msgspec.Struct, frozen=True):
    tenant: str
    namespace: str
    name: str
    sandbox: str
    netns: str
    link: str


class Journal:
    """One file for each Port of which the API does not know the last use yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._uses = {use.port: use for use in self._read()}

    def uses(self) -> list[Use]:
        """What stands."""
        return list(self._uses.values())

    def of(self, port: Ref) -> Use | None:
        """What stands of one port."""
        return self._uses.get(port)

    async def write(self, use: Use) -> None:
        """On disk, in place of what was there of the port, when this returns. Raises OSError."""
        if self._uses.get(use.port) != use:
            await asyncio.to_thread(_write, self._path(use.port), use)
            self._uses[use.port] = use

    def forget(self, port: Ref) -> None:
        """The API knows it. (A file that comes back after a power failure is forgotten once more.)"""
        if self._uses.pop(port, None) is not None:
            self._path(port).unlink(missing_ok=True)

    def _path(self, port: Ref) -> Path:
        return self._folder / quote(str(port), safe="")

    def _read(self) -> list[Use]:
        found = []
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                path.unlink()
                continue
            try:
                row = msgspec.json.decode(path.read_bytes(), type=_Row)
            except msgspec.DecodeError as error:
                log.warning("journal: %s is no entry and is left out: %s", path, error)
                continue
            port = Ref(TenantName(row.tenant), row.namespace, row.name)
            found.append(Use(port, row.sandbox, row.netns, row.link))
        return found


def _write(path: Path, use: Use) -> None:
    row = _Row(use.port.tenant, use.port.namespace, use.port.name, use.sandbox, use.netns, use.link)
    fresh = path.with_name(f".{path.name}")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(row))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
