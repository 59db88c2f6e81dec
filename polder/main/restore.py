"""`polder restore`: everything, into the store of a stopped server; one tenant, into a running one."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

from polder.apiserver.objects import INDEXER
from polder.base.errors import PermanentError
from polder.main.config import ServerConfig, load
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of
from polder.main.storage import config_file, open_store, seals_of
from polder.store.backup import BackupError, Summary, check, rows_of
from polder.store.protocol import Key, Store
from polder.store.restore import check_empty, restore_all
from polder.store.schema import advance
from polder.store.sealed import Seals
from polder.system.pki.sealing import is_sealed

LEAP = 1 << 30
"""Revisions by which a restored file runs ahead of its backup: no client has seen as many since."""
MARGIN = 5000
"""The same in etcd, whose counter goes one by one."""


def opened(path: Path, seals: Seals | None) -> Iterator[tuple[Key, bytes, tuple[str, ...]]]:
    """The rows as they were written, with their index terms. Raises BackupError, StoreFailedError."""
    for row in rows_of(path):
        value = row.value
        if is_sealed(value):
            if seals is None:
                raise BackupError(f"{row.key} is sealed: the configuration names no keyring")
            value = seals.open(row.key, value)
        yield row.key, value, INDEXER.terms(row.key, value)


@asynccontextmanager
async def aclosing_store(config: ServerConfig) -> AsyncIterator[Store]:
    """The configured store, for a while."""
    store = await open_store(config)
    try:
        yield store
    finally:
        await store.close()


async def everything(path: Path, config: ServerConfig, summary: Summary, *, force: bool) -> int:
    """Restores all rows; returns how many. Raises BackupError, StoreError."""
    seals = seals_of(config)
    missing = set(summary.keys) - (set(seals.ring.keys) if seals else set())
    if missing:
        raise BackupError(
            f"the backup's secrets need keys that the keyring does not have: {', '.join(sorted(missing))}"
        )
    async with aclosing_store(config) as store:
        await check_empty(store, force=force)
    await _advance(config, summary.header.revision)
    async with aclosing_store(config) as store:
        return await restore_all(store, opened(path, seals))


async def _advance(config: ServerConfig, revision: int) -> None:
    """Makes the store's revisions run ahead of what clients may have seen."""
    if config.etcd is None:
        advance(Path(config.store), revision + LEAP)
        return
    from polder.main.storage_etcd import advance as advance_etcd

    if not await advance_etcd(config.etcd, revision + MARGIN):
        print(
            f"note: etcd's revisions begin far below {revision}; a client that was connected to the saved cluster and stays "
            "away until they have caught up could miss changes: restart such clients"
        )


async def tenant(args: argparse.Namespace, name: str) -> int:
    """Restores one tenant through the API; returns how many rows. Raises ApiError, UnreachableError."""
    client = Credentials.of(cluster_of(args.state)).admin_client()
    try:
        path = f"/polder/v1/restore?{urlencode({'tenant': name})}"
        answer = await client.upload(path, args.file)
    finally:
        await client.close()
    return int(json.loads(answer)["rows"])


def command(args: argparse.Namespace) -> int:
    """Runs `polder restore`."""
    summary = check(args.file)
    saved = summary.header.tenant
    if not args.tenant:
        if saved:
            raise PermanentError(f"{args.file} holds tenant {saved}; restore it with --tenant {saved}[=NEWNAME]")
        config = load(args.config or config_file(args.state), ServerConfig)
        count = asyncio.run(everything(args.file, config, summary, force=args.force))
        print(f"restored everything: {count} rows, as they were at revision {summary.header.revision}")
        return 0
    old, _, new = args.tenant.partition("=")
    if not saved:
        raise PermanentError(f"{args.file} holds the whole cluster; a tenant is restored out of its own backup")
    if old != saved:
        raise PermanentError(f"{args.file} holds tenant {saved}, not {old}")
    count = asyncio.run(tenant(args, new or old))
    print(
        f"restored tenant {saved} as {new or old}: {count} rows; its credentials are new (polder kubeconfig {new or old})"
    )
    return 0
