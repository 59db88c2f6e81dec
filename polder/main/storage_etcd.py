"""Opens a store on etcd. Apart from ``storage``, so that servers with a file of their own load no gRPC."""

from __future__ import annotations

from pathlib import Path

from polder.base.errors import PermanentError
from polder.main.config_storage import EtcdConfig
from polder.store.etcd import EtcdStore, open_etcd
from polder.store.etcd_client import EtcdSettings
from polder.store.protocol import Indexer
from polder.system.rpc import Tls


def etcd_settings(config: EtcdConfig) -> EtcdSettings:
    """Raises PermanentError naming the field."""
    if not config.endpoints:
        raise PermanentError("configuration: etcd.endpoints names none")
    if bool(config.certificate) != bool(config.key):
        raise PermanentError("configuration: etcd.certificate and etcd.key go together")
    if config.certificate and not config.authority:
        raise PermanentError("configuration: etcd.certificate needs etcd.authority")
    tls = None
    if config.authority:
        own = (Path(config.certificate), Path(config.key)) if config.certificate else (None, None)
        tls = Tls(Path(config.authority), *own)
    return EtcdSettings(tuple(config.endpoints), tls, config.prefix)


async def open_shared(config: EtcdConfig, indexer: Indexer) -> EtcdStore:
    """Raises PermanentError, StoreError."""
    return await open_etcd(etcd_settings(config), indexer=indexer)
