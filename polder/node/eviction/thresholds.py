"""Thresholds: how much of a resource must be free (upstream's signals and their defaults). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from polder.api.quantity import Quantity, QuantityError, whole
from polder.base.errors import PermanentError

MEMORY, NODE_FS, NODE_INODES = "memory.available", "nodefs.available", "nodefs.inodesFree"
IMAGE_FS, IMAGE_INODES, PIDS = "imagefs.available", "imagefs.inodesFree", "pid.available"
SIGNALS = (MEMORY, NODE_FS, NODE_INODES, IMAGE_FS, IMAGE_INODES, PIDS)
CONDITIONS: Mapping[str, str] = {
    MEMORY: "MemoryPressure", NODE_FS: "DiskPressure", NODE_INODES: "DiskPressure", IMAGE_FS: "DiskPressure",
    IMAGE_INODES: "DiskPressure", PIDS: "PIDPressure",
}  # fmt: skip
RESOURCES: Mapping[str, str] = {
    MEMORY: "memory", NODE_FS: "ephemeral-storage", NODE_INODES: "inodes", IMAGE_FS: "ephemeral-storage",
    IMAGE_INODES: "inodes", PIDS: "pids",
}  # fmt: skip
DEFAULT: Mapping[str, str] = {
    MEMORY: "100Mi", NODE_FS: "5%", NODE_INODES: "5%", IMAGE_FS: "5%", IMAGE_INODES: "5%", PIDS: "10%"
}  # fmt: skip
"""The kubelet's, but for disks (10% and 15% there): its nodes are machines of their own, this one may be somebody's desk."""


@dataclass(frozen=True, slots=True)
class Amount:
    """What of a resource there is, in all and free."""

    capacity: int
    available: int


@dataclass(frozen=True, slots=True)
class Threshold:
    """At least so much must be free: an amount, or a share of the whole. ``text`` is how it was written."""

    signal: str
    text: str
    amount: int = 0
    share: float = 0.0

    def quantity(self, capacity: int) -> int:
        """In the resource's unit."""
        return int(capacity * self.share) if self.share else self.amount

    def is_met(self, found: Amount) -> bool:
        """Whether there is too little. A resource of which nothing is known is not short."""
        return found.capacity > 0 and found.available < self.quantity(found.capacity)


def parse_thresholds(given: Mapping[str, str]) -> tuple[Threshold, ...]:
    """Those that are given, the defaults for all others; ``0`` or ``0%`` switches one off. Raises PermanentError."""
    found = []
    for signal in given.keys() - set(SIGNALS):
        raise PermanentError(f"configuration: evictionHard has no signal {signal!r}; known are {', '.join(SIGNALS)}")
    for signal, text in {**DEFAULT, **given}.items():
        one = _parse(signal, text)
        if one.amount or one.share:
            found.append(one)
    return tuple(found)


def _parse(signal: str, text: str) -> Threshold:
    try:
        if not text.endswith("%"):
            return Threshold(signal, text, amount=whole(text))
        share = float(text[:-1]) / 100
    except (QuantityError, ValueError) as error:
        raise PermanentError(
            f"configuration: evictionHard {signal} {text!r} is no quantity and no percentage"
        ) from error
    if not 0 <= share < 1:
        raise PermanentError(f"configuration: evictionHard {signal} {text!r} is not between 0% and 100%")
    return Threshold(signal, text, share=share)


def shown(signal: str, amount: int) -> str:
    """An amount of a signal as a quantity."""
    binary = signal in (MEMORY, NODE_FS, IMAGE_FS)
    return str(Quantity(Decimal(amount), "binary" if binary else "decimal"))
