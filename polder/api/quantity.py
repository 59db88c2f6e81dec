"""Kubernetes quantities: parse, compare, print canonically (apimachinery ``api/resource``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Final

from polder.base.errors import PermanentError

_FORM: Final = re.compile(r"([+-]?)(\d+(?:\.\d*)?|\.\d+)((?:[KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_NANO: Final = Decimal("1e-9")
_LIMIT: Final = Decimal(2**63 - 1)
RULE: Final = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


class QuantityError(PermanentError):
    """Text that is no quantity."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact number with the family of suffixes that it was written in: ``decimal``, ``binary``, ``exponent``."""

    value: Decimal
    family: str = "decimal"

    def __str__(self) -> str:
        """The canonical form: no fraction, the largest suffix that keeps the number whole."""
        if not self.value:
            return "0"
        if self.family == "binary" and abs(self.value) >= 1024 and self.value == self.value.to_integral_value():
            return _binary(int(self.value))
        return _decimal(self.value, self.family == "exponent")

    def ceil(self) -> int:
        """Rounded up to a whole number (bytes)."""
        return int(self.value.to_integral_value(ROUND_UP if self.value > 0 else "ROUND_CEILING"))

    def milli(self) -> int:
        """Rounded up to a whole number of thousandths (CPU)."""
        return Quantity(self.value * 1000).ceil()


def _binary(number: int) -> str:
    suffix = ""
    for name in _BINARY:
        if number % 1024:
            break
        number //= 1024
        suffix = name
    return f"{number}{suffix}"


def _decimal(value: Decimal, exponent: bool) -> str:
    power = -9
    number = int(value.scaleb(9).to_integral_value())
    while number % 1000 == 0 and power < 18:
        number //= 1000
        power += 3
    if exponent:
        return f"{number}e{power}" if power else str(number)
    suffix = next(name for name, found in _DECIMAL.items() if found == power)
    return f"{number}{suffix}"


def parse(text: str | int | float) -> Quantity:
    """Reads a quantity; digits beyond nano round away from zero as upstream's do. Raises QuantityError."""
    if isinstance(text, bool):
        raise QuantityError(RULE)
    found = _FORM.fullmatch(repr(text) if isinstance(text, float) else str(text))
    if found is None or len(found[0]) > 64:
        raise QuantityError(RULE)
    number, suffix = Decimal(found[1] + found[2]), found[3] or ""
    if suffix in _BINARY:
        family, value = "binary", number * 1024 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        family, value = "decimal", number.scaleb(_DECIMAL[suffix])
    elif abs(int(suffix[1:])) > 40:
        raise QuantityError("unable to parse quantity's suffix")
    else:
        family, value = "exponent", number.scaleb(int(suffix[1:]))
    value = max(-_LIMIT, min(_LIMIT, value))
    return Quantity(value.quantize(_NANO, ROUND_UP) if value != value.to_integral_value() else value, family)


def whole(text: str | int | float) -> int:
    """Rounded up to whole units (bytes), as upstream's Value()."""
    return parse(text).ceil()


def milli(text: str | int | float) -> int:
    """Rounded up to thousandths (CPU), as upstream's MilliValue()."""
    return parse(text).milli()
