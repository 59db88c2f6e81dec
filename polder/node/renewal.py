"""The agent keeps its own certificate and its trust fresh: it asks the server every hour, and renews when it is told to."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from polder.api.errors import ApiError
from polder.client.client import Client
from polder.client.errors import UnreachableError
from polder.system.pki import NODE_PREFIX, NODES, Leaf, PkiError, new_request, pin_of, write_private

log = logging.getLogger(__name__)

PATH = "/polder/v1/certificates"
EVERY = 3600.0
"""Seconds between two questions; after one that was not answered, a tenth of that."""


@dataclass(frozen=True, slots=True)
class Files:
    """Where things are: the authority that servers are trusted by, our certificate and its key."""

    authority: Path
    certificate: Path
    key: Path


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says: by which authorities (PEM) it is trusted, and whether our certificate should be renewed."""

    authority: str
    renew: bool = False


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that the server signed (PEM)."""

    certificate: str
    authority: str


Refresh = Callable[[], Awaitable[None]]
"""Makes connections read the files again; may last for minutes."""


class Renewal:
    """Runs beside the agent."""

    def __init__(self, node: str, address: str, files: Files, client: Client) -> None:
        self._node = node
        self._address = address
        self._files = files
        self._client = client
        self._refreshing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Asks until cancelled."""
        try:
            while True:
                pause = EVERY
                try:
                    await self.once()
                except (ApiError, UnreachableError, PkiError, OSError, msgspec.MsgspecError) as error:
                    log.warning("the certificate could not be looked after: %s", error)
                    pause = EVERY / 10
                await asyncio.sleep(pause * random.uniform(0.9, 1.0))  # noqa: S311 - spreads load, hides nothing
        finally:
            for task in self._refreshing:
                task.cancel()
            await asyncio.gather(*self._refreshing, return_exceptions=True)

    async def once(self) -> bool:
        """One look; says whether files changed. Raises ApiError, UnreachableError, PkiError, OSError, MsgspecError."""
        trust = msgspec.json.decode(await self._client.raw("GET", PATH), type=Trust)
        changed = self._trust(trust.authority)
        if trust.renew:
            await self._renew()
            changed = True
        if changed:
            task = asyncio.ensure_future(self._client.refresh())
            self._refreshing.add(task)
            task.add_done_callback(self._refreshing.discard)
        return changed

    def _trust(self, authority: str) -> bool:
        """Takes up the authorities that the server, whom we trust, names."""
        pin_of(authority.encode())  # it can be read
        if self._files.authority.read_text() == authority:
            return False
        write_private(self._files.authority, authority.encode())
        log.info("servers are trusted by other authorities now")
        return True

    async def _renew(self) -> None:
        asked = new_request(f"{NODE_PREFIX}{self._node}", (NODES,), (self._address,))
        body = msgspec.json.encode({"request": asked.certificate.decode()})
        signed = msgspec.json.decode(await self._client.raw("POST", PATH, body), type=Signed)
        Leaf(signed.certificate.encode(), asked.key).replace(self._files.certificate, self._files.key)
        log.info("the certificate of node %s is renewed", self._node)
