"""The OpenAPI documents that were asked for of late: shared by content between tenants, bounded, dropped when idle."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LIMIT: Final = 24 * 1024 * 1024
"""Bytes of all documents together; the built-in kinds in every form have about 6 MiB."""
IDLE: Final = 300.0
"""Seconds after which a document that nobody asked for is dropped."""

Key = tuple[str, str]
"""The form of a document, and the digest of what it describes."""


@dataclass(slots=True)
class Document:
    """A document and its entity tag (RFC 9110, section 8.8.3)."""

    body: bytes
    tag: str
    used: float


@dataclass(slots=True)
class Documents:
    """Builds a document when it is first asked for, one at a time, in a thread: building takes memory."""

    limit: int = LIMIT
    idle: float = IDLE
    _held: OrderedDict[Key, Document] = field(default_factory=OrderedDict)
    _building: asyncio.Lock = field(default_factory=asyncio.Lock)
    _timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """How many are held."""
        return len(self._held)

    async def get(self, key: Key, build: Callable[[], bytes]) -> Document:
        """The document under a key, built where it is not held."""
        found = self._use(key)
        if found is not None:
            return found
        async with self._building:
            found = self._use(key)
            if found is None:
                found = await asyncio.to_thread(_make, build)
                self._hold(key, found)
        return found

    def _use(self, key: Key) -> Document | None:
        found = self._held.get(key)
        if found is not None:
            found.used = asyncio.get_running_loop().time()
            self._held.move_to_end(key)
        return found

    def _hold(self, key: Key, document: Document) -> None:
        loop = asyncio.get_running_loop()
        document.used = loop.time()
        self._held[key] = document
        while len(self._held) > 1 and sum(len(d.body) for d in self._held.values()) > self.limit:
            self._held.popitem(last=False)
        if self._timer is None:
            self._timer = loop.call_later(self.idle, self._drop_idle)

    def _drop_idle(self) -> None:
        loop = asyncio.get_running_loop()
        for key in [key for key, document in self._held.items() if loop.time() - document.used >= self.idle]:
            del self._held[key]
        self._timer = None
        if self._held:
            first = next(iter(self._held.values()))
            self._timer = loop.call_later(max(first.used + self.idle - loop.time(), 0.01), self._drop_idle)


def _make(build: Callable[[], bytes]) -> Document:
    body = build()
    return Document(body, f'"{hashlib.sha256(body).hexdigest().upper()}"', 0.0)
