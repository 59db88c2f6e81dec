"""The server's own certificates, looked after while it runs: renewed at two thirds of their life, or when an authority is
rolled over, and taken up without a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polder.base.clock import Clock
from polder.base.errors import PermanentError
from polder.client.client import Client
from polder.system.pki import CLIENTS, COMPONENTS, SERVING, Pki

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two looks at the files: a few calls of stat(2)."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What was made anew."""

    serving: bool = False
    components: bool = False
    authorities: bool = False


@dataclass
class ServerCertificates:
    """The files, and what is told when they change. ``reload`` makes the listeners read the serving certificate again,
    ``publish`` writes down for extension servers by which authority our proxy is known; ``clients`` are those of the
    server's own parts.
    """

    pki: Pki
    names: Sequence[str]
    addresses: Sequence[str]
    clock: Clock
    clients: list[Client] = field(default_factory=list)
    reload: Callable[[], None] = lambda: None
    publish: Callable[[], Awaitable[None]] | None = None
    trust_changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def serving(self) -> tuple[Path, Path]:
        """Certificate and key that servers show."""
        return self.pki.directory / "server.crt", self.pki.directory / "server.key"

    def ensure_serving(self) -> tuple[Path, Path]:
        """A fresh one: its names follow the configuration."""
        self.pki.issue_serving(self.names, self.addresses).replace(*self.serving)
        return self.serving

    def component(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of one of the server's own parts, made if they are missing or due."""
        certificate, key = self.pki.directory / f"{name}.crt", self.pki.directory / f"{name}.key"
        if not key.exists() or self.pki.due(CLIENTS, certificate, self.clock.now()):
            self.pki.issue_client(f"system:polder:{name}", [COMPONENTS]).replace(certificate, key)
        return certificate, key

    def renew(self, components: Sequence[str]) -> Changed:
        """One look. Raises PkiError, OSError."""
        authorities, now = self.pki.reload(), self.clock.now()
        serving = self.pki.due(SERVING, self.serving[0], now)
        if serving:
            self.ensure_serving()
        stale = [n for n in components if self.pki.due(CLIENTS, self.pki.directory / f"{n}.crt", now)]
        for name in stale:
            self.component(name)
        return Changed(serving, bool(stale), authorities)

    async def run(self, components: Sequence[str]) -> None:
        """Looks until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(EVERY)
                try:
                    changed = await asyncio.to_thread(self.renew, components)
                except (PermanentError, OSError):
                    log.exception("the certificates could not be looked after")
                    continue
                self.tell(changed, group)

    def tell(self, changed: Changed, group: asyncio.TaskGroup) -> None:
        """Everybody who holds what was made anew."""
        if changed.serving or changed.authorities:
            self.reload()
            log.info("the serving certificate and the trusted authorities are read again")
        if changed.components or changed.authorities:
            for client in tuple(self.clients):
                group.create_task(client.refresh())
        if changed.authorities:
            self.trust_changed.set()
            group.create_task(self._publish())

    async def _publish(self) -> None:
        if self.publish is not None:
            await self.publish()
