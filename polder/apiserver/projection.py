"""Nodes as a tenant sees them: root's, read only, through an allow-list of fields.

``Projected`` is the store with one more thing in it: in every tenant, a range ``nodes`` that follows root's. Nothing of
it is stored. A change of a node that leaves its projection as it was (heartbeats, images, usage) is no event there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import orjson

from polder.api.core import Node
from polder.api.kinds import kind_of
from polder.api.meta import Raw
from polder.api.quantity import QuantityError, milli, whole
from polder.apiserver.objects import encode
from polder.base.ids import ROOT
from polder.store.protocol import Batch, Change, ChangeType, Entry, Key, Op, Page, Prefix, Store

NODES = kind_of(Node).resource
LABELS = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
NODE_INFO = ("architecture", "kubeletVersion", "operatingSystem")
GIB, MIB = 1 << 30, 1 << 20


@lru_cache(maxsize=1024)
def project_node(value: bytes) -> bytes:
    """The stored form of a node's projection. Pure: equal nodes give equal bytes."""
    raw = orjson.loads(value)
    meta, status = raw["metadata"], raw.get("status") or {}
    labels = meta.get("labels") or {}
    shown: Raw = {
        "name": meta["name"],
        "uid": meta["uid"],
        "creationTimestamp": meta.get("creationTimestamp"),
        "labels": {name: labels[name] for name in LABELS if name in labels},
    }
    info = status.get("nodeInfo") or {}
    projected: Raw = {
        "capacity": _rounded(status.get("capacity") or {}),
        "allocatable": _rounded(status.get("allocatable") or {}),
        "conditions": [
            {"type": "Ready", "status": c.get("status", "Unknown")}
            for c in status.get("conditions") or []
            if c.get("type") == "Ready"
        ],
        "addresses": [a for a in status.get("addresses") or [] if a.get("type") == "Hostname"],
        "nodeInfo": {name: info[name] for name in NODE_INFO if name in info},
    }
    return encode({"apiVersion": "v1", "kind": "Node", "metadata": shown, "spec": {}, "status": projected})


def _rounded(quantities: Raw) -> Raw:
    """Sizes rounded down, so that they tell what fits and not which machine it is: whole CPUs, GiB (below: 128 MiB)."""
    shown: Raw = {}
    for name in ("cpu", "memory", "pods"):
        try:
            amount = whole(quantities[name]) if name != "cpu" else milli(quantities[name]) // 1000
        except (KeyError, QuantityError):
            continue
        if name != "memory":
            shown[name] = str(amount)
        elif amount >= GIB:
            shown[name] = f"{amount // GIB}Gi"
        else:
            shown[name] = f"{amount // (128 * MIB) * 128}Mi"
    return shown


def _is_projected(resource: str, tenant: str | None) -> bool:
    return resource == NODES and tenant not in {None, ROOT}


class Projected:
    """``Store``, with the projections; writes go through untouched."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return await self._store.revision()

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        if not _is_projected(key.resource, key.tenant):
            return await self._store.get(key)
        entry = await self._store.get(replace(key, tenant=ROOT))
        return Entry(key, project_node(entry.value), entry.revision) if entry else None

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        tenant = prefix.tenant
        if tenant is None or not _is_projected(prefix.resource, tenant):
            return await self._store.list(prefix, limit=limit, after=after, revision=revision)
        start = replace(after, tenant=ROOT) if after else None
        page = await self._store.list(Prefix(NODES, ROOT), limit=limit, after=start, revision=revision)
        entries = [Entry(replace(e.key, tenant=tenant), project_node(e.value), e.revision) for e in page.entries]
        return replace(page, entries=entries, after=replace(page.after, tenant=tenant) if page.after else None)

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``."""
        return await self._store.commit(ops)

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        return await self._store.by_term(term, tenant)

    async def resources(self, tenant: str, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``; projections are no rows."""
        return await self._store.resources(tenant, namespace)

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        if prefix.tenant is None or not _is_projected(prefix.resource, prefix.tenant):
            return self._store.watch(prefix, since)
        return self._watch_nodes(prefix.tenant, since)

    async def _watch_nodes(self, tenant: str, since: int) -> AsyncGenerator[Batch, None]:
        changes = self._store.watch(Prefix(NODES, ROOT), since)
        try:
            async for batch in changes:
                shown = [made for change in batch.changes if (made := _project_change(change, tenant))]
                yield Batch(shown, batch.revision)
        finally:
            await changes.aclose()

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``."""
        await self._store.compact(keep_from)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._store.close()


def _project_change(change: Change, tenant: str) -> Change | None:
    """What a change of a node is to a tenant; None where it sees no difference."""
    key, value = replace(change.key, tenant=tenant), project_node(change.value)
    previous = project_node(change.previous) if change.previous is not None else None
    if change.type is ChangeType.PUT and value == previous:
        return None
    return Change(change.type, key, value, previous, change.revision)
