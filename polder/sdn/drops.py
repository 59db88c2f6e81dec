"""What policies have dropped, by the counts of the kernel's rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Counting(Protocol):
    """The part of the kernel that is asked."""

    async def counts(self, space: str) -> dict[str, list[tuple[int, int]]]:
        """Packets and bytes that the rules of a space's policies have counted, by chain."""
        ...


async def drops_of(kernel: Counting, droppers: Mapping[tuple[str, str], list[str]]) -> dict[str, tuple[int, int]]:
    """Packets and bytes for each title; ``droppers`` has a title for each rule of a chain in a space, empty where it drops
    nothing.
    """
    counts = {space: await kernel.counts(space) for space in {space for space, _ in droppers}}
    found: dict[str, tuple[int, int]] = {}
    for (space, chain), titles in droppers.items():
        for title, (packets, size) in zip(titles, counts[space].get(chain, []), strict=False):
            if title:
                before = found.get(title, (0, 0))
                found[title] = before[0] + packets, before[1] + size
    return found
