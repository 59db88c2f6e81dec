"""Opens a store on etcd. Apart from ``storage``, so that servers with a file of their own load no gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

from polder._generated import etcd_pb2 as pb
from polder.base.errors import PermanentError
from polder.main.config_storage import EtcdConfig
from polder.store.etcd import EtcdStore, open_etcd
from polder.store.etcd_client import COMPACT, RANGE, TXN, EtcdClient, EtcdSettings
from polder.store.etcd_keys import Layout
from polder.store.protocol import Indexer
from polder.system.rpc import Tls

PUSHERS, STEPS = 64, 200_000
"""Calls under way at once, and revisions that are gone through at most: about a minute."""


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


async def advance(config: EtcdConfig, revision: int) -> bool:
    """Makes etcd's counter pass a revision and forgets what came before, so that what clients remember of a store's earlier
    life is expired to them. The counter goes one by one, some thousands a second: whether it was worth it. Raises StoreError.
    """
    client = EtcdClient(etcd_settings(config))
    put = pb.PutRequest(key=Layout(config.prefix).mark)
    request = pb.TxnRequest(success=[pb.RequestOp(request_put=put)])

    async def push() -> None:
        while (await client.ask(TXN, request)).header.revision < revision:
            pass

    try:
        now = (await client.ask(RANGE, pb.RangeRequest(key=put.key))).header.revision
        if revision - now > STEPS:
            return False
        if now < revision:
            await asyncio.gather(*(push() for _ in range(PUSHERS)))
            await client.ask(COMPACT, pb.CompactionRequest(revision=revision))
        return True
    finally:
        await client.close()
