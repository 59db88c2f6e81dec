"""Kubernetes resource quantities: ``500m``, ``1Gi``, ``2e3`` (apimachinery's resource.Quantity grammar)."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

from polder.base.errors import PermanentError

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?")
_BINARY = {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def parse_quantity(text: str | float) -> Decimal:
    """The exact value in units (CPUs, bytes …). Raises PermanentError for what is no quantity."""
    found = _FORM.fullmatch(str(text))
    if found is None:
        raise PermanentError(f"{text!r} is no quantity; write for example 500m, 1.5, 128Mi or 2e3")
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        return number * _BINARY[suffix]
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


def whole(text: str | float) -> int:
    """The value rounded up to whole units, as upstream's Value()."""
    return int(parse_quantity(text).to_integral_value(ROUND_CEILING))


def milli(text: str | float) -> int:
    """The value in thousandths, rounded up, as upstream's MilliValue()."""
    return int((parse_quantity(text) * 1000).to_integral_value(ROUND_CEILING))
