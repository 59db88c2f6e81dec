"""How much of the node its pods have been given, and whether there is room for more. What is given is a pod's requests as
they were granted, not what its spec asks for by now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from polder.node.pods.resources import BEST_EFFORT, BURSTABLE, Amounts

MEMORY = "MemoryPressure"
COUNTED = ("cpu", "memory", "ephemeral-storage")
"""What a pod is refused for, in this order, beside extended resources, which the node does not have."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """What there is too little of: all in the resource's integer unit."""

    resource: str
    requested: int
    used: int
    capacity: int

    @property
    def ever(self) -> bool:
        """Whether there could be enough if others left."""
        return self.requested <= self.capacity

    def __str__(self) -> str:
        if not self.ever:
            return (
                f"Node didn't have enough capacity: {self.resource}, requested: {self.requested}, "
                f"capacity: {self.capacity}"
            )
        return (
            f"Node didn't have enough resource: {self.resource}, requested: {self.requested}, used: {self.used}, "
            f"capacity: {self.capacity}"
        )


@dataclass(frozen=True, slots=True)
class _Given:
    """One pod's part."""

    amounts: Amounts
    quality: str


class Room:
    """The books of a node. ``allocatable``: cpu in thousandths, memory and disk in bytes, ``pods`` their number."""

    def __init__(self, allocatable: Mapping[str, int], pressures: Callable[[], frozenset[str]] = frozenset) -> None:
        self._allocatable = dict(allocatable)
        self._pressures = pressures
        self._given: dict[str, _Given] = {}
        self._used: Amounts = dict.fromkeys(COUNTED, 0)
        self._burstable = 0
        self._waiting: dict[str, Callable[[], None]] = {}

    @property
    def burstable_cpu(self) -> int:
        """Thousandths of a CPU that all Burstable pods together requested."""
        return self._burstable

    def shortage(self, uid: str, wanted: Mapping[str, int], now: Mapping[str, int] | None = None) -> Shortage | None:
        """What keeps a pod from these amounts; None if nothing does. What is no more than it has ``now`` always fits."""
        held = self._given.get(uid)
        for name in COUNTED:
            asked, most = wanted.get(name, 0), self._allocatable.get(name)
            if most is None or not asked or (now is not None and asked <= now.get(name, 0)):
                continue
            used = self._used[name] - (held.amounts.get(name, 0) if held is not None else 0)
            if used + asked > most:
                return Shortage(name, asked, used, most)
        most = self._allocatable.get("pods")
        if now is None and most is not None and held is None and len(self._given) >= most:
            return Shortage("pods", 1, len(self._given), most)
        return None

    def closed(self, quality: str, *, tolerant: bool = False) -> str:
        """Why the node takes no new pod of this class, as upstream says it; empty where it does. Short of memory, it takes none
        that asks for nothing; short of disk or process numbers, none at all. ``tolerant``: it bears shortage of memory.
        """
        found = sorted(self._pressures())
        if not found or (found == [MEMORY] and (quality != BEST_EFFORT or tolerant)):
            return ""
        return f"The node had condition: [{', '.join(found)}]. "

    def give(self, uid: str, amounts: Amounts, quality: str) -> None:
        """Notes what a pod has from now on."""
        less = self._change(uid, _Given(amounts, quality))
        if less:
            self._tell()

    def free(self, uid: str) -> None:
        """A pod has nothing any more."""
        self._waiting.pop(uid, None)
        if self._change(uid, None):
            self._tell()

    def wait(self, uid: str, wake: Callable[[], None]) -> None:
        """Calls back, once, when there may be more room."""
        self._waiting[uid] = wake

    def _change(self, uid: str, new: _Given | None) -> bool:
        """Whether there is more room than before."""
        old = self._given.pop(uid, None)
        if new is not None:
            self._given[uid] = new
        more = False
        for name in COUNTED:
            before = old.amounts.get(name, 0) if old is not None else 0
            after = new.amounts.get(name, 0) if new is not None else 0
            self._used[name] += after - before
            more = more or after < before
        for one, sign in ((old, -1), (new, 1)):
            if one is not None and one.quality == BURSTABLE:
                self._burstable += sign * one.amounts.get("cpu", 0)
        return more

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()
