"""Ranges of whole numbers that stop at 2**64-1: sizes and costs that are not known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

LIMIT: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Range:
    """From ``least`` to ``most``."""

    least: int
    most: int

    def __add__(self, other: Range) -> Range:
        return Range(min(self.least + other.least, LIMIT), min(self.most + other.most, LIMIT))

    def __mul__(self, other: Range) -> Range:
        return Range(min(self.least * other.least, LIMIT), min(self.most * other.most, LIMIT))

    def times(self, factor: float) -> Range:
        """Multiplied and rounded up."""
        return Range(_scaled(self.least, factor), _scaled(self.most, factor))

    def union(self, other: Range) -> Range:
        """All that either one allows."""
        return Range(min(self.least, other.least), max(self.most, other.most))


def _scaled(number: int, factor: float) -> int:
    found = math.ceil(float(number) * factor)
    return min(found, LIMIT)


def fixed(number: int) -> Range:
    """Exactly one number."""
    return Range(number, number)


NOTHING: Final = fixed(0)
ZERO: Final = NOTHING
ONE: Final = fixed(1)
ANY: Final = Range(0, LIMIT)
