"""What the platform's administrator does to the store of a running server, below ``/polder/v1/``:

- ``GET backup[?tenant=NAME]``: the file (see ``store/backup.py``), streamed;
- ``POST restore?tenant=NAME`` with a file that holds one tenant: makes that tenant, under this name, out of it;
- ``POST secrets/reseal``: reads the keyring anew and writes every value that is not sealed with its newest key.

To everybody else these paths do not exist.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from polder.api.errors import ApiError, already_exists, bad_request, no_such_path, not_found
from polder.api.names import dns_label
from polder.apiserver.answers import raw_answer
from polder.apiserver.hooks import Call, Handler
from polder.apiserver.objects import INDEXER
from polder.apiserver.tenancy import TENANT_KIND, tenant_key
from polder.apiserver.tenant_copy import Copy, Stored
from polder.apiserver.types import Role
from polder.base.clock import Clock, stamp
from polder.base.ids import ROOT, TenantName
from polder.store.backup import BackupError, Row, check, read_store, rows_of
from polder.store.protocol import ConflictError, Store
from polder.store.restore import write_missing
from polder.store.sealed import SealedStore
from polder.system.pki.sealing import SealError

log = logging.getLogger(__name__)

FILE_LIMIT: Final = 8 << 30
"""Bytes of a tenant's file."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Serves these paths. ``store`` is the server's own, without projections; ``spool`` a folder for files that come in."""

    store: Store
    clock: Clock
    spool: Path

    @property
    def paths(self) -> Mapping[str, Handler]:
        """By path."""
        return {
            "/polder/v1/backup": self.backup,
            "/polder/v1/restore": self.restore,
            "/polder/v1/secrets/reseal": self.reseal,
        }

    def _check(self, call: Call, verb: str) -> None:
        if call.who.role is not Role.PLATFORM_ADMIN or call.info.tenant != ROOT:
            raise no_such_path()
        if call.info.verb != verb:
            raise ApiError(405, "MethodNotAllowed", f"{call.request.method} is not allowed on {call.info.path}")

    async def backup(self, call: Call) -> web.StreamResponse:
        """Streams a backup. Raises ApiError 404."""
        self._check(call, "get")
        name = call.query.get("tenant", "")
        row = tenant_key(TenantName(name)) if name else None
        if row is not None and await self.store.get(row) is None:
            raise not_found(TENANT_KIND, name)
        response = web.StreamResponse(headers={"Content-Type": "application/gzip"})
        response.enable_chunked_encoding()
        raw = self.store.inner if isinstance(self.store, SealedStore) else self.store
        async with aclosing(read_store(raw, row, stamp(self.clock.now()))) as chunks:
            await response.prepare(call.request)
            async for chunk in chunks:
                if chunk:
                    await response.write(chunk)
        await response.write_eof()
        return response

    async def restore(self, call: Call) -> web.StreamResponse:
        """Makes a tenant out of a file. Raises ApiError 400, 409, 413."""
        self._check(call, "post")
        name = call.query.get("tenant", "")
        if dns_label(name) or name == ROOT:
            raise bad_request(f"tenant: {name!r} cannot be the name of a tenant")
        with tempfile.NamedTemporaryFile(dir=self.spool, prefix=".restore.") as file:
            size = 0
            async for chunk in call.request.content.iter_chunked(1 << 20):
                size += len(chunk)
                if size > FILE_LIMIT:
                    raise ApiError(413, "RequestEntityTooLarge", f"a tenant's backup is limited to {FILE_LIMIT} bytes")
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(file.flush)
            return await self._restore(TenantName(name), Path(file.name))

    async def _restore(self, name: TenantName, path: Path) -> web.StreamResponse:
        try:
            summary = await asyncio.to_thread(check, path)
            if not summary.header.tenant:
                raise bad_request("the backup is of the whole cluster; restore it into a stopped server")
            stored = await asyncio.to_thread(self._stored, path)
        except (BackupError, SealError) as problem:
            raise bad_request(str(problem)) from problem
        await self._check_free(name)
        puts = await asyncio.to_thread(lambda: Copy.of(name, stored).puts(stored))
        try:
            count = await write_missing(self.store, puts)
        except ConflictError as lost:
            raise already_exists(TENANT_KIND, name) from lost
        log.info("tenant %s was restored out of a backup of %s: %d rows", name, summary.header.tenant, count)
        return raw_answer({"tenant": name, "from": summary.header.tenant, "rows": count})

    def _stored(self, path: Path) -> list[Stored]:
        return [(row.key, self._opened(row)) for row in rows_of(path)]

    def _opened(self, row: Row) -> bytes:
        """Raises SealError, StoreFailedError where the keyring cannot open a value."""
        return self.store.seals.open(row.key, row.value) if isinstance(self.store, SealedStore) else row.value

    async def _check_free(self, name: TenantName) -> None:
        if await self.store.get(tenant_key(name)) is not None:
            raise already_exists(TENANT_KIND, name)
        if await self.store.resources(name):
            raise ApiError(409, "Conflict", f"what an earlier tenant {name} left is not removed yet; try again")

    async def reseal(self, call: Call) -> web.StreamResponse:
        """Rewrites what other keys sealed. Raises ApiError 400."""
        self._check(call, "post")
        if not isinstance(self.store, SealedStore):
            raise bad_request("this server seals nothing: its configuration names no keyring")
        try:
            self.store.seals.reload()
        except SealError as problem:
            raise bad_request(str(problem)) from problem
        count = await self.store.reseal(INDEXER)
        log.info("%d values were sealed anew with key %s", count, self.store.seals.ring.writes)
        return raw_answer({"rewritten": count, "key": self.store.seals.ring.writes})
