"""Directories of Polder's own driver: what claims' volumes hold on this node.

``STORAGE/TENANT.UID/HANDLE``: by the tenant's UID, so that a later tenant of the same name finds nothing. One that is
given up is renamed first and removed in its own time, also after a restart.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from polder.api.meta import Raw
from polder.base.errors import PermanentError, RetryableError
from polder.base.ids import ROOT, TenantName
from polder.client.mux import Stream
from polder.system.trees import remove_tree

log = logging.getLogger(__name__)

DRIVER: Final = "local.polder.dev"
DISCARDED: Final = b"discarded"
"""What is answered when a directory is given up, or was none."""
_HANDLE: Final = re.compile(r"[a-z0-9][-a-z0-9.]{0,252}")
_GONE: Final = ".gone-"
_DRAFT: Final = "+"
"""Before the handle, which is no longer than a name may be less one."""

UidOf = Callable[[TenantName], str]
"""A tenant's UID; empty while this node does not know the tenant."""


@dataclass(slots=True)
class Held:
    """A volume's directory since a pod has mounted it: what its claim asks for in bytes, and the pods (UIDs) that have it."""

    tenant: TenantName
    place: Path
    asked: int = 0
    pods: set[str] = field(default_factory=set)


class Storage:
    """The directories. ``uid_of`` tells tenants apart that follow each other under one name."""

    def __init__(self, base: Path, uid_of: UidOf) -> None:
        self._base = base
        self._uid_of = uid_of
        self._making = threading.Lock()
        self._held: dict[Path, Held] = {}
        self._given_up = asyncio.Event()
        self._given_up.set()

    def directory(self, tenant: TenantName, handle: str) -> Path:
        """The directory of a volume, made if it is not there. Raises PermanentError for a handle that is no name,
        RetryableError while the tenant is not known.
        """
        _check(handle)
        uid = ROOT if tenant == ROOT else self._uid_of(tenant)
        if not uid:
            raise RetryableError(f"tenant {tenant} is not known on this node yet")
        place = self._base / f"{tenant}.{uid}" / handle
        with self._making:
            if not place.is_dir():
                for parent in (self._base, place.parent):
                    parent.mkdir(mode=0o711, parents=True, exist_ok=True)
                _make(place)
        return place

    def hold(self, pod: tuple[TenantName, str], place: Path, asked: int) -> None:
        """Notes that a pod (tenant, UID) has a directory, and what the claim asks for: of several, the most."""
        tenant, uid = pod
        held = self._held.setdefault(place, Held(tenant, place))
        held.asked = max(held.asked, asked)
        held.pods.add(uid)

    def release(self, uid: str) -> None:
        """Notes that a pod is gone. What it filled stays."""
        for held in list(self._held.values()):
            held.pods.discard(uid)

    def held(self) -> list[Held]:
        """The directories that a pod has, or had since this agent started."""
        return list(self._held.values())

    def discard(self, tenant: str, handle: str) -> None:
        """Gives a volume's directory up; none there is no error. Raises PermanentError."""
        _check(handle)
        for place in self._base.glob(f"{tenant}.*"):
            if (place / handle).is_dir() and place.name.rpartition(".")[0] == tenant:
                (place / handle).rename(place / f"{_GONE}{secrets.token_hex(8)}")
                self._held.pop(place / handle, None)
        self._given_up.set()

    async def serve(self, header: Raw, stream: Stream) -> None:
        """The server asks that a volume be given up."""
        tenant, handle = header.get("tenant"), header.get("handle")
        if not (isinstance(tenant, str) and _HANDLE.fullmatch(tenant) and isinstance(handle, str)):
            await stream.reset("a volume is named by tenant and handle")
            return
        try:
            await asyncio.to_thread(self.discard, tenant, handle)
        except (PermanentError, OSError) as error:
            await stream.reset(f"volume {handle} was not given up: {error}")
            return
        await stream.write(DISCARDED)

    async def run(self) -> None:
        """Removes what was given up, until cancelled."""
        while True:
            await self._given_up.wait()
            self._given_up.clear()
            for place in list(self._base.glob(f"*/{_GONE}*")):
                try:
                    await asyncio.to_thread(remove_tree, place)
                except OSError as error:
                    log.warning("%s was not removed: %s", place, error)


def _make(place: Path) -> None:
    """It appears with its rights: whoever finds it later leaves them as they are, since they are the tenant's to change."""
    draft = place.with_name(f"{_DRAFT}{place.name}")
    draft.mkdir(exist_ok=True)
    draft.chmod(0o777)
    draft.rename(place)


def _check(handle: str) -> None:
    if not _HANDLE.fullmatch(handle):
        raise PermanentError(f"volumeHandle {handle!r} is no name of a volume of {DRIVER}")
