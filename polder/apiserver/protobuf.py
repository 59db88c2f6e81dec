"""Bodies in Kubernetes' protobuf form, which Go's typed clients send, decoded to the JSON form.

Source: encoding as protobuf.dev, "Encoding"; the envelope is ``runtime.Unknown`` behind four bytes of magic. What a
message consists of: ``protobuf_table``. A field that Go keeps as a plain value is always on the wire; in JSON it shows only
where it says something, as Go's own JSON does.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from polder.api.errors import bad_request
from polder.api.meta import Raw
from polder.api.protobuf_table import WireField, find, is_union, message
from polder.base.clock import micro_stamp, stamp

MEDIA: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"
DEPTH_LIMIT: Final = 60
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(ValueError):
    """Bytes that are no message of the expected type."""


def decode_body(body: bytes) -> Raw:
    """The object of an enveloped message, with apiVersion and kind. Raises ApiError 400."""
    try:
        if not body.startswith(MAGIC):
            raise MalformedError("the body does not begin with the magic number of Kubernetes' protobuf")  # noqa: TRY301
        envelope = {number: value for number, _, value in _fields(body[len(MAGIC) :])}
        meta = {number: _text(value) for number, _, value in _fields(_bytes(envelope.get(1, b"")))}
        version, kind = meta.get(1, ""), meta.get(2, "")
        name = find(version, kind)
        if name is None:
            raise MalformedError(f'kind "{kind}" of "{version}" is not accepted in this form; send JSON')  # noqa: TRY301
        obj = _message(name, _bytes(envelope.get(2, b"")), 0)
    except (MalformedError, IndexError, struct.error, UnicodeDecodeError, OverflowError) as problem:
        raise bad_request(f"error decoding the body as protobuf: {problem}") from None
    return {"apiVersion": version, "kind": kind, **obj}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise MalformedError("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Number, wire type and raw value of each field."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        else:
            length = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
            if kind == _BYTES:
                length, at = _varint(data, at)
            if length < 0 or at + length > len(data):
                raise MalformedError(f"field {number} is cut off or of an unknown wire type")
            value, at = data[at : at + length], at + length
        yield number, kind, value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise MalformedError("a number stands where bytes belong")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _message(name: str, data: bytes, depth: int) -> Raw:
    """A message as its JSON form; unknown fields are ignored, as protobuf wants it."""
    if depth > DEPTH_LIMIT:
        raise MalformedError("it is nested too deeply")
    known, found = message(name).fields, Raw()
    for number, kind, raw in _fields(data):
        field = known.get(number)
        if field is None:
            continue
        if field.inline:
            found.update(_message(field.type, _bytes(raw), depth + 1))
        elif field.many == "%":
            key, value = _entry(field.type, _bytes(raw), depth)
            found.setdefault(field.name, {})[key] = value
        elif field.many:
            found.setdefault(field.name, []).extend(_repeated(field.type, kind, raw, depth))
        elif _says_something(field, value := _value(field.type, raw, depth)):
            found[field.name] = value
    return found


def _says_something(field: WireField, value: Any) -> bool:
    """Whether Go's JSON would show the field."""
    return value is not None and (bool(value) or isinstance(value, dict) or field.meant or field.shown)


def _repeated(kind: str, wire: int, raw: int | bytes, depth: int) -> list[Any]:
    """One element, or several packed numbers."""
    if kind != "int" or wire != _BYTES:
        return [_value(kind, raw, depth)]
    packed, found, at = _bytes(raw), [], 0
    while at < len(packed):
        number, at = _varint(packed, at)
        found.append(_signed(number))
    return found


def _entry(kind: str, data: bytes, depth: int) -> tuple[str, Any]:
    """A map's entry: key is field 1, value field 2; both may be missing when empty."""
    parts = {number: raw for number, _, raw in _fields(data)}
    empty: int | bytes = 0 if kind in {"int", "bool"} else b""
    return _text(parts.get(1, b"")), _value(kind, parts.get(2, empty), depth)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _value(kind: str, raw: int | bytes, depth: int) -> Any:
    if kind == "string":
        return _text(raw)
    if kind in {"int", "bool"}:
        if not isinstance(raw, int):
            raise MalformedError("bytes stand where a number belongs")
        return bool(raw) if kind == "bool" else _signed(raw)
    data = _bytes(raw)
    match kind:
        case "bytes":
            return base64.b64encode(data).decode()
        case "double":
            return _number(struct.unpack("<d", data)[0])
        case "Quantity":
            return _text({n: v for n, _, v in _fields(data)}.get(1, b"0"))
        case "Time" | "MicroTime":
            return _time(data, micro=kind == "MicroTime")
        case "IntOrString":
            parts = {n: v for n, _, v in _fields(data)}
            return _text(parts.get(3, b"")) if parts.get(1) else _signed(int(parts.get(2, 0)))
        case "RawExtension":
            return _raw_extension(data)
    if is_union(kind):
        return _union(kind, data, depth)
    if message(kind).wrapped:
        return [_value("string", item, depth) for _, _, item in _fields(data)]
    return _message(kind, data, depth + 1)


def _number(value: float) -> float | int:
    """Whole numbers as JSON's whole numbers, as Go writes them."""
    return int(value) if value.is_integer() and abs(value) < 1 << 53 else value


def _union(kind: str, data: bytes, depth: int) -> Any:
    """The schema language's alternatives: a schema, or a list of schemas or of names, or a boolean."""
    section = kind.partition(".JSON")[0]
    schema, others, allows = None, list[Any](), False
    for number, _, raw in _fields(data):
        if kind.endswith("OrBool") and number == 1:
            allows = bool(raw)
        elif (kind.endswith("OrBool") and number == 2) or (not kind.endswith("OrBool") and number == 1):
            schema = _message(f"{section}.JSONSchemaProps", _bytes(raw), depth + 1)
        elif number == 2 and kind.endswith("OrStringArray"):
            others.append(_text(raw))
        elif number == 2:
            others.append(_message(f"{section}.JSONSchemaProps", _bytes(raw), depth + 1))
    if schema is not None:
        return schema
    return allows if kind.endswith("OrBool") else others


def _time(data: bytes, *, micro: bool) -> str | None:
    """Seconds and nanoseconds since 1970; an empty message is no time."""
    parts = {n: v for n, _, v in _fields(data)}
    if not parts:
        return None
    seconds, nanos = _signed(int(parts.get(1, 0))), int(parts.get(2, 0))
    try:
        at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanos // 1000 % 1_000_000)
    except (ValueError, OSError) as problem:
        raise MalformedError(f"a time is out of range: {problem}") from None
    return micro_stamp(at) if micro else stamp(at)


def _raw_extension(data: bytes) -> Any:
    raw = _bytes({n: v for n, _, v in _fields(data)}.get(1, b"null"))
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise MalformedError("an embedded object is not JSON") from None
