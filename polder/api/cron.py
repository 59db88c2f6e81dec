"""Cron schedules as CronJobs write them: five fields, or a name such as ``@hourly``; and when one is due.

Source: the cron expression format of the Kubernetes documentation, "CronJob"; its parser's sentences. Where a day of the
month and a day of the week are both named, either will do (POSIX crontab). An hour that a change to summer time leaves out is
left out; one that comes twice counts twice.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final

from polder.base.errors import PermanentError

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_YEAR: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = {name: number for number, name in enumerate(_YEAR, 1)}
_DAYS: Final = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_EVERY: Final = re.compile(r"@every (\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST: Final = 10 * 366 * 86400.0
_ZONE: Final = re.compile(r"(?:CRON_)?TZ=(\S+) +")
_MOST_TEXT: Final = 4096
_YEARS: Final = 5
"""How far a time is looked for: a 29th of February comes within eight, and upstream gives up after five."""


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
    parse_schedule(text)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that was understood. ``period`` is that of ``@every``, in seconds, 0 for none. ``either``: one of the two
    kinds of days will do. ``zone`` is the zone that the text itself names.
    """

    minutes: tuple[int, ...] = ()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    either: bool = False
    period: float = 0.0
    zone: str = ""

    def after(self, at: datetime, zone: tzinfo) -> datetime | None:
        """The first time after ``at``, in UTC; None if none comes within five years."""
        if self.period:
            return at.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=self.period)
        began = (at.astimezone(UTC) + timedelta(minutes=1)).replace(second=0, microsecond=0)
        local = began.astimezone(zone)
        day, last = local.date(), local.year + _YEARS
        while day.year <= last:
            if self._has(day):
                # Local midnight may come later than it should, or twice: a few hours more are looked at than the day has.
                start = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) - timedelta(hours=2)
                found = self._within(max(began, start), day, zone)
                if found is not None:
                    return found
            day = self._next_day(day)
        return None

    def _next_day(self, day: date) -> date:
        if day.month in self.months:
            return day + timedelta(days=1)
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)

    def _has(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        of_month, of_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return of_month or of_week if self.either else of_month and of_week

    def _within(self, start: datetime, day: date, zone: tzinfo) -> datetime | None:
        """The first time from ``start`` on that is on the day there."""
        at = start
        while (local := at.astimezone(zone)).date() <= day:
            here = local.date() == day and local.hour in self.hours
            place = bisect_left(self.minutes, local.minute) if here else len(self.minutes)
            if place < len(self.minutes):
                found = at + timedelta(minutes=self.minutes[place] - local.minute)
                there = found.astimezone(zone)
                if (there.date(), there.hour, there.minute) == (day, local.hour, self.minutes[place]):
                    return found
            at += timedelta(minutes=60 - local.minute)
        return None


def parse_schedule(text: str) -> Schedule:
    """What the text means. Raises CronError with a sentence where it is no schedule."""
    if len(text) > _MOST_TEXT:
        raise CronError(f"a schedule has at most {_MOST_TEXT} characters")
    named = _ZONE.match(text)
    zone = named.group(1) if named else ""
    rest = text[named.end() :] if named else text
    if rest.startswith("@"):
        if _EVERY.fullmatch(rest):
            seconds = sum(float(count) * _SECONDS[unit] for count, unit in _AMOUNT.findall(rest))
            return Schedule(period=float(max(1, int(min(seconds, _LONGEST)))), zone=zone)
        if rest not in _MACROS:
            raise CronError(f"unrecognized descriptor: {rest}")
        rest = _MACROS[rest]
    fields = rest.split()
    if len(fields) != len(_FIELDS):
        raise CronError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    found = [_field(field, bounds) for field, bounds in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (numbers for numbers, _ in found)
    either = not (found[2][1] or found[4][1])
    return Schedule(tuple(sorted(minutes)), hours, days, months, weekdays, either, 0.0, zone)


def _field(text: str, bounds: _Bounds) -> tuple[frozenset[int], bool]:
    """The numbers of a field, and whether it leaves the choice to others."""
    ranges = [_range(part, bounds) for part in text.split(",")]
    return frozenset().union(*(numbers for numbers, _ in ranges)), any(every for _, every in ranges)


def _range(text: str, bounds: _Bounds) -> tuple[range, bool]:
    """One of a field's parts: ``*``, ``5``, ``1-5``, each with ``/step``; and whether it is ``*``."""
    span, slash, step = text.partition("/")
    if "/" in step:
        raise CronError(f"too many slashes: {text}")
    first, dash, last = span.partition("-")
    every = first in ("*", "?")
    if every:
        low, high = bounds.low, bounds.high
        if dash:
            raise CronError(f"failed to parse int from {first}: {span}")
    else:
        low = _number(first, bounds)
        if "-" in last:
            raise CronError(f"too many hyphens: {text}")
        high = _number(last, bounds) if dash else bounds.high if slash else low
    stride = _whole(step) if slash else 1
    if stride == 0:
        raise CronError(f"step of range should be a positive number: {text}")
    if low < bounds.low:
        raise CronError(f"beginning of range ({low}) below minimum ({bounds.low}): {text}")
    if high > bounds.high:
        raise CronError(f"end of range ({high}) above maximum ({bounds.high}): {text}")
    if low > high:
        raise CronError(f"beginning of range ({low}) beyond end of range ({high}): {text}")
    return range(low, high + 1, stride), every and stride == 1


def _number(text: str, bounds: _Bounds) -> int:
    found = bounds.names.get(text.lower())
    return _whole(text) if found is None else found


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise CronError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)
