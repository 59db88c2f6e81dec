"""The standard functions and operators of CEL. Source: CEL's language definition, "List of Standard Definitions"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from polder.api.cel import conversions, regex, values
from polder.api.cel.errors import Fault, no_such_overload
from polder.api.cel.functions import Library, Overload, function, member, metered
from polder.api.cel.times import PARTS, duration_part, timestamp_part
from polder.api.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    list_of,
    map_of,
    param,
    type_of,
)
from polder.api.cel.values import Duration, Items, Meter, Timestamp, TypeValue, UInt

A, B = param("A"), param("B")
LIST_A, MAP_AB = list_of(A), map_of(A, B)
INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
MIN_SECONDS, MAX_SECONDS = -62135596800, 253402300799
"""The years 1 to 9999."""
COPY_FACTOR: Final = 4
"""Items of a list that are copied for a unit of work: it bounds memory rather than time. Upstream does not copy."""


def _int(value: int) -> int:
    if not INT_MIN <= value <= INT_MAX:
        raise Fault("integer overflow")
    return value


def _uint(value: int) -> UInt:
    if not 0 <= value <= UINT_MAX:
        raise Fault("unsigned integer overflow")
    return UInt(value)


def duration(nanos: int) -> Duration:
    """A length of time that CEL can hold. Raises Fault."""
    if not INT_MIN <= nanos <= INT_MAX:
        raise Fault("duration overflow")
    return Duration(nanos)


def timestamp(nanos: int) -> Timestamp:
    """A moment that CEL can hold. Raises Fault."""
    if not MIN_SECONDS <= nanos // 10**9 <= MAX_SECONDS:
        raise Fault("timestamp overflow")
    return Timestamp(nanos)


def _concat(meter: Meter, a: object, b: object) -> object:
    items, others = values.as_list(a), values.as_list(b)
    assert items is not None and others is not None
    meter.work((len(items) + len(others)) // COPY_FACTOR)
    return a.plus(others, meter) if isinstance(a, Items) else [*items, *others]


def _text_concat(meter: Meter, a: Any, b: Any) -> Any:
    meter.work((len(a) + len(b)) // 1000)
    return a + b


def _divide(a: int, b: int) -> int:
    """Towards zero."""
    if b == 0:
        raise Fault("division by zero")
    found = abs(a) // abs(b)
    return found if (a < 0) == (b < 0) else -found


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise Fault("modulus by zero")
    found = abs(a) % abs(b)
    return -found if a < 0 else found


def _divide_double(a: float, b: float) -> float:
    if b == 0:
        if a == 0 or math.isnan(a):
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


def _arithmetic() -> Library:
    ints: dict[str, Callable[[int, int], int]] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": _divide, "modulo": _modulo,
    }  # fmt: skip
    doubles: dict[str, Callable[[float, float], float]] = {
        "add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b,
        "divide": _divide_double,
    }  # fmt: skip
    found: dict[str, tuple[Overload, ...]] = {}
    for symbol, name in (("+", "add"), ("-", "subtract"), ("*", "multiply"), ("/", "divide"), ("%", "modulo")):
        run = ints[name]
        made = [
            function(f"{name}_int64", (INT, INT), INT, lambda a, b, run=run: _int(run(a, b))),
            function(f"{name}_uint64", (UINT, UINT), UINT, lambda a, b, run=run: _uint(run(int(a), int(b)))),
        ]
        if name in doubles:
            made.append(function(f"{name}_double", (DOUBLE, DOUBLE), DOUBLE, doubles[name]))
        found[f"_{symbol}_"] = tuple(made)
    found["_+_"] += (
        metered(function("add_bytes", (BYTES, BYTES), BYTES, _text_concat)),
        metered(function("add_string", (STRING, STRING), STRING, _text_concat)),
        metered(function("add_list", (LIST_A, LIST_A), LIST_A, _concat)),
        function("add_duration_duration", (DURATION, DURATION), DURATION, lambda a, b: duration(a.nanos + b.nanos)),
        function("add_duration_timestamp", (DURATION, TIMESTAMP), TIMESTAMP, lambda a, b: timestamp(a.nanos + b.nanos)),
        function("add_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, lambda a, b: timestamp(a.nanos + b.nanos)),
    )
    found["_-_"] += (
        function("subtract_duration_duration", (DURATION,) * 2, DURATION, lambda a, b: duration(a.nanos - b.nanos)),
        function(
            "subtract_timestamp_duration", (TIMESTAMP, DURATION), TIMESTAMP, lambda a, b: timestamp(a.nanos - b.nanos)
        ),
        function("subtract_timestamp_timestamp", (TIMESTAMP,) * 2, DURATION, lambda a, b: duration(a.nanos - b.nanos)),
    )
    found["-_"] = (
        function("negate_double", (DOUBLE,), DOUBLE, lambda a: -a),
        function("negate_int64", (INT,), INT, lambda a: _int(-a)),
    )
    return found


_NUMBERS: Final = ((INT, "int64"), (UINT, "uint64"), (DOUBLE, "double"))
_ORDERED: Final = ((BOOL, "bool"), (STRING, "string"), (BYTES, "bytes"), (TIMESTAMP, "timestamp"),
                   (DURATION, "duration"))  # fmt: skip


def _comparisons() -> Library:
    tests: dict[str, tuple[str, Callable[[int], bool]]] = {
        "_<_": ("less", lambda order: order < 0),
        "_<=_": ("less_equals", lambda order: order <= 0),
        "_>_": ("greater", lambda order: order > 0),
        "_>=_": ("greater_equals", lambda order: order >= 0),
    }
    found: dict[str, tuple[Overload, ...]] = {}
    for symbol, (name, test) in tests.items():

        def run(a: Any, b: Any, symbol: str = symbol, test: Callable[[int], bool] = test) -> bool:
            return test(values.compare(a, b, symbol))

        made = [function(f"{name}_{text}", (kind, kind), BOOL, run) for kind, text in (*_ORDERED, *_NUMBERS)]
        for kind, text in _NUMBERS:
            made += [function(f"{name}_{text}_{o}", (kind, k), BOOL, run) for k, o in _NUMBERS if o != text]
        found[symbol] = tuple(made)
    return found


def _not(value: object) -> bool:
    if type(value) is not bool:
        raise no_such_overload("!_", values.type_name(value))
    return not value


def _in_map(key: Any, mapping: object) -> bool:
    return values.map_find(mapping, key).there


def _size(value: object) -> int:
    found = values.size(value)
    assert found is not None
    return found


def _logic() -> Library:
    same = metered(function("equals", (A, A), BOOL, lambda meter, a, b: values.equal(a, b, meter)))
    other = metered(function("not_equals", (A, A), BOOL, lambda meter, a, b: not values.equal(a, b, meter)))
    unreached: Callable[..., Any] = _unreached
    return {
        "_&&_": (function("logical_and", (BOOL, BOOL), BOOL, unreached),),
        "_||_": (function("logical_or", (BOOL, BOOL), BOOL, unreached),),
        "_?_:_": (function("conditional", (BOOL, A, A), A, unreached),),
        "@not_strictly_false": (function("not_strictly_false", (BOOL,), BOOL, unreached),),
        "!_": (function("logical_not", (BOOL,), BOOL, _not),),
        "_==_": (same,),
        "_!=_": (other,),
        "_[_]": (
            function("index_list", (LIST_A, INT), A, unreached),
            function("index_map", (MAP_AB, A), B, unreached),
        ),
        "@in": (
            metered(function("in_list", (A, LIST_A), BOOL, _in_list)),
            function("in_map", (A, MAP_AB), BOOL, _in_map),
        ),
    }


def _in_list(meter: Meter, value: object, items: object) -> bool:
    found = values.as_list(items)
    assert found is not None
    return values.contains(found, value, meter)


def _unreached(*_: object) -> object:
    raise AssertionError("evaluated by evaluate.py itself")


def _sizes() -> tuple[Overload, ...]:
    kinds: tuple[tuple[str, CelType], ...] = (("bytes", BYTES), ("list", LIST_A), ("map", MAP_AB), ("string", STRING))
    return tuple(
        made
        for name, kind in kinds
        for made in (function(f"size_{name}", (kind,), INT, _size), member(f"{name}_size", (kind,), INT, _size))
    )


def _texts() -> Library:
    return {
        "size": _sizes(),
        "contains": (member("contains_string", (STRING, STRING), BOOL, lambda a, b: b in a),),
        "endsWith": (member("ends_with_string", (STRING, STRING), BOOL, lambda a, b: a.endswith(b)),),
        "startsWith": (member("starts_with_string", (STRING, STRING), BOOL, lambda a, b: a.startswith(b)),),
        "matches": (
            metered(function("matches", (STRING, STRING), BOOL, regex.matches)),
            metered(member("matches_string", (STRING, STRING), BOOL, regex.matches)),
        ),
        "type": (function("type", (A,), type_of(A), lambda value: TypeValue(values.type_name(value))),),
        "dyn": (function("to_dyn", (A,), DYN, lambda value: value),),
    }


def _times() -> Library:
    found: dict[str, tuple[Overload, ...]] = {}
    for name, text in PARTS.items():

        def run(moment: Timestamp, zone: str = "", name: str = name) -> int:
            return timestamp_part(moment, name, zone)

        found[name] = (
            member(f"timestamp_to_{text}", (TIMESTAMP,), INT, run),
            member(f"timestamp_to_{text}_with_tz", (TIMESTAMP, STRING), INT, run),
        )
    for name in ("getHours", "getMinutes", "getSeconds", "getMilliseconds"):

        def part(length: Duration, name: str = name) -> int:
            return duration_part(length, name)

        found[name] += (member(f"duration_to_{PARTS[name]}", (DURATION,), INT, part),)
    return found


LIBRARIES: Final[tuple[Library, ...]] = (
    _logic(), _arithmetic(), _comparisons(), _texts(), _times(), conversions.LIBRARY,
)  # fmt: skip
