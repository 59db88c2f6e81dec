"""The columns that each kind shows in a Table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from polder.api.meta import Raw
from polder.apiserver.catalog import Resource

Cell = Callable[[Raw, datetime], Any]
UNKNOWN: Final = "<unknown>"
NONE: Final = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``priority`` above 0 is shown by ``-o wide`` only."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


def age(obj: Raw, now: datetime) -> str:
    """How long ago the object was created."""
    return since(obj["metadata"].get("creationTimestamp"), now)


def since(stamp: str | None, now: datetime) -> str:
    """The time since an RFC 3339 moment as kubectl writes durations."""
    if not stamp:
        return UNKNOWN
    try:
        then = datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return UNKNOWN
    return duration(int((now - then).total_seconds()))


def duration(seconds: int) -> str:
    """Two units at most, as precise as the length deserves (apimachinery's HumanDuration)."""
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


def _name(obj: Raw, _: datetime) -> str:
    return str(obj["metadata"]["name"])


NAME: Final = Column("Name", _name, format="name", description="Name must be unique within a namespace.")
AGE: Final = Column("Age", age, description="CreationTimestamp is when the server made this object.")
_PLAIN: Final = (NAME, AGE)
_BY_RESOURCE: dict[str, Sequence[Column]] = {}


def columns_of(resource: Resource) -> Sequence[Column]:
    """The columns of a resource."""
    if resource.custom is not None:
        return custom_columns(resource.custom.columns)
    return _BY_RESOURCE.get(resource.kind.resource, _PLAIN)


def custom_columns(declared: Sequence[Mapping[str, Any]]) -> Sequence[Column]:
    """A custom kind's ``additionalPrinterColumns``; name and age where it has none."""
    return _PLAIN
