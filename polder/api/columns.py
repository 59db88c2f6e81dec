"""What a column of a Table is, and how ages and durations are written (apimachinery's ``util/duration``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from polder.api.meta import TENANT_ANNOTATION, Raw

Cell = Callable[[Raw, datetime], Any]
UNKNOWN: Final = "<unknown>"
NONE: Final = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``priority`` above 0 is shown by ``-o wide`` only. ``type`` and ``format`` are OpenAPI's."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


def part(obj: Any, path: str) -> Any:
    """The value at a dotted path, None where the path ends early."""
    for key in path.split("."):
        obj = obj.get(key) if isinstance(obj, dict) else None
    return obj


def text(name: str, path: str, *, missing: str = "", priority: int = 0, description: str = "") -> Column:
    """A column that shows one field as text."""

    def cell(obj: Raw, _: datetime) -> str:
        found = part(obj, path)
        return missing if found in (None, "") else str(found)

    return Column(name, cell, description=description, priority=priority)


def integer(name: str, path: str, *, priority: int = 0) -> Column:
    """A column that shows one number, 0 where it is missing."""
    return Column(name, lambda obj, _: part(obj, path) or 0, "integer", priority=priority)


def count(name: str, *paths: str) -> Column:
    """A column that counts what several maps or lists hold together."""
    return Column(name, lambda obj, _: sum(len(part(obj, path) or ()) for path in paths), "integer")


def moment(stamp: str | None) -> datetime | None:
    """An RFC 3339 moment; None for none or a broken one."""
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC) if stamp else None
    except ValueError:
        return None


def since(stamp: str | None, now: datetime) -> str:
    """The time since an RFC 3339 moment."""
    then = moment(stamp)
    return UNKNOWN if then is None else duration(int((now - then).total_seconds()))


def duration(seconds: int) -> str:
    """Two units at most, as precise as the length deserves (HumanDuration)."""
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _age(obj: Raw, now: datetime) -> str:
    return since(part(obj, "metadata.creationTimestamp"), now)


NAME: Final = Column(
    "Name",
    lambda obj, _: part(obj, "metadata.name") or "",
    format="name",
    description="Name must be unique within a namespace. Is required when creating resources.",
)
AGE: Final = Column("Age", _age, description="CreationTimestamp is the server time when this object was created.")
TENANT: Final = Column(
    "Tenant",
    lambda obj, _: (part(obj, "metadata.annotations") or {}).get(TENANT_ANNOTATION, ""),
    description="The tenant that the object belongs to.",
)
"""Comes first in views over all tenants."""
