"""A kernel in memory, for tests of what composes with one.

Where it differs from the real one (sdn/apply/linux/kernel.py): it knows items only, so no packet passes and nothing that
nft or netlink would refuse is refused; a link is gone as soon as it is removed; a link whose space, bridge or netns is
absent, or a chain whose table is, is refused as the real one does, other dependencies are not checked. Failures and delays can
be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from polder.sdn.apply.linux.failure import ItemFailure
from polder.sdn.render.linux.items import NODE, Bridge, Chain, Item, NamedSet, PortLink, Ruleset, Space, Vxlan


class MemoryKernel:
    """Items by slot. ``refuse`` gives the reason for which an item is refused; empty accepts it. ``delay`` is seconds for
    each call. ``applied`` counts the items of each apply.
    """

    def __init__(self, refuse: Callable[[Item], str] | None = None, delay: float = 0.0) -> None:
        self.slots: dict[tuple[str, ...], Item] = {}
        self.applied: list[int] = []
        self.observed = 0
        self.refuse = refuse or (lambda _: "")
        self.delay = delay

    @property
    def items(self) -> frozenset[Item]:
        """What stands."""
        return frozenset(self.slots.values())

    async def observe(self, expected: Iterable[Item] = ()) -> frozenset[Item]:  # noqa: ARG002 - the real one needs it
        """What stands."""
        await asyncio.sleep(self.delay)
        self.observed += 1
        return self.items

    async def apply(self, remove: Iterable[Item], add: Iterable[Item]) -> list[ItemFailure]:
        """Remove, then add in the order of dependence."""
        await asyncio.sleep(self.delay)
        gone, made = list(remove), list(add)
        self.applied.append(len(gone) + len(made))
        for item in gone:
            self.slots.pop(item.slot, None)
            if isinstance(item, Space):
                self.slots = {slot: i for slot, i in self.slots.items() if item.name not in slot[1:2]}
        failures: list[ItemFailure] = []
        for item in sorted(made, key=_phase):
            reason = self.refuse(item) or self._missing(item)
            if reason:
                failures.append(ItemFailure(item, reason, retry=True))
            else:
                self.slots[item.slot] = item
        return failures

    async def wait_gone(self, items: Iterable[Item]) -> None:
        """At once."""

    async def counts(self, space: str) -> dict[str, list[tuple[int, int]]]:  # noqa: ARG002 - no packet passes here
        """Nothing is counted."""
        return {}

    async def meddled(self) -> bool:
        """Never: who changes ``slots`` behind its back is seen by the next observation."""
        return False

    def _missing(self, item: Item) -> str:
        if isinstance(item, Space):
            return ""
        space = item.slot[1]
        if space != NODE and ("space", space) not in self.slots:
            return f"there is no space {space}"
        if isinstance(item, Chain | NamedSet) and ("ruleset", space, item.family, item.table) not in self.slots:
            return f"there is no table {item.family} {item.table}"
        if isinstance(item, Vxlan | PortLink) and ("link", space, item.bridge) not in self.slots:
            return f"there is no bridge {item.bridge}"
        return ""


def _phase(item: Item) -> int:
    return 0 if isinstance(item, Space) else 1 if isinstance(item, Bridge | Ruleset) else 2
