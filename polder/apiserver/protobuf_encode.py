"""Answers in Kubernetes' protobuf form, for clients that accept nothing else; all others get JSON, which costs a copy.

Source: as ``protobuf``; events of a watch are length-delimited ``metav1.WatchEvent`` messages without an envelope.
"""

from __future__ import annotations

import base64
import struct
from datetime import UTC, datetime
from typing import Any

import orjson

from polder.api.errors import not_acceptable
from polder.api.meta import Raw
from polder.api.protobuf_table import Message, WireField, find, is_union, message
from polder.api.wireformat import DOUBLE, VARINT, chunk, head, varint
from polder.apiserver.protobuf import MAGIC


def encode_body(obj: Raw) -> bytes:
    """An object, list or Status in its envelope. Raises ApiError 406 for a kind that has no protobuf form."""
    version, kind = str(obj.get("apiVersion", "")), str(obj.get("kind", ""))
    name = find(version, kind)
    if name is None:
        raise not_acceptable(("application/json", "application/yaml"))
    meta = chunk(1, version.encode()) + chunk(2, kind.encode())
    return MAGIC + chunk(1, meta) + chunk(2, _message(message(name), obj)) + chunk(3, b"") + chunk(4, b"")


def encode_event(kind: str, body: bytes) -> bytes:
    """An event of a watch, from its type and its object's JSON, behind its length in four bytes."""
    event = chunk(1, kind.encode()) + chunk(2, chunk(1, encode_body(orjson.loads(body))))
    return struct.pack(">I", len(event)) + event


def _message(form: Message, obj: Any) -> bytes:
    if form.wrapped:
        return b"".join(chunk(1, str(item).encode()) for item in obj)
    return b"".join(_field(field, obj) for field in form.fields.values())


def _field(field: WireField, obj: Raw) -> bytes:
    if field.inline:
        return chunk(field.number, _message(message(field.type), obj))
    value = obj.get(field.name)
    if value is None:
        return b""
    if field.many == "%":
        entries = (chunk(1, key.encode()) + _value(2, field.type, item) for key, item in value.items())
        return b"".join(chunk(field.number, entry) for entry in entries)
    if field.many:
        return b"".join(_value(field.number, field.type, item) for item in value)
    return _value(field.number, field.type, value)


def _value(number: int, kind: str, value: Any) -> bytes:
    """A field with its tag."""
    match kind:
        case "string":
            return chunk(number, str(value).encode())
        case "int" | "bool":
            return head(number, VARINT) + varint(int(value))
        case "double":
            return head(number, DOUBLE) + struct.pack("<d", value)
        case "bytes":
            return chunk(number, base64.b64decode(value))
        case "Quantity":
            return chunk(number, chunk(1, str(value).encode()))
        case "Time" | "MicroTime":
            return chunk(number, _time(value))
        case "IntOrString":
            return chunk(number, _int_or_string(value))
        case "RawExtension":
            return chunk(number, chunk(1, orjson.dumps(value)))
    return chunk(number, _union(kind, value) if is_union(kind) else _message(message(kind), value))


def _time(text: str) -> bytes:
    at = datetime.fromisoformat(text).astimezone(UTC)
    return _value(1, "int", int(at.timestamp())) + _value(2, "int", at.microsecond * 1000)


def _int_or_string(value: int | str) -> bytes:
    if isinstance(value, str):
        return _value(1, "int", 1) + chunk(3, value.encode())
    return _value(1, "int", 0) + _value(2, "int", value)


def _union(kind: str, value: Any) -> bytes:
    """The schema language's alternatives."""
    props = message(f"{kind.partition('.JSON')[0]}.JSONSchemaProps")
    if isinstance(value, dict):
        allowed = _value(1, "bool", True) if kind.endswith("OrBool") else b""
        return allowed + chunk(2 if allowed else 1, _message(props, value))
    if isinstance(value, bool):
        return _value(1, "bool", value)
    return b"".join(chunk(2, item.encode() if isinstance(item, str) else _message(props, item)) for item in value)
