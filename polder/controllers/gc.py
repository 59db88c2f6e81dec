"""The garbage collector: what is owned goes with its owners (background, foreground, orphan), in every tenant.

Watches feed a graph that holds only what has owners. Nothing is deleted on the graph's word: item and owners are read
from the server, compared by UID, and deleted with UID and resource version. Follows upstream's attemptToDeleteItem.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from polder.api.meta import Object, ObjectMeta, OwnerReference
from polder.base.clock import Clock
from polder.base.ids import TenantName
from polder.client.client import Client
from polder.controllers.gc_graph import Dependent, Graph, Item, owner_item
from polder.controllers.mapper import Mapper
from polder.controllers.resources import Resource, delete_object, get_object, patch_metadata

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
REMEMBERED = 4096
PRESENT_FOR = 30.0
"""Seconds for which an owner that was read is taken to exist, unless its deletion is seen."""


@dataclass(slots=True)
class _Owners:
    """An item's owners by how they stand."""

    solid: list[OwnerReference] = field(default_factory=list)
    absent: list[OwnerReference] = field(default_factory=list)
    waiting: list[OwnerReference] = field(default_factory=list)


class Recent:
    """The newest of many UIDs, with a time each."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, float] = OrderedDict()

    def add(self, uid: str, at: float) -> None:
        """Remembers it, and forgets the oldest when there are too many."""
        self._known[uid] = at
        self._known.move_to_end(uid)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def discard(self, uid: str) -> None:
        """Forgets it."""
        self._known.pop(uid, None)

    def at(self, uid: str) -> float | None:
        """When it was added; None if it is not known."""
        return self._known.get(uid)


class GarbageCollector:
    """``see`` and ``gone`` take what watches show; ``reconcile`` settles one item. ``enqueue`` asks for that."""

    def __init__(self, client: Client, clock: Clock, enqueue: Callable[[Item], None], recheck: float) -> None:
        self._client = client
        self._clock = clock
        self._enqueue = enqueue
        self._recheck = recheck
        self._mapper = Mapper(client, clock)
        self.graph = Graph()
        self._absent = Recent()
        self._present = Recent()
        self._leaving: dict[str, Item] = {}
        self._doubted: set[str] = set()

    def see(self, item: Item, meta: ObjectMeta) -> None:
        """An object came or changed."""
        is_news = self.graph.see(item, meta)
        if meta.deletion_timestamp is not None and {FOREGROUND, ORPHAN} & set(meta.finalizers or ()):
            self._leaving[item.uid] = item
            self._present.discard(item.uid)
            is_news = True
        if is_news:
            self._enqueue(item)

    def gone(self, uid: str) -> None:
        """An object of that UID does not exist any more: those that it owned and those that waited for it are due."""
        self._absent.add(uid, self._clock.monotonic())
        self._present.discard(uid)
        self._leaving.pop(uid, None)
        self._doubted.discard(uid)
        known = self.graph.remove(uid)
        for dependent in self.graph.dependents(uid):
            self._enqueue(dependent.item)
        for owner in known.owners if known else ():
            if owner.uid in self._leaving:
                self._enqueue(self._leaving[owner.uid])

    def settle(self, api_version: str, kind: str, objects: Iterable[Object], tenant: TenantName | None = None) -> None:
        """A whole list of a kind (of one tenant, or of all) came: what should be in it and is not is looked at anew.

        It is only a doubt: the list may be older than what another watch has shown.
        """
        present = [obj.metadata.uid for obj in objects]
        for uid in self.graph.missing(tenant, api_version, kind, present):
            self._present.discard(uid)
            known = self.graph.get(uid)
            if known is not None:
                self._doubted.add(uid)
                self._enqueue(known.item)
            for dependent in self.graph.dependents(uid):
                self._enqueue(dependent.item)

    async def reconcile(self, item: Item) -> float | None:
        """Settles one item. The seconds until the next look, None when nothing is to be done. Raises ApiError."""
        known = self.graph.get(item.uid)
        doubted = item.uid in self._doubted or item.uid in self._leaving
        if not doubted and (known is None or self._are_present(known)):
            return None
        resource = await self._mapper.find(item.tenant, item.api_version, item.kind)
        live = await get_object(self._client, resource, item.ref) if resource else None
        if resource is None or live is None or live.metadata.uid != item.uid:
            self.gone(item.uid)
            return None
        self._doubted.discard(item.uid)
        if live.metadata.deletion_timestamp is not None:
            return await self._leave(item, resource, live)
        if live.metadata.owner_references:
            await self._judge(item, resource, live)
        else:
            self.graph.remove(item.uid)
        return None

    def _are_present(self, dependent: Dependent) -> bool:
        now = self._clock.monotonic()
        seen = [self._present.at(owner.uid) for owner in dependent.owners]
        return all(at is not None and now - at < PRESENT_FOR for at in seen)

    async def _leave(self, item: Item, resource: Resource, live: Object) -> float | None:
        """An owner in deletion that asked for its dependents to be orphaned, or to go before it."""
        finalizers = live.metadata.finalizers or []
        dependents = self.graph.dependents(item.uid)
        if ORPHAN in finalizers:
            for dependent in dependents:
                await self._let_go(dependent.item, {item.uid})
            done = ORPHAN
        elif FOREGROUND in finalizers:
            for dependent in dependents:
                self._enqueue(dependent.item)
            if any(d.blocks(item.uid) for d in dependents):
                return self._recheck
            done = FOREGROUND
        else:
            self._leaving.pop(item.uid, None)
            return None
        kept = [f for f in finalizers if f != done]
        await patch_metadata(self._client, resource, item.ref, live, {"finalizers": kept or None})
        self._leaving.pop(item.uid, None)
        return None

    async def _judge(self, item: Item, resource: Resource, live: Object) -> None:
        owners = await self._classify(item, live)
        if owners.solid:
            stale = {o.uid for o in (*owners.absent, *owners.waiting)}
            if stale:
                await self._write_owners(item, resource, live, owners.solid)
            return
        finalizers = live.metadata.finalizers or []
        if (owners.waiting and self.graph.dependents(item.uid)) or FOREGROUND in finalizers:
            policy = "Foreground"
        else:
            policy = "Orphan" if ORPHAN in finalizers else "Background"
        await delete_object(self._client, resource, item.ref, live, unchanged=True, propagation=policy)

    async def _classify(self, item: Item, live: Object) -> _Owners:
        found = _Owners()
        for owner in live.metadata.owner_references or ():
            if self._absent.at(owner.uid) is not None:
                found.absent.append(owner)
                continue
            resource = await self._mapper.find(item.tenant, owner.api_version, owner.kind)
            # A kind that is not served may only be spelt wrongly, and a cluster-scoped object cannot be owned from inside
            # a namespace: as upstream, neither is a reason to delete.
            if resource is None or (resource.namespaced and not item.ref.namespace):
                found.solid.append(owner)
                continue
            ref = owner_item(item, owner, resource.namespaced).ref
            held = await get_object(self._client, resource, ref)
            if held is None or held.metadata.uid != owner.uid:
                self._absent.add(owner.uid, self._clock.monotonic())
                found.absent.append(owner)
            elif held.metadata.deletion_timestamp is not None and FOREGROUND in (held.metadata.finalizers or []):
                found.waiting.append(owner)
            else:
                self._present.add(owner.uid, self._clock.monotonic())
                found.solid.append(owner)
        return found

    async def _let_go(self, item: Item, owners: set[str]) -> None:
        """Removes references to owners from a dependent that stays."""
        resource = await self._mapper.find(item.tenant, item.api_version, item.kind)
        live = await get_object(self._client, resource, item.ref) if resource else None
        if resource is None or live is None or live.metadata.uid != item.uid:
            return
        kept = [o for o in live.metadata.owner_references or () if o.uid not in owners]
        if len(kept) != len(live.metadata.owner_references or ()):
            await self._write_owners(item, resource, live, kept)

    async def _write_owners(self, item: Item, resource: Resource, live: Object, owners: list[OwnerReference]) -> None:
        wanted = msgspec.to_builtins(owners) or None
        await patch_metadata(self._client, resource, item.ref, live, {"ownerReferences": wanted})
