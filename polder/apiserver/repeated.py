"""Keys that stand twice in a JSON object: the decoder takes the last and says nothing, but field validation names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

LIMIT: Final = 256 * 1024
"""Bytes of a body that is looked through key by key; a longer one that is not compact is taken as it is."""
_SHOWN: Final = 100
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"[ \t\r\n]*(:?)')


class _Object(dict[str, Any]):
    """A decoded object that remembers the keys that stood twice."""

    repeated: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        found.repeated = tuple(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return found


def repeated_fields(body: bytes, value: Any) -> tuple[str, ...]:
    """A sentence for each key of the body that stands twice in its object, where ``value`` is what was decoded.

    A compact body is as long as what its value encodes to: then there is none, for 2 µs.
    """
    compact = body.strip()
    if len(orjson.dumps(value)) == len(compact) or len(compact) > LIMIT:
        return ()
    if sum(1 for found in _STRING.finditer(compact) if found[1]) == _keys(value):
        return ()
    decoded = json.loads(body, object_pairs_hook=_object)
    return tuple(f'duplicate field "{path}"' for path, _ in zip(_paths(decoded, ""), range(_SHOWN), strict=False))


def _keys(value: Any) -> int:
    """How many keys there are in all objects of a value."""
    count, todo = 0, [value]
    while todo:
        found = todo.pop()
        if isinstance(found, dict):
            count += len(found)
            todo += found.values()
        elif isinstance(found, list):
            todo += found
    return count


def _paths(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, _Object):
        for key in value.repeated:
            yield f"{at}.{key}" if at else key
        for key, inner in value.items():
            yield from _paths(inner, f"{at}.{key}" if at else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _paths(inner, f"{at}[{number}]")
