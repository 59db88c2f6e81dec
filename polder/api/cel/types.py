"""The types of CEL as Kubernetes declares them, with the sizes that cost estimates need.

Source: CEL's language definition ("Values", "Gradual type checking") and upstream's apiserver/pkg/cel declarations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

REQUEST_BYTES: Final = 3 * 1024 * 1024
"""The longest request that cost estimates assume, as upstream."""


class Family(Enum):
    """What a type is, apart from its name and parameters."""

    PRIMITIVE = "primitive"
    DYN = "dyn"
    ERROR = "error"
    LIST = "list"
    MAP = "map"
    STRUCT = "struct"
    OPAQUE = "opaque"
    TYPE = "type"
    PARAM = "param"


@dataclass(frozen=True, slots=True)
class CelType:
    """One type. ``fields`` are those of a struct; None there means that every field is known and of any type.

    ``size`` is the largest number of elements (characters, bytes, items) of a value, None where nothing is known;
    ``least`` the fewest bytes that a value takes in JSON. Both serve cost estimates only.
    """

    family: Family
    name: str
    params: tuple[CelType, ...] = ()
    fields: Mapping[str, CelType] | None = field(default=None, compare=False, repr=False)
    size: int | None = field(default=None, compare=False)
    least: int = field(default=1, compare=False)

    def __str__(self) -> str:
        if self.family is Family.ERROR:
            return "!error!"
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(map(str, self.params))})"

    @property
    def is_dyn(self) -> bool:
        """Whether nothing is known of its values before they are there."""
        return self.family is Family.DYN

    @property
    def is_optional(self) -> bool:
        """Whether it is ``optional_type(T)``."""
        return self.family is Family.OPAQUE and self.name == "optional_type"


def _simple(name: str, size: int | None = 1, least: int = 1) -> CelType:
    return CelType(Family.PRIMITIVE, name, size=size, least=least)


BOOL: Final = _simple("bool", 1, 4)
INT: Final = _simple("int")
UINT: Final = _simple("uint")
DOUBLE: Final = _simple("double")
STRING: Final = _simple("string", None, 2)
BYTES: Final = _simple("bytes", None, 2)
NULL: Final = _simple("null_type", 1, 4)
TIMESTAMP: Final = _simple("timestamp")
DURATION: Final = _simple("duration")
DYN: Final = CelType(Family.DYN, "dyn")
ERROR: Final = CelType(Family.ERROR, "!error!")


def list_of(item: CelType, size: int | None = None) -> CelType:
    """``list(item)`` of at most ``size`` items."""
    return CelType(Family.LIST, "list", (item,), size=size, least=2)


def map_of(key: CelType, value: CelType, size: int | None = None) -> CelType:
    """``map(key, value)`` of at most ``size`` entries."""
    return CelType(Family.MAP, "map", (key, value), size=size, least=2)


def struct(name: str, fields: Mapping[str, CelType] | None = None, least: int = 2) -> CelType:
    """An object type of which the fields are known, or (None) any field may be named."""
    return CelType(Family.STRUCT, name, fields=fields, size=None if fields is None else len(fields), least=least)


def opaque(name: str, *params: CelType) -> CelType:
    """A type of a library."""
    return CelType(Family.OPAQUE, name, params)


def optional_of(item: CelType) -> CelType:
    """``optional_type(item)``."""
    return opaque("optional_type", item)


def param(name: str) -> CelType:
    """A type parameter in a function's declaration, or a type that is yet to be found out."""
    return CelType(Family.PARAM, name)


def type_of(item: CelType | None = None) -> CelType:
    """The type of types."""
    return CelType(Family.TYPE, "type", (item,) if item is not None else ())


LIST_DYN: Final = list_of(DYN)
MAP_DYN: Final = map_of(DYN, DYN)
OBJECT: Final = map_of(STRING, DYN)
"""A Kubernetes object without a schema."""

NAMED: Final[Mapping[str, CelType]] = {
    **{t.name: t for t in (TIMESTAMP, DURATION, BOOL, INT, UINT, DOUBLE, STRING, BYTES, NULL, DYN)},
    "list": LIST_DYN,
    "map": MAP_DYN,
    "type": type_of(),
    "google.protobuf.Timestamp": TIMESTAMP,
    "google.protobuf.Duration": DURATION,
    "optional_type": optional_of(DYN),
}
"""Types that an expression may name."""


def resized(kind: CelType, size: int | None, least: int | None = None) -> CelType:
    """The type with another size."""
    return replace(kind, size=size, least=kind.least if least is None else least)
