"""Lines of waiting things, one for each tenant (or whoever they are counted for), served in turn and each within a share."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

Turn = Callable[[Any], Hashable]
"""Whom a thing's turn is counted for; None: nobody, and without a share."""


def turn_of(key: Hashable) -> Hashable:
    """The key's ``tenant``, if it has one."""
    turn: Hashable = getattr(key, "tenant", None)
    return turn


class Turns(Generic[K]):
    """The keys that are ready; the lines are served round robin. The line of one that has its share of keys in work stands
    aside until one of them is done.
    """

    def __init__(self, turn: Turn, share: int | None) -> None:
        self._turn = turn
        self._share = share
        self._lines: OrderedDict[Hashable, deque[K]] = OrderedDict()
        self._aside: dict[Hashable, deque[K]] = {}
        self._busy: Counter[Hashable] = Counter()

    def __bool__(self) -> bool:
        """Whether there is a key that may be taken."""
        return bool(self._lines)

    def push(self, key: K) -> bool:
        """Whether its line may be served."""
        turn = self._turn(key)
        if self._is_full(turn):
            self._aside.setdefault(turn, deque()).append(key)
            return False
        self._lines.setdefault(turn, deque()).append(key)
        return True

    def pop(self) -> K:
        """The next key, in work from now on."""
        turn, line = self._lines.popitem(last=False)
        key = line.popleft()
        if turn is not None:
            self._busy[turn] += 1
        if line and self._is_full(turn):
            self._aside[turn] = line
        elif line:
            self._lines[turn] = line  # at the end: the others come first
        return key

    def done(self, key: K) -> bool:
        """A key's work is over; whether that lets a line be served again."""
        turn = self._turn(key)
        if turn is None:
            return False
        self._busy[turn] -= 1
        if not self._busy[turn]:
            del self._busy[turn]
        line = self._aside.pop(turn, None)
        if line is None:
            return False
        self._lines[turn] = line
        return True

    def _is_full(self, turn: Hashable) -> bool:
        return turn is not None and self._share is not None and self._busy[turn] >= self._share
