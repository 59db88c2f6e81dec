"""The garbage collector: what is owned goes with its owners (background, foreground, orphan), in every tenant.

The API server tells what is worth a look (``gc_feed``) and answers who owns whom from its index; nothing is kept here.
Nothing is deleted on anybody's word either: item and owners are read, compared by UID, and deleted with UID and resource
version. Follows upstream's attemptToDeleteItem and processDeletingDependentsItem.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec

from polder.api.meta import Object, OwnerReference
from polder.api.meta import Raw as Patch
from polder.base.clock import Clock
from polder.base.ref import Ref
from polder.client.client import Client
from polder.controllers.batch import each
from polder.controllers.internal import Item, Told, dependents
from polder.controllers.mapper import Mapper
from polder.controllers.resources import delete_object, get_object, patch_metadata

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
REMEMBERED = 4096


@dataclass(slots=True)
class _Owners:
    """An item's owners by how they stand."""

    solid: list[OwnerReference] = field(default_factory=list)
    absent: list[OwnerReference] = field(default_factory=list)
    waiting: list[OwnerReference] = field(default_factory=list)


class Recent:
    """The newest of many owners, by where they were looked for."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Ref, str, str, str], None] = OrderedDict()

    def add(self, at: tuple[Ref, str, str, str]) -> None:
        """Remembers it, and forgets the oldest when there are too many."""
        self._known[at] = None
        self._known.move_to_end(at)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def __contains__(self, at: tuple[Ref, str, str, str]) -> bool:
        """Whether it is remembered."""
        return at in self._known


def is_waiting(obj: Object) -> bool:
    """Whether an object in deletion waits until its dependents are gone."""
    return obj.metadata.deletion_timestamp is not None and FOREGROUND in (obj.metadata.finalizers or [])


class GarbageCollector:
    """``reconcile`` settles one item; ``enqueue`` asks for that. ``recheck`` is in seconds."""

    def __init__(self, client: Client, clock: Clock, enqueue: Callable[[Item], None], recheck: float) -> None:
        self._client = client
        self._enqueue = enqueue
        self._recheck = recheck
        self._mapper = Mapper(client, clock)
        self._absent = Recent()
        """Owners that were seen to be gone: a UID does not come back."""

    async def reconcile(self, item: Item) -> float | None:
        """Settles one item. The seconds until the next look, None when nothing is to be done. Raises ApiError."""
        live = await get_object(self._client, item.resource, item.ref)
        if live is None or live.metadata.uid != item.uid:
            return None
        if live.metadata.deletion_timestamp is not None:
            return await self._leave(item, live)
        if live.metadata.owner_references:
            await self._judge(item, live)
        return None

    async def _leave(self, item: Item, live: Object) -> float | None:
        """An object in deletion that asked for its dependents to be orphaned, or to go before it."""
        finalizers = live.metadata.finalizers or []
        if ORPHAN in finalizers:
            owned = await self._dependents(item)
            await each([self._let_go(told.item, item.uid) for told in owned])
            done = ORPHAN
        elif FOREGROUND in finalizers:
            owned = await self._dependents(item)
            for told in owned:
                if not told.leaving:
                    self._enqueue(told.item)
            if any(told.blocks(item.uid) for told in owned):
                return self._recheck
            done = FOREGROUND
        else:
            return None
        kept = [f for f in finalizers if f != done]
        await patch_metadata(self._client, item.resource, item.ref, live, {"finalizers": kept or None})
        return None

    async def _dependents(self, item: Item) -> list[Told]:
        async with aclosing(dependents(self._client, item)) as found:
            return [told async for told in found]

    async def _judge(self, item: Item, live: Object) -> None:
        owners = await self._classify(item, live)
        if owners.solid:
            if owners.absent or owners.waiting:
                await self._write_owners(item, live, owners.solid)
            return
        finalizers = live.metadata.finalizers or []
        owned = await self._dependents(item) if owners.waiting else []
        if owned:
            if any(told.leaving for told in owned):
                live = await self._unblock(item, live) or live
            policy = "Foreground"
        elif ORPHAN in finalizers:
            policy = "Orphan"
        else:
            policy = "Foreground" if FOREGROUND in finalizers else "Background"
        await delete_object(self._client, item.resource, item.ref, live, unchanged=True, propagation=policy)

    async def _unblock(self, item: Item, live: Object) -> Object | None:
        """Owners need not wait for an item whose own dependents wait in turn: the three may be a circle."""
        owners = [msgspec.structs.replace(o, block_owner_deletion=False) for o in live.metadata.owner_references or ()]
        await self._write_owners(item, live, owners)
        return await get_object(self._client, item.resource, item.ref)

    async def _classify(self, item: Item, live: Object) -> _Owners:
        found = _Owners()
        for owner in live.metadata.owner_references or ():
            at = (Ref(item.tenant, item.ref.namespace, owner.name), owner.api_version, owner.kind, owner.uid)
            if at in self._absent:
                found.absent.append(owner)
                continue
            resource = await self._mapper.find(item.tenant, owner.api_version, owner.kind)
            # A kind that is not served may only be spelt wrongly, and a cluster-scoped object cannot be owned from inside
            # a namespace: as upstream, neither is a reason to delete.
            if resource is None or (resource.namespaced and not item.ref.namespace):
                found.solid.append(owner)
                continue
            ref = Ref(item.tenant, item.ref.namespace if resource.namespaced else "", owner.name)
            held = await get_object(self._client, resource, ref, served=True)
            if held is None or held.metadata.uid != owner.uid:
                self._absent.add(at)
                found.absent.append(owner)
            elif is_waiting(held):
                found.waiting.append(owner)
            else:
                found.solid.append(owner)
        return found

    async def _let_go(self, item: Item, owner: str) -> None:
        """Removes the references to an owner from a dependent that stays."""
        live = await get_object(self._client, item.resource, item.ref)
        if live is None or live.metadata.uid != item.uid:
            return
        kept = [o for o in live.metadata.owner_references or () if o.uid != owner]
        if len(kept) != len(live.metadata.owner_references or ()):
            await self._write_owners(item, live, kept)

    async def _write_owners(self, item: Item, live: Object, owners: list[OwnerReference]) -> None:
        metadata: Patch = {"ownerReferences": msgspec.to_builtins(owners) or None}
        await patch_metadata(self._client, item.resource, item.ref, live, metadata)
