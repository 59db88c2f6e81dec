"""Which item should stand in which slot, and for whose sake."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from polder.sdn.render.linux.desired import PartKey
from polder.sdn.render.linux.items import Item

Slot = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one state to another. An added slot that stands with other attributes is changed in place."""

    remove: tuple[Item, ...] = ()
    add: tuple[Item, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.remove or self.add)


class Wanted:
    """Items by owner and by slot. Where two owners want one slot, the smaller key holds it (deterministic, and the other
    one takes over when the first goes).
    """

    def __init__(self) -> None:
        self._items: dict[PartKey, frozenset[Item]] = {}
        self._slots: dict[Slot, dict[PartKey, Item]] = {}

    def put(self, owner: PartKey, items: frozenset[Item]) -> set[Slot]:
        """What ``owner`` wants from here on. The slots that this touches."""
        old = self._items.get(owner, frozenset())
        if items:
            self._items[owner] = items
        else:
            self._items.pop(owner, None)
        gone = {item.slot for item in old - items}
        for slot in gone:
            owners = self._slots[slot]
            owners.pop(owner, None)
            if not owners:
                del self._slots[slot]
        fresh = {item.slot: item for item in items - old}
        for slot, item in fresh.items():
            self._slots.setdefault(slot, {})[owner] = item
        return gone | fresh.keys()

    def items_of(self, owner: PartKey) -> frozenset[Item]:
        """What one owner wants."""
        return self._items.get(owner, frozenset())

    def owners(self, slot: Slot) -> Iterable[PartKey]:
        """Who wants a slot."""
        return self._slots.get(slot, {}).keys()

    def get(self, slot: Slot) -> Item | None:
        """What should stand in a slot."""
        owners = self._slots.get(slot)
        return owners[min(owners)] if owners else None

    def slots(self) -> Iterable[Slot]:
        """All slots that should be filled."""
        return self._slots.keys()

    def all_items(self) -> frozenset[Item]:
        """Everything that should stand."""
        return frozenset(owners[min(owners)] for owners in self._slots.values())

    def difference(self, slots: Iterable[Slot], actual: Mapping[Slot, Item]) -> Difference:
        """What has to be done in ``slots`` where ``actual`` stands."""
        remove: list[Item] = []
        add: list[Item] = []
        touched = set(slots)
        again = self._of_tables_made_anew(touched, actual)
        for slot in touched | again:
            wanted, stands = self.get(slot), actual.get(slot)
            if wanted is None and stands is not None:
                remove.append(stands)
            elif wanted is not None and (wanted != stands or slot in again):
                add.append(wanted)
        return Difference(tuple(remove), tuple(add))

    def _of_tables_made_anew(self, slots: set[Slot], actual: Mapping[Slot, Item]) -> set[Slot]:
        """With a table that stands and is made anew everything goes that stands in it by itself, so it has to come again."""
        found = (self.get(slot) for slot in slots if slot in actual and slot[0] == "ruleset")
        anew = {one.slot[1:] for one in found if one is not None and actual[one.slot] != one}
        if not anew:
            return set()
        single = {slot[1:4] for slot in self._slots if slot[0] == "chain"} & anew
        return {slot for slot in self._slots if slot[0] in ("chain", "set", "element") and slot[1:4] in single}
