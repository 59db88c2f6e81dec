"""``string.format``: ``%s``, ``%d``, ``%f``, ``%e``, ``%b``, ``%x``, ``%X``, ``%o`` with what CEL prints for each type."""

from __future__ import annotations

import math
import re
from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.conversions import to_string
from polder.api.cel.errors import Fault
from polder.api.cel.values import Duration, Meter, Timestamp, TypeValue, UInt, type_name

_CLAUSE: Final = re.compile(r"(?:\.([0-9]*))?(.)?", re.DOTALL)
_PRECISION: Final = 6
_PRECISION_LIMIT: Final = 1000
_SPECIAL: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _go_quoted(text: str) -> str:
    """As Go's %q for ordinary text."""
    found = []
    for char in text:
        if char in '"\\':
            found.append("\\" + char)
        elif char.isprintable():
            found.append(char)
        else:
            found.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char) or f"\\x{ord(char):02x}")
    return '"' + "".join(found) + '"'


def _inner(meter: Meter, value: Any) -> str:
    """A value inside a list or map, as a literal of CEL."""
    if isinstance(value, str):
        return _go_quoted(value)
    if isinstance(value, bytes):
        return "b" + _go_quoted(to_string(value))
    if isinstance(value, float):
        return f"{value:.6f}" if math.isfinite(value) else f'"{_nonfinite(value)}"'
    if isinstance(value, Timestamp | Duration):
        return f'{value.type_name}("{to_string(value)}")'
    return _text(meter, value)


def _text(meter: Meter, value: Any) -> str:
    """``%s``. Raises Fault."""
    items = values.as_list(value)
    if items is not None:
        meter.work(len(items))
        return "[" + ", ".join(_inner(meter, item) for item in items) + "]"
    if values.is_map(value):
        keys = values.map_keys(value)
        meter.work(2 * len(keys))
        pairs = [(_inner(meter, key), _inner(meter, values.map_find(value, key).value)) for key in keys]
        return "{" + ", ".join(f"{key}:{shown}" for key, shown in sorted(pairs)) + "}"
    if value is None:
        return "null"
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, str | bytes):
        meter.work(len(value) // 100)
    if isinstance(value, bool | int | float | str | bytes | Timestamp | Duration):
        return to_string(value)
    raise _refused(
        "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, "
        "and timestamps", value,
    )  # fmt: skip


def _refused(why: str, value: Any) -> Fault:
    return Fault(f"error during formatting: {why}, was given {type_name(value)}")


def _nonfinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _number(value: Any, precision: int | None, clause: str) -> str:
    if isinstance(value, str) and value in _SPECIAL:
        value = _SPECIAL[value]
    if not isinstance(value, float):
        what = "fixed-point clause" if clause == "f" else "scientific clause"
        raise _refused(f"{what} can only be used on doubles", value)
    if not math.isfinite(value):
        return _nonfinite(value)
    places = _PRECISION if precision is None else precision
    if clause == "f":
        return f"{value:,.{places}f}"
    return f"{value:.{places}e}"


def _whole(value: Any, clause: str) -> str:
    if clause in "xX" and isinstance(value, str | bytes):
        found = (value.encode() if isinstance(value, str) else value).hex()
        return found.upper() if clause == "X" else found
    if clause == "b" and isinstance(value, bool):
        return "1" if value else "0"
    if type(value) not in (int, UInt):
        names = {
            "d": "decimal clause can only be used on integers",
            "b": "only integers and bools can be formatted as binary",
            "x": "only integers, byte buffers, and strings can be formatted as hex",
            "o": "octal clause can only be used on integers",
        }
        raise _refused(names[clause.lower()], value)
    return format(int(value), clause)


def format_text(meter: Meter, text: str, args: Any) -> str:
    """``text.format(args)``. Raises Fault."""
    given = values.as_list(args) or []
    parts: list[str] = []
    at, used = 0, 0
    while True:
        end = text.find("%", at)
        parts.append(text[at:] if end < 0 else text[at:end])
        if end < 0:
            return "".join(parts)
        if text.startswith("%%", end):
            parts.append("%")
            at = end + 2
            continue
        if used >= len(given):
            raise Fault(f"index {used} out of range")
        match = _CLAUSE.match(text, end + 1)
        assert match is not None
        parts.append(_one(meter, given[used], match))
        meter.work(1 + len(parts[-1]) // 20)
        used, at = used + 1, match.end()


def _one(meter: Meter, value: Any, match: re.Match[str]) -> str:
    clause = match[2]
    if clause is None:
        raise Fault("unexpected end of string")
    precision = int(match[1][:6]) if match[1] else (0 if match[1] == "" else None)
    if precision is not None and precision > _PRECISION_LIMIT:
        raise Fault(f"could not parse formatting clause: precision {precision} is more than {_PRECISION_LIMIT}")
    if clause == "s":
        return _text(meter, value)
    if clause in "fe":
        return _number(value, precision, clause)
    if clause in "dbxXo":
        return _whole(value, clause)
    raise Fault(f'could not parse formatting clause: unrecognized formatting clause "{clause}"')
