"""What a tenant has without rows of its own, as if it were rows.

``Projected`` is the store with more in it: in every tenant the objects of ``builtin.py`` (copy-on-write), root's Nodes
(``projection_nodes.py``) and root's classes (``projection_classes.py``) beside the tenant's own. Nothing of that is stored.
What stands under a key is the tenant's own row if there is one (a tombstone: nothing; an overlay: the node with it), else
the built-in object, else root's. A change of root's that leaves its projection as it was is no event there.

A tenant that does not exist or is being ended has its own rows and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

from polder.apiserver.aggregated import Aggregated
from polder.apiserver.births import Births
from polder.apiserver.builtin import (
    BORN,
    CLUSTER_ROLES,
    FLOW_SCHEMAS,
    PRIORITY_LEVELS,
    SERVICE_CIDRS,
    TOMBSTONE,
    Birth,
    built_in_resources,
    is_built_in,
    is_tombstone,
    places,
)
from polder.apiserver.builtin_apis import API_SERVICES
from polder.apiserver.projection_classes import SHARED_CLASSES, project_class
from polder.apiserver.projection_nodes import is_overlay, overlaid, overlay_node, overlay_of, project_node
from polder.base.ids import ROOT, TenantName
from polder.store.protocol import (
    EVERYTHING,
    Batch,
    Change,
    ChangeType,
    Check,
    ConflictError,
    Delete,
    Entry,
    Key,
    Op,
    Page,
    Prefix,
    Put,
    Store,
)

NODES = "nodes"
SHARED = SHARED_CLASSES | {NODES}
"""Resources of which every tenant sees root's."""
LAYERED = built_in_resources() | SHARED
RESTORED = frozenset({FLOW_SCHEMAS, PRIORITY_LEVELS, SERVICE_CIDRS, API_SERVICES})
"""Built-in objects that are back at once when they are deleted."""
Wrote = Callable[[Sequence[Key], int], None]


async def leftovers(store: Store, tenant: TenantName) -> list[Delete]:
    """What takes a tenant's rows that are no objects out of a store without projections, at the tenant's end."""
    found: list[Delete] = []
    for resource in (await store.resources(tenant)).keys() & LAYERED:
        page = await store.list(Prefix(resource, tenant))
        found += [Delete(entry.key, entry.revision) for entry in page.entries if is_hidden(entry.value)]
    return found


def is_hidden(value: bytes | None) -> bool:
    """Whether a row is no object but says something of one."""
    return is_tombstone(value) or is_overlay(value)


def project(resource: str, value: bytes) -> bytes:
    """Root's object as tenants see it."""
    return project_node(value) if resource == NODES else project_class(resource, value)


def visible(own: bytes | None, base: bytes | None) -> bytes | None:
    """What stands under a key, of the tenant's own row and what is there without it."""
    if own is None:
        return base
    if is_tombstone(own):
        return None
    if is_overlay(own):
        return overlaid(base, own) if base is not None else None
    if base is not None and b'"kind":"Node"' in base[:64]:
        return base  # a node of the platform took the name of one that the tenant had made
    return own


class Projected:
    """``Store``, with the projections. ``wrote`` is told of every commit before it is answered."""

    def __init__(self, store: Store, wrote: Wrote | None = None, root_service_cidr: str = "") -> None:
        self._store = store
        self._wrote = wrote
        self._births = Births(store, root_service_cidr)
        self._content = Aggregated(store)

    @property
    def rows(self) -> Store:
        """What was written, without the projections."""
        return self._store

    async def revision(self) -> int:
        """See ``Store.revision``."""
        return await self._store.revision()

    async def get(self, key: Key) -> Entry | None:
        """See ``Store.get``."""
        own = await self._store.get(key)
        if key.resource not in LAYERED:
            return own
        base = await self._base(key)
        return _entry(key, own, base)

    async def _base(self, key: Key) -> Entry | None:
        """What is there without the tenant's row."""
        birth = await self._births.of(TenantName(key.tenant))
        if birth is None:
            return None
        if is_built_in(key):
            return await self._content.entry(birth, key)
        if key.resource not in SHARED or key.tenant == ROOT:
            return None
        root = await self._store.get(replace(key, tenant=ROOT))
        if root is None or is_hidden(root.value):
            return None
        return Entry(key, project(key.resource, root.value), root.revision)

    async def list(
        self, prefix: Prefix, *, limit: int = 0, after: Key | None = None, revision: int | None = None
    ) -> Page:
        """See ``Store.list``."""
        if prefix.resource not in LAYERED:
            return await self._store.list(prefix, limit=limit, after=after, revision=revision)
        if prefix.tenant is None:
            return await self._list_rows(prefix, limit, after, revision)
        birth = await self._births.of(TenantName(prefix.tenant))
        found: list[Entry] = []
        while True:
            own = await self._store.list(prefix, limit=limit, after=after, revision=revision)
            revision = own.revision
            shared = await self._shared(prefix, limit, after, revision) if birth else None
            horizon = min((p.after for p in (own, shared) if p is not None and p.after is not None), default=None)
            bases = await self._bases(birth, prefix, (after, horizon), revision) if birth else {}
            bases = {**({e.key: e for e in shared.entries} if shared else {}), **bases}
            rows = {e.key: e for e in own.entries}
            for key in sorted({*rows, *bases}):
                if horizon is None or key <= horizon:
                    shown = _entry(key, rows.get(key), bases.get(key))
                    if shown is not None:
                        found.append(shown)
            if horizon is None or (limit and len(found) > limit):
                break
            after = horizon
        return _page(found, revision, limit, 0 if horizon is None else own.remaining)

    async def _list_rows(self, prefix: Prefix, limit: int, after: Key | None, revision: int | None) -> Page:
        """Over all tenants: only what was written, and of nodes the platform's, and what tenants put on them."""
        page = await self._store.list(prefix, limit=limit, after=after, revision=revision)
        seen = [(e, _in_all(e.key, e.value)) for e in page.entries]
        return replace(page, entries=[Entry(e.key, value, e.revision) for e, value in seen if value is not None])

    async def _shared(self, prefix: Prefix, limit: int, after: Key | None, revision: int) -> Page | None:
        """Root's part of a list, under the tenant's keys."""
        tenant = prefix.tenant
        if prefix.resource not in SHARED or tenant is None or tenant == ROOT:
            return None
        start = replace(after, tenant=ROOT) if after else None
        page = await self._store.list(Prefix(prefix.resource, ROOT), limit=limit, after=start, revision=revision)
        entries = [
            Entry(replace(e.key, tenant=tenant), project(prefix.resource, e.value), e.revision)
            for e in page.entries
            if not is_hidden(e.value)
        ]
        return replace(page, entries=entries, after=replace(page.after, tenant=tenant) if page.after else None)

    async def _bases(
        self, birth: Birth, prefix: Prefix, window: tuple[Key | None, Key | None], revision: int
    ) -> dict[Key, Entry]:
        """The built-in objects of a range of a list: after the first key, up to and with the second."""
        after, until = window
        keys = [Key(prefix.resource, birth.tenant, *at) for at in places(prefix.resource)]
        wanted = [
            key
            for key in keys
            if (prefix.namespace is None or key.namespace == prefix.namespace)
            and (after is None or key > after)
            and (until is None or key <= until)
        ]
        return await self._content.entries(birth, wanted, revision)

    async def commit(self, ops: Sequence[Op]) -> int:
        """See ``Store.commit``. A write of what is no row makes one; a deletion of it leaves a tombstone."""
        if any(op.key.resource in LAYERED for op in ops):
            meant = [await self._meant(op) if op.key.resource in LAYERED else op for op in ops]
            ops = [op for op in meant if op is not None]
        revision = await self._store.commit(ops)
        if self._wrote is not None:
            self._wrote([op.key for op in ops], revision)
        return revision

    async def _meant(self, op: Op) -> Op | None:
        """What an op means for the rows. Raises ConflictError."""
        key = op.key
        own, base = await self._store.get(key), await self._base(key)
        shown = _entry(key, own, base)
        if isinstance(op, Delete) and shown is None and own is not None and op.expect == own.revision:
            return op  # of ``leftovers``
        if op.expect is not None and op.expect != (shown.revision if shown else 0):
            raise ConflictError(key, shown)
        expect = None if op.expect is None else own.revision if own else 0
        if isinstance(op, Check):
            return Check(key, expect or 0)
        if isinstance(op, Delete):
            if shown is None:
                raise ConflictError(key, None)
            if base is not None and is_built_in(key) and key.resource not in RESTORED:
                return Put(key, TOMBSTONE, expect)
            return Delete(key, expect) if own is not None else None
        if base is not None and key.resource == NODES:
            return Put(key, overlay_of(base.value, op.value), expect)
        return replace(op, expect=expect)

    async def by_term(self, term: str, tenant: str | None = None) -> Sequence[Key]:
        """See ``Store.by_term``."""
        return await self._store.by_term(term, tenant)

    async def resources(self, tenant: str | None, namespace: str | None = None) -> Mapping[str, int]:
        """See ``Store.resources``; what is no object of the tenant's own does not count."""
        found = dict(await self._store.resources(tenant, namespace))
        for resource in found.keys() & LAYERED:
            page = await self._store.list(Prefix(resource, tenant, namespace))
            found[resource] = sum(not is_hidden(entry.value) for entry in page.entries)
        return {resource: count for resource, count in found.items() if count}

    def watch(self, prefix: Prefix, since: int) -> AsyncGenerator[Batch, None]:
        """See ``Store.watch``."""
        if prefix != EVERYTHING and prefix.resource not in LAYERED:
            return self._store.watch(prefix, since)
        source = replace(prefix, tenant=None) if prefix.resource in SHARED else prefix
        return self._watch(prefix, self._store.watch(source, since))

    async def _watch(self, prefix: Prefix, changes: AsyncGenerator[Batch, None]) -> AsyncGenerator[Batch, None]:
        try:
            async for batch in changes:
                shown: list[Change] = []
                for change in batch.changes:
                    if prefix == EVERYTHING:
                        shown += _row_change(change)
                    elif prefix.tenant is None:
                        was, now = _in_all(change.key, change.previous), _in_all(change.key, change.value)
                        now = None if change.type is ChangeType.DELETE else now
                        shown += _step(change.key, was, now, change.revision)
                    elif change.key.tenant in {prefix.tenant, ROOT}:
                        shown += await self._change(prefix.tenant, change)
                yield Batch(shown, batch.revision)
        finally:
            await changes.aclose()

    async def _change(self, tenant: str, change: Change) -> Sequence[Change]:
        """What a change of a row, the tenant's own or root's, is to the tenant."""
        key, after = replace(change.key, tenant=tenant), change.value
        now: bytes | None = None if change.type is ChangeType.DELETE else after
        was = change.previous
        if change.key.tenant != tenant:
            if is_built_in(key):
                return ()  # each has its own
            now, was = _seen(key.resource, now), _seen(key.resource, was)
            if now == was:
                return ()
            own = await self._store.get(key)
            value = own.value if own else None
            return _step(key, visible(value, was), visible(value, now), change.revision)
        base = await self._base(key)
        bottom = base.value if base else None
        found = _step(key, visible(was, bottom), visible(now, bottom), change.revision)
        if key.resource == CLUSTER_ROLES:
            birth = await self._births.of(TenantName(tenant))
            found += await self._content.follow(birth, change) if birth else []
        return found

    async def compact(self, keep_from: int) -> None:
        """See ``Store.compact``."""
        await self._store.compact(keep_from)

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._store.close()


def _entry(key: Key, own: Entry | None, base: Entry | None) -> Entry | None:
    """What stands under a key, at the revision of what last changed it."""
    value = visible(own.value if own else None, base.value if base else None)
    if value is None:
        return None
    if own is None or (base is not None and value is base.value):
        assert base is not None
        return base
    return Entry(key, value, max(own.revision, base.revision) if base and is_overlay(own.value) else own.revision)


def _page(found: list[Entry], revision: int, limit: int, remaining: int) -> Page:
    if not limit or len(found) <= limit:
        return Page(found, revision)
    return Page(found[:limit], revision, found[limit - 1].key, len(found) - limit + remaining)


def _seen(resource: str, value: bytes | None) -> bytes | None:
    return None if value is None or is_hidden(value) else project(resource, value)


def _step(key: Key, was: bytes | None, now: bytes | None, revision: int) -> list[Change]:
    if was == now:
        return []
    if now is None:
        assert was is not None
        return [Change(ChangeType.DELETE, key, was, was, revision)]
    return [Change(ChangeType.PUT, key, now, was, revision)]


def _in_all(key: Key, value: bytes | None) -> bytes | None:
    """What a row is in the view over all tenants; None for nothing. A tenant's own nodes are its own matter."""
    if value is None or is_tombstone(value):
        return None
    if is_overlay(value):
        return overlay_node(key.name, value)
    return value if key.resource != NODES or key.tenant == ROOT else None


def _row_change(change: Change) -> list[Change]:
    """A change among those of the whole store, where only rows that are objects show, and of nodes the platform's."""
    if change.key.resource not in LAYERED:
        return [change]
    if change.key.resource == NODES and change.key.tenant != ROOT:
        return []
    if not is_hidden(change.value) and not is_hidden(change.previous):
        return [change]
    gone = change.type is ChangeType.DELETE or is_hidden(change.value)
    was = None if is_hidden(change.previous) else change.previous
    return _step(change.key, was, None if gone else change.value, change.revision)


__all__ = ["BORN", "LAYERED", "NODES", "SHARED", "Projected", "is_hidden", "project", "project_node", "visible"]
