"""Detachments that the API may not know of yet, on disk before DEL answers."""

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
class Detachment:
    """``sandbox`` does not use ``port`` any more."""

    port: Ref
    sandbox: str


class _Row(msgspec.Struct, frozen=True):
    tenant: str
    namespace: str
    name: str
    sandbox: str


class Journal:
    """One file for each detachment; a file stands until the Port itself says it, or is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._entries = {self._path(entry): entry for entry in self._read()}

    def entries(self) -> list[Detachment]:
        """What stands."""
        return list(self._entries.values())

    def of(self, port: Ref) -> list[Detachment]:
        """What stands of one port."""
        return [entry for entry in self._entries.values() if entry.port == port]

    async def write(self, entry: Detachment) -> None:
        """On disk when this returns. Raises OSError."""
        path = self._path(entry)
        if path not in self._entries:
            await asyncio.to_thread(_write, path, entry)
            self._entries[path] = entry

    def forget(self, entry: Detachment) -> None:
        """The API knows it. (A file that comes back after a power failure is forgotten once more.)"""
        path = self._path(entry)
        path.unlink(missing_ok=True)
        self._entries.pop(path, None)

    def _path(self, entry: Detachment) -> Path:
        return self._folder / f"{quote(entry.sandbox, safe='')}@{quote(str(entry.port), safe='')}"

    def _read(self) -> list[Detachment]:
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
            found.append(Detachment(Ref(TenantName(row.tenant), row.namespace, row.name), row.sandbox))
        return found


def _write(path: Path, entry: Detachment) -> None:
    row = _Row(entry.port.tenant, entry.port.namespace, entry.port.name, entry.sandbox)
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
