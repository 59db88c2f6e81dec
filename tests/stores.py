"""Every backend of the store, for the contract that all of them obey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from polder.store.etcd import open_etcd
from polder.store.hub import HubSettings
from polder.store.memory import MemoryStore
from polder.store.protocol import Key, Store
from polder.store.sealed import SealedStore, Seals, SealSettings
from polder.store.sqlite import open_sqlite
from polder.system.pki.sealing import ensure_keyring
from tests.etcd import Etcd

BACKENDS = ("memory", "sqlite", "etcd", "sealed")
SMALL = HubSettings(recent=3000, pending=8, progress=0.05)


@asynccontextmanager
async def opened(backend: str, folder: Path) -> AsyncIterator[Store]:
    """A fresh store."""
    etcd: Etcd | None = None
    store: Store
    match backend:
        case "memory":
            store = MemoryStore(SMALL)
        case "sqlite":
            store = open_sqlite(folder / "db", SMALL)
        case "sealed":
            ensure_keyring(folder / "keyring")
            store = SealedStore(MemoryStore(SMALL), Seals(SealSettings(folder / "keyring", ("*",))))
        case _:
            etcd = await asyncio.to_thread(Etcd().start)
            store = await open_etcd(etcd.settings(), SMALL)
    try:
        yield store
    finally:
        await store.close()
        if etcd is not None:
            etcd.stop()


def pod(name: str, tenant: str = "acme", namespace: str = "default") -> Key:
    return Key("pods", tenant, namespace, name)


async def take(watch, count):
    """Changes until at least ``count`` were seen, and the last batch's revision."""
    seen = []
    async with asyncio.timeout(10):
        async for batch in watch:
            seen.extend(batch.changes)
            if len(seen) >= count:
                return seen, batch.revision
    raise AssertionError(f"the watch ended after {seen}")
