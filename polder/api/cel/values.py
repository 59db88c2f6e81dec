"""Values of CEL in Python, and what holds of all of them: names of types, equality, order, size.

bool, int, float, str, bytes, None, list and dict stand for themselves; uint, timestamps, durations, optionals, types and
objects with a schema have classes here; libraries add their own below ``Value``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from polder.api.cel.errors import Fault, OutOfBudgetError, TooLongError, no_such_overload


class UInt(int):
    """An unsigned integer; arithmetic on it is done by the functions of CEL only."""

    __slots__ = ()


class Value:
    """A value that is not one of Python's."""

    __slots__ = ()
    type_name = "object"

    def equals(self, other: object, meter: Meter) -> bool:  # noqa: ARG002 - containers count what they compare
        """Whether they are the same."""
        return self == other


class Meter:
    """Counts what an evaluation takes. ``cost`` is in upstream's units, ``extra`` work that they do not count (each unit
    about 1 µs). ``turn`` is what may be spent before the program must go elsewhere.
    """

    __slots__ = ("cost", "extra", "limit", "low", "per_call", "turn")

    EXTRA_LIMIT: Final = 2_000_000

    def __init__(self, limit: int, turn: int, *, per_call: bool = True) -> None:
        self.cost = 0
        self.extra = 0
        self.limit = limit
        self.turn = turn
        self.low = min(limit, turn)
        """A cost up to which nothing needs a closer look."""
        self.per_call = per_call

    def check(self) -> None:
        """Raises OutOfBudgetError, TooLongError."""
        if self.cost > self.limit or self.extra > self.EXTRA_LIMIT:
            raise OutOfBudgetError(self.per_call)
        if self.cost + self.extra > self.turn:
            raise TooLongError
        self.low = min(self.limit, self.turn - self.extra)

    def work(self, amount: int) -> None:
        """Counts work beside the cost. Raises as ``check`` does."""
        if amount:
            self.extra += amount
            self.check()


@dataclass(frozen=True, slots=True, order=True)
class Duration(Value):
    """A signed length of time in nanoseconds."""

    nanos: int
    type_name = "duration"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp(Value):
    """A moment, in nanoseconds since 1970 (UTC)."""

    nanos: int
    type_name = "timestamp"


@dataclass(frozen=True, slots=True)
class TypeValue(Value):
    """A type as a value."""

    name: str
    type_name = "type"


@dataclass(frozen=True, slots=True)
class Optional(Value):
    """``optional.none()``, or a value."""

    there: bool
    value: Any = None
    type_name = "optional_type"

    def equals(self, other: object, meter: Meter) -> bool:
        """Both empty, or the same inside."""
        if not isinstance(other, Optional) or self.there != other.there:
            return False
        return not self.there or equal(self.value, other.value, meter)


NONE: Final = Optional(False)


class Items(ABC):
    """A list of which the items are made when they are asked for."""

    __slots__ = ("_made",)
    type_name = "list"
    unordered = False
    """Whether it is a set or map as a list, which compares in its own way."""

    def __init__(self) -> None:
        self._made: list[Any] | None = None

    @property
    def made(self) -> list[Any]:
        """The items."""
        if self._made is None:
            self._made = self._make()
        return self._made

    @abstractmethod
    def _make(self) -> list[Any]: ...

    def equals(self, other: object, meter: Meter) -> bool:
        """Whether they are the same, for a list that compares in its own way."""
        return equal(self.made, other, meter)

    def plus(self, other: Sequence[Any], meter: Meter) -> object:  # noqa: ARG002
        """This list and the other's items."""
        return [*self.made, *other]


class Entries(ABC):
    """A map of which the values are made when they are asked for."""

    __slots__ = ()
    type_name = "map"

    @abstractmethod
    def find(self, key: object) -> Optional:
        """The value of a key."""

    @abstractmethod
    def keys(self) -> list[Any]:
        """All keys."""


class Fields(ABC):
    """An object: fields by name."""

    __slots__ = ()
    type_name = "object"

    @abstractmethod
    def find(self, name: str) -> Optional:
        """The value of a field that is set."""

    @abstractmethod
    def names(self) -> list[str]:
        """The fields that are set."""

    def equals(self, other: object, meter: Meter) -> bool:
        """The same fields with the same values, in objects of the same type."""
        if not isinstance(other, Fields) or other.type_name != self.type_name:
            return False
        names = self.names()
        meter.work(len(names))
        if sorted(names) != sorted(other.names()):
            return False
        return all(equal(self.find(name).value, other.find(name).value, meter) for name in names)


_NAMES: Final[dict[type, str]] = {
    bool: "bool", int: "int", UInt: "uint", float: "double", str: "string", bytes: "bytes", type(None): "null_type",
    list: "list", dict: "map",
}  # fmt: skip
_SAME: Final = frozenset({str, bytes})
_NUMBERS: Final = frozenset({int, UInt, float})


def type_name(value: object) -> str:
    """The name of the value's type."""
    name = _NAMES.get(type(value))
    if name is not None:
        return name
    assert isinstance(value, Value | Items | Entries | Fields), type(value)
    return value.type_name


def as_list(value: object) -> list[Any] | None:
    """The items of a list; None for anything else."""
    if type(value) is list:
        return value
    return value.made if isinstance(value, Items) else None


def is_map(value: object) -> bool:
    """Whether it is a map."""
    return type(value) is dict or isinstance(value, Entries)


def map_keys(value: object) -> list[Any]:
    """The keys of a map."""
    if type(value) is dict:
        return list(value)
    assert isinstance(value, Entries)
    return value.keys()


def map_find(value: object, key: object) -> Optional:
    """The value of a map's key."""
    if isinstance(value, Entries):
        return value.find(key)
    assert type(value) is dict
    kind = type(key)
    if kind not in _NUMBERS and kind is not str and kind is not bool:
        return NONE
    if key not in value:
        return NONE
    if kind is bool or kind in _NUMBERS:  # Python takes True and 1 for the same key
        found = next(k for k in value if k == key)
        if (type(found) is bool) != (kind is bool):
            return NONE
    return Optional(True, value[key])


def equal(a: object, b: object, meter: Meter) -> bool:
    """CEL's ``==``: numbers across their types, containers deeply; values of different types differ."""
    kind = type(a)
    if kind in _SAME:
        return type(b) is kind and a == b
    if kind in _NUMBERS:
        return type(b) in _NUMBERS and a == b
    if kind is bool or a is None:
        return a is b
    if isinstance(a, Items) and a.unordered:
        return a.equals(b, meter)
    items = as_list(a)
    if items is not None:
        others = as_list(b)
        if others is None or len(others) != len(items):
            return False
        meter.work(1 + len(items) // 4)
        return all(equal(x, y, meter) for x, y in zip(items, others, strict=True))
    if is_map(a):
        return is_map(b) and _equal_maps(a, b, meter)
    assert isinstance(a, Value | Fields)
    return a.equals(b, meter)


def _equal_maps(a: object, b: object, meter: Meter) -> bool:
    keys = map_keys(a)
    meter.work(1 + len(keys) // 2)
    if len(keys) != len(map_keys(b)):
        return False
    for key in keys:
        other = map_find(b, key)
        if not other.there or not equal(map_find(a, key).value, other.value, meter):
            return False
    return True


def contains(items: Sequence[Any], value: object, meter: Meter) -> bool:
    """CEL's ``in`` for lists."""
    if type(value) is str:
        return value in items
    meter.work(len(items) // 4)
    return any(equal(item, value, meter) for item in items)


def compare(a: Any, b: Any, name: str) -> int:
    """-1, 0 or 1; numbers compare across their types. Raises Fault."""
    if type(a) in _NUMBERS and type(b) in _NUMBERS:
        if a != a or b != b:  # noqa: PLR0124 - not a number
            raise Fault("NaN values cannot be ordered")
    elif type(a) is not type(b) or type(a) not in _ORDERED:
        raise no_such_overload(name, type_name(a), type_name(b))
    if type(a) is str:  # as upstream: by the bytes of UTF-8
        return (a > b) - (a < b) if a.isascii() and b.isascii() else _by_bytes(a, b)
    return int(a > b) - int(a < b)


def _by_bytes(a: str, b: str) -> int:
    x, y = a.encode("utf-8", "surrogatepass"), b.encode("utf-8", "surrogatepass")
    return (x > y) - (x < y)


_ORDERED: Final = frozenset({bool, int, UInt, float, str, bytes, Timestamp, Duration})


def size(value: object) -> int | None:
    """Characters, bytes, items or entries; None for what has no size."""
    if type(value) in (str, bytes, list, dict):
        return len(value)  # type: ignore[arg-type]
    if isinstance(value, Items):
        return len(value.made)
    if isinstance(value, Entries):
        return len(value.keys())
    return None


def cost_size(value: object) -> int:
    """The size that costs are computed from; 1 for what has none."""
    if isinstance(value, Optional) and value.there:
        return cost_size(value.value)
    found = size(value)
    return 1 if found is None else found


class DynamicObject(Fields):
    """An object that an expression made (``Object.spec{…}``): any field, of any type."""

    __slots__ = ("fields", "type_name")

    def __init__(self, type_name: str, fields: Mapping[str, object]) -> None:
        self.type_name = type_name
        self.fields = fields

    def find(self, name: str) -> Optional:
        """The value of a field that is set."""
        return Optional(True, self.fields[name]) if name in self.fields else NONE

    def names(self) -> list[str]:
        """The fields that are set."""
        return list(self.fields)


def iterate(value: object) -> Iterator[tuple[Any, Any]] | None:
    """Key (or position) and value of each item; None for what a comprehension cannot go over."""
    items = as_list(value)
    if items is not None:
        return iter(list(enumerate(items)))
    if is_map(value):
        return iter([(key, map_find(value, key).value) for key in map_keys(value)])
    return None
