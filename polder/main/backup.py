"""`polder backup`: asks the running server; without one, reads the store's file itself."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from polder.apiserver.tenancy import tenant_key
from polder.base.clock import stamp
from polder.base.errors import PermanentError
from polder.base.ids import TenantName
from polder.client.errors import UnreachableError
from polder.main.config import ServerConfig, load
from polder.main.credentials import Credentials
from polder.main.hostnet import cluster_of, read_record
from polder.main.storage import config_file, open_raw
from polder.store.backup import Summary, check, read_store


async def save(chunks: AsyncGenerator[bytes, None], target: Path) -> Summary:
    """Writes a file of mode 0600 that is complete and checked, or none. Raises BackupError, OSError."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            file.flush()
            os.fsync(file.fileno())
        summary = await asyncio.to_thread(check, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return summary


async def from_server(args: argparse.Namespace) -> Summary:
    """Through the API. Raises UnreachableError, ApiError."""
    client = Credentials.of(cluster_of(args.state)).admin_client()
    query = f"?{urlencode({'tenant': args.tenant})}" if args.tenant else ""
    try:
        return await save(client.stream(f"/polder/v1/backup{query}"), args.file)
    finally:
        await client.close()


async def from_store(args: argparse.Namespace, config: ServerConfig) -> Summary:
    """Out of the store that no server has open. Raises StoreError."""
    store = await open_raw(config)
    try:
        row = tenant_key(TenantName(args.tenant)) if args.tenant else None
        if row is not None and await store.get(row) is None:
            raise PermanentError(f"there is no tenant {args.tenant!r}")
        return await save(read_store(store, row, stamp(datetime.now(UTC))), args.file)
    finally:
        await store.close()


async def _run(args: argparse.Namespace) -> Summary:
    record = read_record(args.state / "cluster.json")
    if args.config is None and record is not None and record.running:
        with suppress(UnreachableError):  # it is down: its store is free
            return await from_server(args)
    return await from_store(args, load(args.config or config_file(args.state), ServerConfig))


def command(args: argparse.Namespace) -> int:
    """Runs `polder backup`."""
    if args.file.exists() and not args.force:
        raise PermanentError(f"{args.file} is there already; --force replaces it")
    summary = asyncio.run(_run(args))
    what = f"tenant {summary.header.tenant}" if summary.header.tenant else "everything"
    print(f"saved {what}: {summary.rows} rows at revision {summary.header.revision} in {args.file}")
    if summary.keys:
        print(f"its secrets stay sealed with {', '.join(summary.keys)}: keep the keyring, apart from the backup")
    if not summary.header.tenant:
        print("the authorities' certificates and keys are files, not objects: keep the folder pki as well")
    return 0
