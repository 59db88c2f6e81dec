"""Conversions between the types of CEL: ``int()``, ``string()``, ``timestamp()`` and so on."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, Overload, function
from polder.api.cel.times import format_duration, format_timestamp, parse_duration, parse_timestamp
from polder.api.cel.types import BOOL, BYTES, DOUBLE, DURATION, INT, STRING, TIMESTAMP, UINT, CelType
from polder.api.cel.values import Duration, Timestamp, UInt

_INT: Final = re.compile(r"[+-]?[0-9]{1,40}")
_UINT: Final = re.compile(r"[0-9]{1,40}")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|inf|infinity|nan)",
                           re.IGNORECASE)  # fmt: skip
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def _refused(given: str, wanted: str) -> Fault:
    return Fault(f"type conversion error from '{given}' to '{wanted}'")


def _whole(number: int, low: int, high: int, what: str) -> int:
    if not low <= number <= high:
        raise Fault(f"{what} overflow")
    return number


def _int(value: float, low: int, high: int, what: str) -> int:
    if isinstance(value, float):
        if not math.isfinite(value) or not low < value < high + 1:
            raise Fault(f"{what} overflow")
        value = int(value)
    return _whole(value, low, high, what)


def to_int(value: float) -> int:
    """An int of another number. Raises Fault."""
    return int(_int(value, -(2**63), 2**63 - 1, "integer"))


def to_uint(value: float) -> UInt:
    """A uint of another number. Raises Fault."""
    if isinstance(value, float) and value == 0:
        return UInt(0)
    return UInt(_int(value, 0, 2**64 - 1, "unsigned integer"))


def _parsed_int(text: str) -> int:
    if _INT.fullmatch(text) and -(2**63) <= int(text) < 2**63:
        return int(text)
    raise _refused("string", "int")


def _parsed_uint(text: str) -> UInt:
    if _UINT.fullmatch(text) and int(text) < 2**64:
        return UInt(int(text))
    raise _refused("string", "uint")


def _parsed_double(text: str) -> float:
    if _FLOAT.fullmatch(text):
        found = float(text)
        if math.isfinite(found) or "n" in text.lower():
            return found
    raise _refused("string", "double")


def _parsed_bool(text: str) -> bool:
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise _refused("string", "bool")


def to_duration(text: str) -> Duration:
    """A duration in Go's form. Raises Fault."""
    nanos = parse_duration(text)
    if nanos is None:
        raise _refused("string", "google.protobuf.Duration")
    return Duration(nanos)


def to_timestamp(text: str) -> Timestamp:
    """A time in RFC 3339. Raises Fault."""
    nanos = parse_timestamp(text)
    if nanos is None:
        raise _refused("string", "google.protobuf.Timestamp")
    if not -62135596800 <= nanos // 10**9 <= 253402300799:
        raise Fault("timestamp overflow")
    return Timestamp(nanos)


def _epoch(seconds: int) -> Timestamp:
    if not -62135596800 <= seconds <= 253402300799:
        raise Fault("timestamp overflow")
    return Timestamp(seconds * 10**9)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Fault("invalid UTF-8 in bytes, cannot convert to string") from None


def format_double(value: float) -> str:
    """The shortest text that reads as the same number, in Go's %g form."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    mantissa, _, exponent = text.partition("e")
    power = int(exponent) if exponent else None
    digits, decimals = mantissa.removeprefix("-").partition(".")[::2]
    if power is None:
        power = len(digits) - 1 if digits != "0" else -1 - (len(decimals) - len(decimals.lstrip("0")))
        if value == 0:
            return "-0" if math.copysign(1, value) < 0 else "0"
    if -4 <= power < 21:
        plain = f"{value:.{max(0, 17 + 4 - power)}f}" if exponent else text
        return f"{int(value)}" if value.is_integer() else _trimmed(plain, value)
    short = (digits + decimals).strip("0") or "0"
    tail = f".{short[1:]}" if len(short) > 1 else ""
    return f"{'-' if value < 0 else ''}{short[0]}{tail}e{'+' if power >= 0 else '-'}{abs(power):02d}"


def _trimmed(text: str, value: float) -> str:
    """The shortest of ``text``'s decimals that still reads as the same number."""
    whole, _, decimals = text.partition(".")
    for count in range(1, len(decimals) + 1):
        if float(f"{whole}.{decimals[:count]}") == value:
            return f"{whole}.{decimals[:count]}"
    return text.rstrip("0")


def to_string(value: Any) -> str:
    """``string()`` of a value that has one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return format_double(value)
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, Timestamp):
        return format_timestamp(value)
    if isinstance(value, Duration):
        return format_duration(value)
    assert isinstance(value, str)
    return value


def _same(value: Any) -> Any:
    return value


def _all(result: CelType, name: str, forms: dict[str, tuple[CelType, Callable[[Any], Any]]]) -> tuple[Overload, ...]:
    return tuple(function(f"{text}_to_{name}", (kind,), result, run) for text, (kind, run) in forms.items())


LIBRARY: Final[Library] = {
    "bool": _all(BOOL, "bool", {"bool": (BOOL, _same), "string": (STRING, _parsed_bool)}),
    "bytes": _all(BYTES, "bytes", {"bytes": (BYTES, _same), "string": (STRING, lambda text: text.encode())}),
    "double": _all(
        DOUBLE, "double",
        {"double": (DOUBLE, _same), "int64": (INT, float), "uint64": (UINT, float), "string": (STRING, _parsed_double)},
    ),
    "duration": _all(
        DURATION, "duration", {"duration": (DURATION, _same), "int64": (INT, Duration), "string": (STRING, to_duration)}
    ),
    "int": _all(
        INT, "int64",
        {
            "int64": (INT, _same), "double": (DOUBLE, to_int), "uint64": (UINT, to_int),
            "string": (STRING, _parsed_int), "duration": (DURATION, lambda d: d.nanos),
            "timestamp": (TIMESTAMP, lambda t: t.nanos // 10**9),
        },
    ),
    "string": _all(
        STRING, "string",
        {
            "string": (STRING, to_string), "bool": (BOOL, to_string), "bytes": (BYTES, to_string),
            "double": (DOUBLE, to_string), "duration": (DURATION, to_string), "int64": (INT, to_string),
            "timestamp": (TIMESTAMP, to_string), "uint64": (UINT, to_string),
        },
    ),
    "timestamp": _all(
        TIMESTAMP, "timestamp",
        {"timestamp": (TIMESTAMP, _same), "int64": (INT, _epoch), "string": (STRING, to_timestamp)},
    ),
    "uint": _all(
        UINT, "uint64",
        {"uint64": (UINT, _same), "double": (DOUBLE, to_uint), "int64": (INT, to_uint),
         "string": (STRING, _parsed_uint)},
    ),
}  # fmt: skip
