"""Keeps container logs small: a log that has grown is put aside and the runtime begins a new one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from polder.system.cri import UID_LABEL, CriClient
from polder.system.cri_types import ContainerState, RuntimeFailureError

log = logging.getLogger(__name__)

EVERY = 10.0
SIZE = 10 << 20
KEPT = 4
"""Logs put aside per container, besides the one that grows (upstream: 5 files of 10 MiB)."""


@dataclass(frozen=True, slots=True)
class LogRotation:
    """Rotates the logs below ``root``; ``size`` in bytes."""

    root: Path
    cri: CriClient
    size: int = SIZE

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await self.rotate()
            except (RuntimeFailureError, OSError) as error:
                log.info("logs were not rotated: %s", error)

    async def rotate(self) -> int:
        """One pass; answers how many logs were put aside."""
        grown = await asyncio.to_thread(self._grown)
        if not grown:
            return 0
        writers = {
            (c.labels.get(UID_LABEL, ""), c.name, c.attempt): c.id
            for c in await self.cri.list_containers()
            if c.state == ContainerState.RUNNING
        }
        rotated = 0
        for path in grown:
            uid = path.parent.parent.name.rsplit("_", 1)[-1]
            writer = writers.get((uid, path.parent.name, int(path.stem)))
            if writer is not None:
                rotated += await self._rotate_one(path, writer)
        return rotated

    async def _rotate_one(self, path: Path, writer: str) -> bool:
        """Whether the runtime began a new log; else the old one, which goes on growing, keeps its name."""
        await asyncio.to_thread(_put_aside, path)
        try:
            await self.cri.reopen_log(writer)
        except RuntimeFailureError as error:
            log.info("log %s was not rotated: %s", path, error)
            await asyncio.to_thread(_take_back, path)
            return False
        return True

    def _grown(self) -> list[Path]:
        found = []
        for path in self.root.glob("*/*/*.log"):
            try:
                if path.stem.isdigit() and path.stat().st_size > self.size:
                    found.append(path)
            except OSError:
                continue  # its pod went meanwhile
        return found


def _put_aside(path: Path) -> None:
    for number in range(KEPT, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number}"))
    path.rename(path.with_name(f"{path.name}.1"))


def _take_back(path: Path) -> None:
    if not path.exists():
        path.with_name(f"{path.name}.1").rename(path)
