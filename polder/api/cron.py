"""Cron schedules as CronJobs write them: five fields, or a name such as ``@hourly``.

Source: the cron expression format of the Kubernetes documentation, "CronJob"; its parser's sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from polder.base.errors import PermanentError

_MACROS: Final = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
_YEAR: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_YEAR, 1)}
_DAYS: Final = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_EVERY: Final = re.compile(r"@every (\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
_ZONE: Final = re.compile(r"(CRON_)?TZ=\S+ +")


class CronError(PermanentError):
    """Text that is no schedule."""


@dataclass(frozen=True, slots=True)
class _Bounds:
    low: int
    high: int
    names: dict[str, int]


_FIELDS: Final = (
    _Bounds(0, 59, {}), _Bounds(0, 23, {}), _Bounds(1, 31, {}), _Bounds(1, 12, _MONTHS), _Bounds(0, 6, _DAYS),
)  # fmt: skip


def check_schedule(text: str) -> None:
    """Raises CronError with a sentence where the text is no schedule."""
    rest = _ZONE.sub("", text, count=1)
    if rest.startswith("@"):
        if rest not in _MACROS and not _EVERY.fullmatch(rest):
            raise CronError(f"unrecognized descriptor: {rest}")
        return
    fields = rest.split()
    if len(fields) != len(_FIELDS):
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    for field, bounds in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            _range(part, bounds)


def _range(text: str, bounds: _Bounds) -> None:
    """One of a field's parts: ``*``, ``5``, ``1-5``, each with ``/step``."""
    span, slash, step = text.partition("/")
    if "/" in step:
        raise CronError(f"too many slashes: {text}")
    first, dash, last = span.partition("-")
    if first in ("*", "?"):
        low, high = bounds.low, bounds.high
        if dash:
            raise CronError(f"failed to parse int from {first}: {span}")
    else:
        low = _number(first, bounds)
        if "-" in last:
            raise CronError(f"too many hyphens: {text}")
        high = _number(last, bounds) if dash else bounds.high if slash else low
    if slash and _whole(step) == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    if low < bounds.low:
        raise CronError(f"beginning of range ({low}) below minimum ({bounds.low}): {text}")
    if high > bounds.high:
        raise CronError(f"end of range ({high}) above maximum ({bounds.high}): {text}")
    if low > high:
        raise CronError(f"beginning of range ({low}) beyond end of range ({high}): {text}")


def _number(text: str, bounds: _Bounds) -> int:
    found = bounds.names.get(text.lower())
    return _whole(text) if found is None else found


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
