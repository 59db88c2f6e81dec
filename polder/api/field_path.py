"""Paths to a field of a schema: ``.spec.replicas``, ``.spec['my.key']`` (``fieldPath`` of rules, selectable fields)."""

from __future__ import annotations

import re
from typing import Final

from polder.api.errors import Field
from polder.api.meta import Raw
from polder.base.errors import PermanentError

_TOKEN: Final = re.compile(r"'(?:[^'\\]|\\.)*'|[.\[\]]|[^.\[\]]+")
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "'": "'", "\\": "\\"}


class FieldPathError(PermanentError):
    """A text that is no path to a field of the schema."""


def _unquoted(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise FieldPathError(f"invalid string literal: invalid escape char {match.group()}")
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", one, text[1:-1], flags=re.DOTALL)


def _step(schema: Raw, name: str, at: Field) -> tuple[Raw, Field]:
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    if properties:
        if name not in properties:
            raise FieldPathError("does not refer to a valid field")
        return properties[name], at / name
    if isinstance(more, dict):
        return more, at[name]
    raise FieldPathError("does not refer to a valid field")


def resolve(path: str, schema: Raw, *, brackets: bool = True) -> tuple[Field, Raw]:
    """The path as errors show it, and the schema that it leads to. Raises FieldPathError."""
    at = Field()
    tokens = [match.group() for match in _TOKEN.finditer(path)]
    rest = iter(tokens)
    for part in rest:
        if part == ".":
            name = next(rest, None)
            if name is None:
                raise FieldPathError("unexpected end of JSON path")
            schema, at = _step(schema, name, at)
        elif part == "[":
            if not brackets:
                raise FieldPathError("array notation is not allowed")
            name = next(rest, None)
            if name is None:
                raise FieldPathError("unexpected end of JSON path")
            if len(name) < 2 or name[0] != "'" or name[-1] != "'":
                raise FieldPathError(f"expected single quoted string but got {name}")
            schema, at = _step(schema, _unquoted(name), at)
            end = next(rest, None)
            if end is None:
                raise FieldPathError("unexpected end of JSON path")
            if end != "]":
                raise FieldPathError(f"expected ] but got {end}")
        else:
            raise FieldPathError(f"expected [ or . but got: {part}")
    return at, schema
