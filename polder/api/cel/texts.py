"""CEL's extension of strings (version 2): charAt, indexOf, join, replace, split, substring, format and so on."""

from __future__ import annotations

from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.errors import Fault
from polder.api.cel.formatting import format_text
from polder.api.cel.functions import Library, function, member, metered
from polder.api.cel.types import DYN, INT, STRING, list_of
from polder.api.cel.values import Meter

_LOWER: Final = {code: code + 32 for code in range(65, 91)}
_UPPER: Final = {code: code - 32 for code in range(97, 123)}
_QUOTED: Final = str.maketrans({"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
                                "\v": "\\v", "\\": "\\\\", '"': '\\"'})  # fmt: skip
_SPACES: Final = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def _out(place: int) -> Fault:
    return Fault(f"index out of range: {place}")


def _char_at(text: str, place: int) -> str:
    if not 0 <= place <= len(text):
        raise _out(place)
    return text[place : place + 1]


def _index_of(meter: Meter, text: str, part: str, start: int = 0) -> int:
    meter.work(len(text) * min(len(part), 64) // 4000)
    if not part:
        return start
    if start < 0:
        raise _out(start)
    return text.find(part, start)


def _last_index_of(meter: Meter, text: str, part: str, start: int | None = None) -> int:
    meter.work(len(text) * min(len(part), 64) // 4000)
    if not part:
        return len(text) if start is None else start
    if start is None:
        return text.rfind(part)
    if start < 0:
        raise _out(start)
    return -1 if start >= len(text) else text.rfind(part, 0, start + len(part))


def _replace(meter: Meter, text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old) if count < 0 else min(text.count(old), count)
    meter.work((len(text) + found * max(len(new) - len(old), 0)) // 20)
    return text.replace(old, new, count)


def _split(meter: Meter, text: str, separator: str, count: int = -1) -> list[str]:
    meter.work(len(text) // 100)
    if count == 0:
        return []
    if separator:
        return text.split(separator, -1 if count < 0 else count - 1)
    if count < 0 or count >= len(text):
        return list(text)
    return [*text[: count - 1], text[count - 1 :]]


def _substring(text: str, start: int, end: int | None = None) -> str:
    if end is not None and start > end:
        raise Fault(f"invalid substring range. start: {start}, end: {end}")
    if not 0 <= start <= len(text):
        raise _out(start)
    if end is not None and not 0 <= end <= len(text):
        raise _out(end)
    return text[start:end]


def _join(meter: Meter, items: Any, separator: str = "") -> str:
    parts = values.as_list(items) or []
    for part in parts:
        if not isinstance(part, str):
            raise Fault(f"join: invalid input: {part}")
    size = sum(map(len, parts)) + len(separator) * max(len(parts) - 1, 0)
    meter.cost += -(-size // 5)
    meter.check()
    return separator.join(parts)


def quote(text: str) -> str:
    """In double quotes, with CEL's escapes."""
    return f'"{text.translate(_QUOTED)}"'


LIBRARY: Final[Library] = {
    "charAt": (member("string_char_at_int", (STRING, INT), STRING, _char_at),),
    "indexOf": (
        metered(member("string_index_of_string", (STRING, STRING), INT, _index_of)),
        metered(member("string_index_of_string_int", (STRING, STRING, INT), INT, _index_of)),
    ),
    "lastIndexOf": (
        metered(member("string_last_index_of_string", (STRING, STRING), INT, _last_index_of)),
        metered(member("string_last_index_of_string_int", (STRING, STRING, INT), INT, _last_index_of)),
    ),
    "lowerAscii": (member("string_lower_ascii", (STRING,), STRING, lambda text: text.translate(_LOWER)),),
    "upperAscii": (member("string_upper_ascii", (STRING,), STRING, lambda text: text.translate(_UPPER)),),
    "replace": (
        metered(member("string_replace_string_string", (STRING,) * 3, STRING, _replace)),
        metered(member("string_replace_string_string_int", (STRING, STRING, STRING, INT), STRING, _replace)),
    ),
    "split": (
        metered(member("string_split_string", (STRING, STRING), list_of(STRING), _split)),
        metered(member("string_split_string_int", (STRING, STRING, INT), list_of(STRING), _split)),
    ),
    "substring": (
        member("string_substring_int", (STRING, INT), STRING, _substring),
        member("string_substring_int_int", (STRING, INT, INT), STRING, _substring),
    ),
    "trim": (member("string_trim", (STRING,), STRING, lambda text: text.strip(_SPACES)),),
    "format": (metered(member("string_format", (STRING, list_of(DYN)), STRING, format_text)),),
    "strings.quote": (function("strings_quote", (STRING,), STRING, quote),),
    "join": (
        metered(member("list_join", (list_of(STRING),), STRING, _join)),
        metered(member("list_join_string", (list_of(STRING), STRING), STRING, _join)),
    ),
}
