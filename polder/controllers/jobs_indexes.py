"""Sets of completion indexes as ranges: ``0,3-5`` in a Job's status, however many there are. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Indexes:
    """Ranges (first, last), in order, none touching the next."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        """How many indexes there are."""
        return sum(last - first + 1 for first, last in self.ranges)

    def __contains__(self, index: int) -> bool:
        """Whether the index is one of them."""
        place = bisect_right(self.ranges, (index, 1 << 62)) - 1
        return place >= 0 and index <= self.ranges[place][1]

    def __str__(self) -> str:
        """As the status has it: two neighbours are listed, three are a range."""
        return ",".join(_text(first, last) for first, last in self.ranges)

    def with_(self, others: Iterable[int]) -> Indexes:
        """These and others."""
        return self.merged((index, index) for index in others)

    def merged(self, others: Iterable[tuple[int, int]]) -> Indexes:
        """These and other ranges."""
        found: list[tuple[int, int]] = []
        for first, last in sorted([*self.ranges, *others]):
            if found and first <= found[-1][1] + 1:
                found[-1] = (found[-1][0], max(last, found[-1][1]))
            else:
                found.append((first, last))
        return Indexes(tuple(found))

    def missing(self, total: int) -> Iterator[int]:
        """The indexes below ``total`` that are none of these, in order."""
        at = 0
        for first, last in self.ranges:
            yield from range(at, min(first, total))
            at = max(at, last + 1)
        yield from range(at, total)

    def shared(self, other: Indexes) -> int:
        """How many are in both."""
        mine, theirs, count = list(self.ranges), list(other.ranges), 0
        while mine and theirs:
            count += max(0, min(mine[-1][1], theirs[-1][1]) - max(mine[-1][0], theirs[-1][0]) + 1)
            (mine if mine[-1][0] >= theirs[-1][0] else theirs).pop()
        return count


def parse_indexes(text: str, total: int) -> Indexes:
    """What a status or a rule says, below ``total``; parts that say nothing are passed over."""
    found: list[tuple[int, int]] = []
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            continue
        low, high = int(first), min(int(last) if dash else int(first), total - 1)
        if low <= high:
            found.append((low, high))
    return Indexes().merged(found)


def _text(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first}{',' if last == first + 1 else '-'}{last}"
