"""Audit events on disk: a directory per tenant, files of JSON lines that are rotated. One thread writes; the loop never waits.

What the thread has taken is with the kernel at once, so that ``kill -9`` loses only the lines of the last moments. Lines
that the disk is too slow for are counted and dropped: an audit that stops the API would be a tenant's weapon.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from polder.api.names import dns_subdomain

log = logging.getLogger(__name__)

CURRENT: Final = "audit.log"


@dataclass(frozen=True, slots=True)
class AuditFileSettings:
    """Bounds: bytes of a file before the next is begun, how many older ones are kept for a tenant, how many files are open,
    how many bytes may wait for the disk.
    """

    directory: Path
    max_bytes: int = 16 << 20
    kept: int = 4
    open_files: int = 64
    waiting_bytes: int = 32 << 20


class AuditFiles:
    """The files of all tenants."""

    def __init__(self, settings: AuditFileSettings) -> None:
        self._settings = settings
        self._open: OrderedDict[str, int] = OrderedDict()
        self._lines: list[tuple[str, bytes]] = []
        self._size = 0
        self._dropped = 0
        self._ended = False
        self._complained = False
        self._wake = threading.Condition()
        settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._dropped

    def put(self, tenant: str, line: bytes) -> None:
        """Takes one line for a tenant's file. Never waits."""
        with self._wake:
            if self._ended or self._size + len(line) > self._settings.waiting_bytes:
                self._dropped += 1
                return
            self._lines.append((tenant, line))
            self._size += len(line)
            self._wake.notify()

    def close(self) -> None:
        """Writes what waits and ends the thread."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._ended:
                    self._wake.wait()
                lines, self._lines, self._size = self._lines, [], 0
                ended = self._ended
            by_tenant: dict[str, list[bytes]] = {}
            for tenant, line in lines:
                by_tenant.setdefault(tenant, []).append(line)
            for tenant, found in by_tenant.items():
                self._write(tenant, found)
            if ended and not lines:
                break
        for number in self._open.values():
            os.close(number)
        self._open.clear()

    def _write(self, tenant: str, lines: list[bytes]) -> None:
        data = memoryview(b"".join(lines))
        try:
            number = self._file(tenant)
            while data:
                data = data[os.write(number, data) :]
            if os.fstat(number).st_size >= self._settings.max_bytes:
                self._rotate(tenant)
        except OSError as error:
            self._dropped += len(lines)
            if not self._complained:
                log.error("audit events of tenant %s are lost: %s", tenant, error)  # noqa: TRY400 - no defect of ours
            self._complained = True
            return
        self._complained = False

    def _file(self, tenant: str) -> int:
        number = self._open.get(tenant)
        if number is None:
            if dns_subdomain(tenant):
                raise OSError(errno.EINVAL, "it has a name that no tenant has")
            folder = self._settings.directory / tenant
            folder.mkdir(exist_ok=True, mode=0o700)
            number = os.open(folder / CURRENT, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._open[tenant] = number
            if len(self._open) > self._settings.open_files:
                os.close(self._open.popitem(last=False)[1])
        self._open.move_to_end(tenant)
        return number

    def _rotate(self, tenant: str) -> None:
        """``audit.log`` becomes ``audit.log.1``, that becomes ``.2``, and so on; the oldest goes."""
        os.close(self._open.pop(tenant))
        folder = self._settings.directory / tenant
        for number in range(self._settings.kept, 0, -1):
            older = folder / f"{CURRENT}.{number}"
            newer = folder / (f"{CURRENT}.{number - 1}" if number > 1 else CURRENT)
            if newer.exists():
                newer.replace(older)
        if not self._settings.kept:
            (folder / CURRENT).unlink()


def files_of(directory: Path, tenant: str) -> list[Path]:
    """A tenant's files, the oldest first."""
    folder = directory / tenant
    older = sorted(folder.glob(f"{CURRENT}.*"), key=lambda path: -int(path.suffix[1:]))
    return [*older, folder / CURRENT] if (folder / CURRENT).exists() else older
