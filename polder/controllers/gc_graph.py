"""Who owns whom: pure. Memory is proportional to the objects that have owners, not to all objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from polder.api.meta import ObjectMeta, OwnerReference
from polder.base.ids import TenantName
from polder.base.ref import Ref


@dataclass(frozen=True, slots=True)
class Item:
    """One object in all tenants and times."""

    ref: Ref
    api_version: str
    kind: str
    uid: str

    @property
    def tenant(self) -> TenantName:
        """Whose it is: queues take turns by it."""
        return self.ref.tenant


@dataclass(frozen=True, slots=True)
class Dependent:
    """An object that has owners."""

    item: Item
    owners: tuple[OwnerReference, ...]

    def blocks(self, owner: str) -> bool:
        """Whether the owner of that UID asked to outlive it in a foreground deletion."""
        return any(o.uid == owner and bool(o.block_owner_deletion) for o in self.owners)


def owner_item(dependent: Item, owner: OwnerReference, namespaced: bool) -> Item:
    """The owner that a reference names: in the same tenant, and in the same namespace if its kind has one."""
    namespace = dependent.ref.namespace if namespaced else ""
    return Item(Ref(dependent.ref.tenant, namespace, owner.name), owner.api_version, owner.kind, owner.uid)


class Graph:
    """Dependents by their own UID and by their owners'."""

    def __init__(self) -> None:
        self._nodes: dict[str, Dependent] = {}
        self._by_owner: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many dependents are known."""
        return len(self._nodes)

    def get(self, uid: str) -> Dependent | None:
        """The dependent of a UID; None for an object without owners."""
        return self._nodes.get(uid)

    def see(self, item: Item, meta: ObjectMeta) -> bool:
        """Learns an object as it is; whether it has owners that were not known of it before."""
        owners = tuple(meta.owner_references or ())
        known = self._nodes.get(item.uid)
        if known is not None and known.owners == owners:
            return False
        self.remove(item.uid)
        if not owners:
            return False
        self._nodes[item.uid] = Dependent(item, owners)
        for owner in owners:
            self._by_owner.setdefault(owner.uid, set()).add(item.uid)
        return True

    def remove(self, uid: str) -> Dependent | None:
        """The object is gone; what was known of it."""
        known = self._nodes.pop(uid, None)
        for owner in known.owners if known else ():
            held = self._by_owner.get(owner.uid, set())
            held.discard(uid)
            if not held:
                self._by_owner.pop(owner.uid, None)
        return known

    def dependents(self, owner: str) -> list[Dependent]:
        """The objects that the object of that UID owns."""
        return [self._nodes[uid] for uid in self._by_owner.get(owner, ())]

    def missing(self, of: TenantName | None, api_version: str, kind: str, present: Iterable[str]) -> set[str]:
        """UIDs that are known of one kind (of one tenant, or of all), as dependents or as owners, and not ``present``."""
        known = set()
        for uid, node in self._nodes.items():
            if of is not None and node.item.tenant != of:
                continue
            if (node.item.api_version, node.item.kind) == (api_version, kind):
                known.add(uid)
            known |= {o.uid for o in node.owners if (o.api_version, o.kind) == (api_version, kind)}
        return known - set(present)
