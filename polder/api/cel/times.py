"""Times in CEL: RFC 3339 and Go's form of durations, in nanoseconds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from polder.api.cel.errors import Fault
from polder.api.cel.values import Duration, Timestamp

PARTS: Final = {
    "getFullYear": "year", "getMonth": "month", "getDayOfYear": "day_of_year", "getDate": "day_of_month_1_based",
    "getDayOfMonth": "day_of_month", "getDayOfWeek": "day_of_week", "getHours": "hours", "getMinutes": "minutes",
    "getSeconds": "seconds", "getMilliseconds": "milliseconds",
}  # fmt: skip
_UNITS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9,
                 "h": 3600 * 10**9}  # fmt: skip
_PART: Final = re.compile(r"([0-9]{0,30})(?:\.([0-9]{0,60}))?(ns|us|µs|μs|ms|s|m|h)")
_RFC3339: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+\-]*(?:/[A-Za-z0-9_+\-]+){0,3}")


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration in Go's form (``1h30m``, ``-1.5s``, ``0``); None for anything else."""
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    at, nanos = 0, 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None or not (match[1] or match[2]):
            return None
        unit = _UNITS[match[3]]
        nanos += int(match[1] or 0) * unit
        if match[2]:
            nanos += int(match[2]) * unit // 10 ** len(match[2])
        at = match.end()
        if nanos > 2**63:
            return None
    if not rest or nanos > 2**63 - (not negative):
        return None
    return -nanos if negative else nanos


def parse_timestamp(text: str) -> int | None:
    """Nanoseconds since 1970 of a time in RFC 3339; None for anything else."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[n]) for n in range(1, 7))
    zone = match[8]
    shift = 0
    if zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 24 or minutes > 60:
            return None
        shift = (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
    try:
        found = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    fraction = int((match[7] or "0")[:9].ljust(9, "0"))
    return (int((found - _EPOCH).total_seconds()) - shift) * 10**9 + fraction


def format_timestamp(moment: Timestamp) -> str:
    """RFC 3339 in UTC, with as many digits as needed."""
    seconds, nanos = divmod(moment.nanos, 10**9)
    found = _EPOCH + timedelta(seconds=seconds)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{found.year:04d}-{found:%m-%dT%H:%M:%S}{fraction}Z"


def format_duration(length: Duration) -> str:
    """Seconds, with as many digits as needed."""
    whole, nanos = divmod(abs(length.nanos), 10**9)
    fraction = f".{nanos:09d}".rstrip("0") if nanos else ""
    return f"{'-' if length.nanos < 0 else ''}{whole}{fraction}s"


def _zone(name: str) -> tzinfo:
    if name in ("", "UTC"):
        return UTC
    hours, colon, minutes = name.partition(":")
    if colon:
        try:
            total = int(hours) * 60 + (-int(minutes) if name.startswith("-") else int(minutes))
            return timezone(timedelta(minutes=total))
        except ValueError as error:
            raise Fault(f"unknown time zone {name}") from error
    try:
        if _ZONE.fullmatch(name) is None:
            raise Fault(f"unknown time zone {name}")
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError) as error:
        raise Fault(f"unknown time zone {name}") from error


def timestamp_part(moment: Timestamp, name: str, zone: str) -> int:
    """One part of a moment in a time zone (``Europe/Berlin``, ``+02:00``). Raises Fault."""
    seconds, nanos = divmod(moment.nanos, 10**9)
    try:
        found = (_EPOCH + timedelta(seconds=seconds)).astimezone(_zone(zone))
    except OverflowError as error:
        raise Fault("timestamp overflow") from error
    parts = {
        "getFullYear": found.year, "getMonth": found.month - 1, "getDayOfYear": found.timetuple().tm_yday - 1,
        "getDate": found.day, "getDayOfMonth": found.day - 1, "getDayOfWeek": found.isoweekday() % 7,
        "getHours": found.hour, "getMinutes": found.minute, "getSeconds": found.second,
        "getMilliseconds": nanos // 10**6,
    }  # fmt: skip
    return parts[name]


def duration_part(length: Duration, name: str) -> int:
    """The whole hours, minutes, seconds or milliseconds of a length of time, towards zero."""
    unit = {"getHours": 3600 * 10**9, "getMinutes": 60 * 10**9, "getSeconds": 10**9, "getMilliseconds": 10**6}[name]
    found = abs(length.nanos) // unit
    return -found if length.nanos < 0 else found
