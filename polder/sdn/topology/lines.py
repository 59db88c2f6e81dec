"""Canonical text of a frozen dataclass: one line, ``Kind field=value …``, fields in order, defaults left out.

A value is a JSON string where it is text, a decimal number, ``true``/``false``, a JSON list of strings, or a JSON list
of such lists for tuples of small dataclasses. Dumping is injective, and parsing a dump gives an equal value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, get_args, get_type_hints

from polder.base.errors import PermanentError


class LineError(PermanentError):
    """A line that no dump produces."""


def dump_line(value: Any) -> str:
    """One line for one value."""
    words = [type(value).__name__]
    for item in fields(value):
        content = getattr(value, item.name)
        if not _is_default(item, content):
            words.append(f"{item.name}={_encode(content)}")
    return " ".join(words)


def parse_line(text: str, types: Mapping[str, type]) -> Any:
    """The value of one line; ``types`` by class name. Raises LineError with what is wrong."""
    kind, _, rest = text.strip().partition(" ")
    if kind not in types:
        raise LineError(f"line {text!r}: {kind!r} is none of {', '.join(sorted(types))}")
    hints = _hints(types[kind])
    values: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    while rest:
        name, equals, after = rest.partition("=")
        if not equals or name not in hints:
            raise LineError(f"line {text!r}: {kind} has no field {name!r}")
        try:
            raw, end = decoder.raw_decode(after)
            values[name] = _decode(raw, hints[name])
        except (ValueError, TypeError) as error:
            raise LineError(f"line {text!r}: field {name}: {error}") from error
        rest = after[end:].lstrip(" ")
    try:
        return types[kind](**values)
    except TypeError as error:
        raise LineError(f"line {text!r}: {error}") from error


def dump_lines(values: Iterable[Any]) -> str:
    """Sorted lines, each ended by a newline."""
    return "".join(sorted(f"{dump_line(value)}\n" for value in values))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _is_default(item: Field[Any], content: Any) -> bool:
    return item.default is not MISSING and bool(content == item.default)


def _encode(content: Any) -> str:
    return json.dumps(_plain(content), ensure_ascii=True, separators=(",", ":"))


def _plain(content: Any) -> Any:
    if isinstance(content, tuple):
        return [_plain(item) for item in content]
    if isinstance(content, (str, int)):
        return content
    return [_plain(getattr(content, item.name)) for item in fields(content)]


def _decode(raw: Any, hint: Any) -> Any:
    if hint in (str, int, bool):
        if type(raw) is not hint:
            raise TypeError(f"{raw!r} is no {hint.__name__}")
        return raw
    inner = get_args(hint)[0]
    if not isinstance(raw, list):
        raise TypeError(f"{raw!r} is no list")
    if inner is str:
        return tuple(_decode(item, str) for item in raw)
    names = list(_hints(inner).values())
    return tuple(inner(*(_decode(p, h) for p, h in zip(item, names, strict=True))) for item in raw)
