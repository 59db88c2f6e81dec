"""The index terms of rows in etcd: keeping them with a row, and computing them anew for all."""

from __future__ import annotations

import logging
import secrets
from contextlib import aclosing
from typing import Any

from polder._generated import etcd_pb2 as pb
from polder.store.etcd_client import RANGE, TXN, EtcdClient
from polder.store.etcd_keys import ID_LENGTH, Layout, pack, unpack
from polder.store.etcd_reads import pieces
from polder.store.protocol import NO_TERMS, Indexer, Key

log = logging.getLogger(__name__)


def term_changes(request: Any, layout: Layout, key: Key, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    """Adds to a transaction what makes the index say the new terms of a row instead of the old ones."""
    for term in sorted(set(old) - set(new)):
        request.success.add().request_delete_range.key = layout.term(term, key)
    for term in sorted(set(new) - set(old)):
        request.success.add().request_put.key = layout.term(term, key)


async def ensure_indexed(client: EtcdClient, layout: Layout, indexer: Indexer) -> None:
    """Computes the terms of all rows if they were computed by another indexer's version. May be interrupted, and run by
    several servers at once: each row is compared before it is written, the version is noted last.
    """
    if indexer is NO_TERMS:
        return
    found = (await client.ask(RANGE, pb.RangeRequest(key=layout.version))).kvs
    if found and found[0].value == b"%d" % indexer.version:
        return
    changed = 0
    async with aclosing(pieces(client, *layout.rows)) as steps:
        async for piece in steps:
            for kv in piece.rows:
                changed += await _index(client, layout, indexer, kv)
    put = pb.PutRequest(key=layout.version, value=b"%d" % indexer.version)
    await client.ask(TXN, pb.TxnRequest(success=[pb.RequestOp(request_put=put)]))
    if changed:
        log.info("store: computed the index terms of %d rows", changed)


async def _index(client: EtcdClient, layout: Layout, indexer: Indexer, kv: Any) -> int:
    """Writes a row again with its terms, where these differ; a row that moved meanwhile is read again."""
    key = layout.key(kv.key)
    while kv is not None:
        row = unpack(kv.value)
        terms = indexer.terms(key, row.value)
        if set(terms) == set(row.terms):
            return 0
        request = pb.TxnRequest()
        compare = request.compare.add(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=kv.key)
        compare.mod_revision = kv.mod_revision
        put = request.success.add().request_put
        put.key, put.value = kv.key, pack(row.value, terms, secrets.token_bytes(ID_LENGTH))
        term_changes(request, layout, key, row.terms, terms)
        request.failure.add().request_range.key = kv.key
        answer = await client.ask(TXN, request)
        if answer.succeeded:
            return 1
        rows = answer.responses[0].response_range.kvs
        kv = rows[0] if rows else None
    return 0
