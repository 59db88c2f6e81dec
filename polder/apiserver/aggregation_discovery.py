"""What aggregated APIs serve, for the discovery and OpenAPI documents of their tenants.

It is asked of the other server when somebody asks for a document, and remembered for a moment, bounded. A server that does
not answer is left out: its group versions stay, without resources.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import aiohttp
import orjson

from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.aggregation import Aggregation, Remote
from polder.apiserver.aggregation_proxy import proxy_headers
from polder.apiserver.catalog import Resource
from polder.apiserver.dial import DialError
from polder.apiserver.fairness import away
from polder.apiserver.outcalls import Exchange
from polder.apiserver.types import Identity, Role
from polder.base.clock import Clock
from polder.base.ids import EVERY_TENANT, TenantName

log = logging.getLogger(__name__)

PATIENCE: Final = 3.0
"""Seconds for an answer."""
FRESH: Final = 10.0
"""Seconds for which an answer is remembered."""
REMEMBERED: Final = 256
LIST_LIMIT: Final = 256 * 1024
DOCUMENT_LIMIT: Final = 8 * 1024 * 1024
ROWS_LIMIT: Final = 500
ASKER: Final = Identity("system:aggregator", Role.COMPONENT, groups=("system:masters", "system:authenticated"))


class RemoteDocuments:
    """Asks and remembers."""

    def __init__(self, aggregation: Aggregation, clock: Clock) -> None:
        self._aggregation = aggregation
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, int], tuple[float, tuple[Resource, ...]]] = OrderedDict()

    async def resources(self, tenant: TenantName) -> list[Resource]:
        """What the available remote APIs of a tenant serve."""
        if tenant == EVERY_TENANT:
            return []
        remotes = [r for r in await self._aggregation.all(tenant) if r.available]
        found = await asyncio.gather(*(self._of(tenant, remote) for remote in remotes))
        return [resource for each in found for resource in each]

    async def versions(self, tenant: TenantName) -> list[Remote]:
        """The available remote APIs of a tenant."""
        if tenant == EVERY_TENANT:
            return []
        return [r for r in await self._aggregation.all(tenant) if r.available]

    async def _of(self, tenant: TenantName, remote: Remote) -> tuple[Resource, ...]:
        key = (tenant, remote.found.key.name, remote.found.revision)
        known, now = self._known.get(key), self._clock.monotonic()
        if known is not None and now - known[0] < FRESH:
            return known[1]
        body = await self.fetch(tenant, remote, f"/apis/{remote.group}/{remote.version}", LIST_LIMIT)
        rows = tuple(Resource(kind, read_only=True) for kind in kinds_of(remote, body)) if body else ()
        self._known[key] = (now, rows)
        self._known.move_to_end(key)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return rows

    async def fetch(self, tenant: TenantName, remote: Remote, path: str, limit: int = DOCUMENT_LIMIT) -> bytes:
        """A document of the other server; empty where it gives none."""
        headers = proxy_headers(ASKER)
        headers["Accept"] = "application/json"
        try:
            async with away(), asyncio.timeout(PATIENCE):
                place = await self._aggregation.place(tenant, remote, path)
                async with self._aggregation.outcalls.exchange(
                    place.peer, Exchange("GET", place.path, headers)
                ) as answer:
                    if answer.status != 200:
                        return b""
                    parts, size = [], 0
                    async for chunk in answer.content.iter_any():
                        size += len(chunk)
                        if size > limit:
                            answer.close()
                            return b""
                        parts.append(chunk)
                    return b"".join(parts)
        except (TimeoutError, DialError, aiohttp.ClientError, OSError) as error:
            log.info("tenant %s: %s gives no document: %s", tenant, remote.found.key.name, error)
            return b""


def kinds_of(remote: Remote, body: bytes) -> Sequence[Kind]:
    """The kinds of an APIResourceList; what is malformed is left out."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    listed = said.get("resources") if isinstance(said, dict) else None
    rows = [row for row in listed if isinstance(row, dict)][:ROWS_LIMIT] if isinstance(listed, list) else []
    below: dict[str, list[str]] = {}
    for row in rows:
        name, slash, sub = _text(row, "name").partition("/")
        if slash:
            below.setdefault(name, []).append(sub)
    return [
        _kind(remote, row, tuple(below.get(_text(row, "name"), ()))) for row in rows if "/" not in _text(row, "name")
    ]


def _kind(remote: Remote, row: Raw, below: tuple[str, ...]) -> Kind:
    plural, kind = _text(row, "name"), _text(row, "kind")
    return Kind(
        remote.group, remote.version, kind, plural, _text(row, "singularName") or kind.lower(),
        row.get("namespaced") is True, _texts(row, "shortNames"), _texts(row, "categories"), below,
        stored=False, verbs=_texts(row, "verbs"),
    )  # fmt: skip


def _text(row: Raw, name: str) -> str:
    found: Any = row.get(name)
    return found if isinstance(found, str) else ""


def _texts(row: Raw, name: str) -> tuple[str, ...]:
    found: Any = row.get(name)
    return tuple(each for each in found if isinstance(each, str)) if isinstance(found, list) else ()
