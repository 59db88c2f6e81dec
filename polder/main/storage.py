"""Opens the store that the configuration names, with its secrets sealed."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from polder.apiserver.objects import INDEXER
from polder.apiserver.signing_keys import KEY_RESOURCE
from polder.base.errors import PermanentError
from polder.main.config import ServerConfig
from polder.store.protocol import NO_TERMS, Indexer, Prefix, Store
from polder.store.sealed import SealedStore, Seals, SealSettings
from polder.store.sqlite import open_sqlite
from polder.system.pki.sealing import is_sealed

log = logging.getLogger(__name__)


def config_file(state: Path) -> Path:
    """Where `polder up` writes the server's configuration, which stays when the cluster is down."""
    return state / "server" / "server.yaml"


def seals_of(config: ServerConfig) -> Seals | None:
    """What seals secrets; None where the configuration names no keyring. Raises SealError."""
    if config.sealing is None:
        return None
    return Seals(SealSettings(Path(config.sealing.keyring), config.sealing.resources))


async def open_store(config: ServerConfig) -> Store:
    """The store, with all secrets in it sealed; close it. Raises PermanentError, StoreError."""
    seals = seals_of(config)
    indexer = seals.indexer(INDEXER) if seals else INDEXER
    store = await _open(config, indexer)
    if seals is None:
        await _check_plain(store)
        return store
    sealed = SealedStore(store, seals)
    count = await sealed.seal_plain(INDEXER)
    if count:
        log.info("store: sealed %d values that were written before there was a keyring", count)
    return sealed


async def _check_plain(store: Store) -> None:
    """Raises PermanentError where a store without a keyring has sealed values."""
    for resource in ("secrets", KEY_RESOURCE):
        for entry in (await store.list(Prefix(resource), limit=1)).entries:
            if is_sealed(entry.value):
                await store.close()
                raise PermanentError(
                    "configuration: the store's secrets are sealed and sealing.keyring names no file; without the keyring "
                    "they cannot be read"
                )


async def open_raw(config: ServerConfig) -> Store:
    """The store as the backend holds it, sealed values and all, for a backup. Raises PermanentError, StoreError."""
    return await _open(config, NO_TERMS)


async def _open(config: ServerConfig, indexer: Indexer) -> Store:
    if bool(config.store) == (config.etcd is not None):
        raise PermanentError("configuration: exactly one of store (a file) and etcd must be set")
    if config.etcd is not None:
        from polder.main.storage_etcd import open_shared

        return await open_shared(config.etcd, indexer)
    path = Path(config.store)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return open_sqlite(path, indexer=indexer)


def server_identity(config: ServerConfig) -> str:
    """How this process is told from the cluster's other servers: the host, the port and the process."""
    return f"{socket.gethostname()}-{config.listen[0].rpartition(':')[2]}-{os.getpid()}"
