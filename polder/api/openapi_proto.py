"""A Swagger 2 document as the protobuf that older kubectl asks for: gnostic's OpenAPIv2 (``openapi.v2.Document``).

Message and field numbers are those of the published ``OpenAPIv2.proto``; a writer of a few lines replaces generated code.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final

import orjson

from polder.api.meta import Raw
from polder.api.wireformat import DOUBLE, VARINT, chunk, head, varint


def _text(number: int, value: Any) -> bytes:
    return chunk(number, str(value).encode()) if value else b""


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(chunk(number, value.encode()) for value in values)


def _flag(number: int, value: Any) -> bytes:
    return head(number, VARINT) + b"\x01" if value else b""


def _number(number: int, value: int) -> bytes:
    return head(number, VARINT) + varint(value) if value else b""


def _double(number: int, value: float) -> bytes:
    return head(number, DOUBLE) + struct.pack("<d", value) if value else b""


def _named(number: int, values: Raw, encode: Callable[[Any], bytes]) -> bytes:
    """A map as repeated (name = 1, value = 2)."""
    return b"".join(chunk(number, _text(1, key) + chunk(2, encode(value))) for key, value in values.items())


def _any(value: Any) -> bytes:
    """``Any``: YAML text = 2; JSON is YAML."""
    return _text(2, orjson.dumps(value).decode())


def _extensions(number: int, raw: Raw) -> bytes:
    return _named(number, {key: value for key, value in raw.items() if key.startswith("x-")}, _any)


_SCHEMA_TEXTS: Final = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_DOUBLES: Final = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_SCHEMA_FLAGS: Final = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}
_SCHEMA_NUMBERS: Final = {
    "maxLength": 11, "minLength": 12, "maxItems": 14, "minItems": 15, "maxProperties": 17, "minProperties": 18,
}  # fmt: skip


def _schema(raw: Raw) -> bytes:
    found = [_text(number, raw.get(key)) for key, number in _SCHEMA_TEXTS.items()]
    if "default" in raw:
        found.append(chunk(5, _any(raw["default"])))
    found += [_double(number, raw.get(key) or 0) for key, number in _SCHEMA_DOUBLES.items()]
    found += [_flag(number, raw.get(key)) for key, number in _SCHEMA_FLAGS.items()]
    found += [_number(number, raw.get(key) or 0) for key, number in _SCHEMA_NUMBERS.items()]
    found.append(_texts(19, raw.get("required") or ()))
    found += [chunk(20, _any(value)) for value in raw.get("enum") or ()]
    more = raw.get("additionalProperties")
    if isinstance(more, dict):
        found.append(chunk(21, chunk(1, _schema(more))))
    elif more is not None:
        found.append(chunk(21, _flag(2, more)))
    if "type" in raw:
        found.append(chunk(22, _text(1, raw["type"])))
    if "items" in raw:
        found.append(chunk(23, chunk(1, _schema(raw["items"]))))
    if "properties" in raw:
        found.append(chunk(25, _named(1, raw["properties"], _schema)))
    found.append(_extensions(31, raw))
    return b"".join(found)


def _parameter(raw: Raw) -> bytes:
    """A ``ParametersItem``: parameter = 1 of body = 1, or non-body = 2 of query = 3 or path = 4."""
    if raw["in"] == "body":
        body = (
            _text(2, raw["name"]) + _text(3, "body") + _flag(4, raw.get("required")) + chunk(5, _schema(raw["schema"]))
        )
        return chunk(1, chunk(1, body))
    in_query = raw["in"] == "query"
    fields = (
        _flag(1, raw.get("required")) + _text(2, raw["in"]) + _text(3, raw.get("description")) + _text(4, raw["name"])
    )
    type_, unique = (6, 20) if in_query else (5, 19)
    fields += _text(type_, raw["type"]) + _flag(unique, raw.get("uniqueItems"))
    return chunk(1, chunk(2, chunk(3 if in_query else 4, fields)))


def _response(raw: Raw) -> bytes:
    """A ``ResponseValue``: response = 1."""
    found = _text(1, raw["description"])
    if "schema" in raw:
        found += chunk(2, chunk(1, _schema(raw["schema"])))
    return chunk(1, found)


def _operation(raw: Raw) -> bytes:
    found = _texts(1, raw["tags"]) + _text(3, raw.get("description")) + _text(5, raw["operationId"])
    found += _texts(6, raw["produces"]) + _texts(7, raw["consumes"])
    found += b"".join(chunk(8, _parameter(parameter)) for parameter in raw["parameters"])
    found += chunk(9, _named(1, raw["responses"], _response))
    return found + _texts(10, raw["schemes"]) + _extensions(13, raw)


_METHODS: Final = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path(raw: Raw) -> bytes:
    found = [chunk(number, _operation(raw[method])) for method, number in _METHODS.items() if method in raw]
    found += [chunk(9, _parameter(parameter)) for parameter in raw["parameters"]]
    return b"".join(found)


def encode_document(document: Raw) -> bytes:
    """The document of ``openapi.v2_json``'s form, encoded."""
    info = _text(1, document["info"]["title"]) + _text(2, document["info"]["version"])
    paths = _named(2, document["paths"], _path)
    found = _text(1, document["swagger"]) + chunk(2, info) + chunk(8, paths)
    return found + chunk(9, _named(1, document["definitions"], _schema))
