"""From a structural schema to CEL: the type of ``self`` with its bounds, and values as the schema types them.

Source: upstream's SchemaDeclType and UnstructuredToVal (facts only). What a schema does not describe cannot be named.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.errors import Fault
from polder.api.cel.parser import RESERVED
from polder.api.cel.times import parse_duration, parse_timestamp
from polder.api.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    REQUEST_BYTES,
    STRING,
    TIMESTAMP,
    CelType,
    list_of,
    map_of,
    resized,
    struct,
)
from polder.api.cel.values import NONE, Duration, Entries, Fields, Items, Meter, Optional, Timestamp
from polder.api.meta import Raw

INT_OR_STRING: Final = "x-kubernetes-int-or-string"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_KEYS: Final = "x-kubernetes-list-map-keys"
_RESERVED: Final = (RESERVED - {"var", "void", "while"}) | {"true", "false", "null", "in", "var", "void", "while"}
_ESCAPED: Final = re.compile(r"__|[-./]")
_NAME: Final = re.compile(r"[A-Za-z_./-][A-Za-z0-9_./-]*")
_WORDS: Final = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_META: Final = {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}}
_TEXT: Final = {"type": "string"}


def escape(name: str) -> str | None:
    """The name of a field in CEL; None for one that CEL cannot name."""
    if name in _RESERVED:
        return f"__{name}__"
    if not _NAME.fullmatch(name):
        return None
    return _ESCAPED.sub(lambda match: _WORDS[match.group()], name)


def with_meta(schema: Raw) -> Raw:
    """The schema of a resource: kind, apiVersion and the names in metadata can always be named."""
    properties = schema.get("properties") or {}
    inner = (properties.get("metadata") or {}).get("properties") or {}
    if {"kind", "apiVersion", "metadata"} <= set(properties) and {"name", "generateName"} <= set(inner):
        return schema
    return {**schema, "properties": {**properties, "kind": _TEXT, "apiVersion": _TEXT, "metadata": _META}}


def _bounded(text: Raw, otherwise: int, factor: int = 4) -> int:
    limit = text.get("maxLength")
    return max(limit, 0) * factor if limit is not None else otherwise


def _string_type(schema: Raw) -> CelType:
    form = schema.get("format")
    if form == "byte":
        return resized(BYTES, _bounded(schema, REQUEST_BYTES - 2, 1))
    if form == "duration":
        return resized(DURATION, 32, 3)
    if form == "date":
        return resized(TIMESTAMP, 12, 12)
    if form == "date-time":
        return resized(TIMESTAMP, 32, 21)
    longest = max((len(v.encode()) for v in schema.get("enum") or () if isinstance(v, str)), default=REQUEST_BYTES - 2)
    return resized(STRING, _bounded(schema, longest))


def declared(schema: Raw, name: str = "self", *, is_resource: bool = False) -> CelType | None:
    """The type of a schema; None where CEL cannot see it."""
    if schema.get(INT_OR_STRING):
        return resized(DYN, _bounded(schema, REQUEST_BYTES - 2), 1)
    schema = with_meta(schema) if is_resource else schema
    match schema.get("type"):
        case "array":
            return _list_type(schema, name)
        case "object":
            return _object_type(schema, name)
        case "string":
            return _string_type(schema)
        case "boolean":
            return BOOL
        case "number":
            return DOUBLE
        case "integer":
            return INT
    return None


def _inner(schema: Any, name: str) -> CelType | None:
    if not isinstance(schema, dict):
        return None
    return declared(schema, name, is_resource=bool(schema.get(EMBEDDED)))


def _list_type(schema: Raw, name: str) -> CelType | None:
    item = _inner(schema.get("items"), f"{name}.@idx")
    if item is None:
        return None
    limit = schema.get("maxItems")
    return list_of(item, max(limit, 0) if limit is not None else (REQUEST_BYTES - 2) // (item.least + 1))


def _object_type(schema: Raw, name: str) -> CelType | None:
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        value = _inner(more, f"{name}.@elem")
        if value is None:
            return None
        limit = schema.get("maxProperties")
        return map_of(STRING, value, max(limit, 0) if limit is not None else (REQUEST_BYTES - 2) // (value.least + 6))
    required = set(schema.get("required") or ())
    least, fields = 2, {}
    for key, part in (schema.get("properties") or {}).items():
        kind = _inner(part, f"{name}.{key}")
        if kind is None:
            continue
        escaped = escape(key)
        if escaped is not None:
            fields[escaped] = kind
        if key in required and "default" not in part:
            least += len(key) + kind.least + 4
    return struct(name, fields, least)


# --- values -----------------------------------------------------------------------------------------------------------

Wrap = Callable[[Any], Any]


def wrapper(schema: Raw, *, is_resource: bool = False) -> Wrap:
    """What makes CEL's values of a schema's JSON. It raises Fault for what is not of the schema's type."""
    if schema.get(INT_OR_STRING):
        return _same
    schema = with_meta(schema) if is_resource else schema
    match schema.get("type"):
        case "array":
            return _list_wrapper(schema)
        case "object":
            return _object_wrapper(schema)
        case "number":
            return lambda value: float(value) if type(value) is int else value
        case "integer":
            return lambda value: int(value) if type(value) is float and value.is_integer() else value
        case "string":
            return _TEXTS.get(schema.get("format", ""), _same)
    return _same


def _same(value: Any) -> Any:
    return value


def _bytes_of(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Fault(f"Invalid byte formatted string {value}: illegal base64 data") from None


def _duration_of(value: Any) -> Any:
    nanos = parse_duration(value) if isinstance(value, str) else None
    if nanos is None:
        raise Fault(f"Invalid duration {value}")
    return Duration(nanos)


def _time_of(value: Any) -> Any:
    nanos = parse_timestamp(value) if isinstance(value, str) else None
    if nanos is None:
        raise Fault(f"Invalid date-time formatted string {value}")
    return Timestamp(nanos)


def _date_of(value: Any) -> Any:
    nanos = parse_timestamp(f"{value}T00:00:00Z")
    if nanos is None:
        raise Fault(f"Invalid date formatted string {value}")
    return Timestamp(nanos)


_TEXTS: Final[dict[str, Wrap]] = {
    "byte": _bytes_of, "duration": _duration_of, "date-time": _time_of, "date": _date_of,
}  # fmt: skip


def _lazy(schema: Raw) -> Wrap:
    """The wrapper of an inner schema, made when it is first needed."""

    @functools.lru_cache(maxsize=1)
    def made() -> Wrap:
        return wrapper(schema, is_resource=bool(schema.get(EMBEDDED)))

    return lambda value: None if value is None else made()(value)


def _is_plain(schema: Raw) -> bool:
    """Whether JSON's values are CEL's already."""
    if schema.get(INT_OR_STRING):
        return True
    return schema.get("type") in ("boolean", "string") and schema.get("format", "") not in _TEXTS


def _list_wrapper(schema: Raw) -> Wrap:
    items = schema.get("items") or {}
    inner, kind = _lazy(items), schema.get(LIST_TYPE, "")
    if kind not in ("set", "map") and _is_plain(items):
        return _same
    keys = tuple(schema.get(LIST_KEYS) or ())
    return lambda value: TypedList(value, inner, kind, keys) if isinstance(value, list) else value


def _object_wrapper(schema: Raw) -> Wrap:
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        value_of = _lazy(more)
        if _is_plain(more):
            return _same
        return lambda value: TypedMap(value, value_of) if isinstance(value, dict) else value
    fields: dict[str, tuple[str, Wrap]] = {}
    for key, part in (schema.get("properties") or {}).items():
        escaped = escape(key)
        if escaped is not None and isinstance(part, dict):
            fields[escaped] = (key, _lazy(part))
    return lambda value: TypedObject(value, fields) if isinstance(value, dict) else value


class TypedList(Items):
    """A list whose items have a schema; ``kind`` is set, map or empty."""

    __slots__ = ("_inner", "_keys", "_kind", "_raw")

    def __init__(self, raw: list[Any], inner: Wrap, kind: str, keys: tuple[str, ...]) -> None:
        super().__init__()
        self._raw, self._inner, self._kind, self._keys = raw, inner, kind, keys

    @property
    def unordered(self) -> bool:  # type: ignore[override]
        """Whether the order of the items means nothing."""
        return self._kind in ("set", "map")

    def _make(self) -> list[Any]:
        return [self._inner(item) for item in self._raw]

    def _key(self, item: Any) -> tuple[Any, ...] | None:
        if not isinstance(item, Fields | Entries):
            return None
        return tuple((found.there, found.value) for found in (item.find(escape(key) or key) for key in self._keys))

    def equals(self, other: object, meter: Meter) -> bool:
        """As sets, or as maps by their keys."""
        items, others = self.made, values.as_list(other)
        if others is None or len(items) != len(others):
            return False
        meter.work(len(items))
        if self._kind == "set":
            return all(values.contains(others, item, meter) for item in items)
        by_key = {self._key(item): item for item in others}
        for item in items:
            key = self._key(item)
            if key not in by_key or not values.equal(item, by_key[key], meter):
                return False
        return True

    def plus(self, other: Sequence[Any], meter: Meter) -> object:
        """The union of sets; a map's items replace those of the same key."""
        found = list(self.made)
        if self._kind == "set":
            found += [item for item in other if not values.contains(found, item, meter)]
            return found
        if self._kind != "map":
            return [*found, *other]
        places = {self._key(item): place for place, item in enumerate(found)}
        for item in other:
            key = self._key(item)
            if key in places:
                found[places[key]] = item
            else:
                places[key] = len(found)
                found.append(item)
        return found


class TypedMap(Entries):
    """A map whose values have a schema."""

    __slots__ = ("_inner", "_raw")

    def __init__(self, raw: Raw, inner: Wrap) -> None:
        self._raw, self._inner = raw, inner

    def find(self, key: object) -> Optional:
        """The value of a key."""
        if not isinstance(key, str) or key not in self._raw:
            return NONE
        return Optional(True, self._inner(self._raw[key]))

    def keys(self) -> list[Any]:
        """All keys."""
        return list(self._raw)


class TypedObject(Fields):
    """An object with a schema: only what that describes can be seen, under CEL's names."""

    __slots__ = ("_fields", "_raw")
    type_name = "object"

    def __init__(self, raw: Raw, fields: dict[str, tuple[str, Wrap]]) -> None:
        self._raw, self._fields = raw, fields

    def find(self, name: str) -> Optional:
        """The value of a field that is set."""
        known = self._fields.get(name)
        if known is None or known[0] not in self._raw:
            return NONE
        return Optional(True, known[1](self._raw[known[0]]))

    def names(self) -> list[str]:
        """The fields that are set."""
        return [name for name, (key, _) in self._fields.items() if key in self._raw]
