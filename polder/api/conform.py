"""Brings a decoded JSON object of a built-in kind into its type's form, as Go's decoding into a struct does.

Wrong types are refused with the field's path; unknown fields are cut off and reported; nulls, empty optional lists and
maps, and zeros that Go cannot tell from nothing go; quantities and times become canonical. The caller decides what unknown
fields mean (``fieldValidation``).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from polder.api import errors, quantity
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.schemas import Property, Schema, Shape, schema_of
from polder.base.clock import micro_stamp, stamp

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_RANGES: Final = {Shape.INT32: 2**31, Shape.INT64: 2**63}
_UNKNOWN_LIMIT: Final = 100
_STRING: Final = Shape.STRING


class _MismatchError(Exception):
    """A value of the wrong type; the message is Go's."""


@dataclass(slots=True)
class _Walk:
    """One pass over one object."""

    unknown: list[str] = field(default_factory=list)

    def value(self, schema: Schema, value: Any, path: str, owner: str) -> Any:
        shape = schema.shape
        if shape is _STRING and type(value) is str:
            return value  # most of what there is
        match shape:
            case Shape.OBJECT:
                return self.object(schema, value, path, owner)
            case Shape.LIST:
                if not isinstance(value, list):
                    raise _mismatch(value, owner, path, f"[]{_go(schema.items)}")
                return self.list(schema, value, path, owner)
            case Shape.MAP:
                if not isinstance(value, dict):
                    raise _mismatch(value, owner, path, f"map[string]{_go(schema.items)}")
                return self.map(schema, value, path, owner)
            case Shape.OR_BOOLEAN if schema.items is not None:
                return value if isinstance(value, bool) else self.value(schema.items, value, path, owner)
            case Shape.ANY:
                return value
        return _scalar(shape, value, path, owner)

    def object(self, schema: Schema, value: Any, path: str, owner: str) -> Raw:
        if not isinstance(value, dict):
            raise _mismatch(value, owner, path, schema.name)
        found: Raw = {}
        fields, name = schema.fields, schema.name.rpartition(".")[2]
        for key, item in value.items():
            at = f"{path}.{key}" if path else key
            prop = fields.get(key)
            if prop is None:
                if len(self.unknown) < _UNKNOWN_LIMIT:
                    self.unknown.append(at)
            elif item is not None:
                kept = self.value(prop.schema, item, at, name)
                if kept or not _is_vain(prop, kept):
                    found[key] = kept
        return found

    def list(self, schema: Schema, value: list[Any], path: str, owner: str) -> list[Any]:
        items = schema.items
        assert items is not None
        return [
            self.value(items, item, f"{path}[{at}]", owner) if item is not None else _zero(items)
            for at, item in enumerate(value)
        ]

    def map(self, schema: Schema, value: Raw, path: str, owner: str) -> Raw:
        items = schema.items
        assert items is not None
        return {
            key: self.value(items, item, f"{path}.{key}", owner) if item is not None else _zero(items)
            for key, item in value.items()
        }


def _is_vain(prop: Property, value: Any) -> bool:
    """What Go leaves out: an optional list or map without content, a plain optional value that is zero, false or empty."""
    return not value and (prop.plain or (not prop.required and prop.schema.shape in (Shape.LIST, Shape.MAP)))


def _zero(schema: Schema) -> Any:
    """What Go makes of null inside a list or map."""
    match schema.shape:
        case Shape.STRING | Shape.BYTES:
            return ""
        case Shape.OBJECT | Shape.MAP:
            return {}
        case Shape.LIST:
            return []
        case Shape.BOOLEAN:
            return False
        case Shape.QUANTITY:
            return "0"
        case Shape.ANY | Shape.TIME | Shape.MICRO_TIME | Shape.OR_BOOLEAN:
            return None
    return 0


def _go(schema: Schema | None) -> str:
    return "any" if schema is None else schema.name or schema.shape.value


def _json_name(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    names = {str: "string", int: "number", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "null")


def _mismatch(value: Any, owner: str, path: str, wanted: str) -> _MismatchError:
    found = _json_name(value)
    if found == "number" and wanted in ("int32", "int64"):
        found = f"number {value}"
    return _MismatchError(f"json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")


def _scalar(shape: Shape, value: Any, path: str, owner: str) -> Any:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    match shape:
        case Shape.STRING if isinstance(value, str):
            return value
        case Shape.BOOLEAN if isinstance(value, bool):
            return value
        case Shape.INT32 | Shape.INT64 if is_whole and -_RANGES[shape] <= value < _RANGES[shape]:
            return value
        case Shape.NUMBER if is_whole or isinstance(value, float):
            return value
        case Shape.INT_OR_STRING if isinstance(value, str) or (is_whole and -(2**31) <= value < 2**31):
            return value
        case Shape.QUANTITY if is_whole or isinstance(value, str | float):
            return _quantity(value, path)
        case Shape.BYTES if isinstance(value, str):
            return _bytes(value, path)
        case Shape.TIME | Shape.MICRO_TIME if isinstance(value, str):
            return _time(value, path, micro=shape is Shape.MICRO_TIME)
    raise _mismatch(value, owner, path, shape.value)


def _quantity(value: str | float, path: str) -> str:
    try:
        return str(quantity.parse(value))
    except quantity.QuantityError as error:
        raise _MismatchError(f"{path}: {error}") from error


def _bytes(value: str, path: str) -> str:
    try:
        base64.b64decode(value.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _MismatchError(f"{path}: illegal base64 data: {error}") from error
    return value


def _time(value: str, path: str, *, micro: bool) -> str:
    found = _TIME.fullmatch(value)
    moment = f"{found[1]}{(found[2] or '.0')[:7]}{found[3]}".upper() if found else ""
    try:
        at = datetime.fromisoformat(moment).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        shown = errors.quoted(value)
        why = f'{path}: parsing time {shown} as "2006-01-02T15:04:05Z07:00": cannot parse {shown}'
        raise _MismatchError(why) from error
    return micro_stamp(at) if micro else stamp(at)


@dataclass(frozen=True, slots=True)
class Conformed:
    """The object in its type's form, and the paths of the fields that were cut off."""

    obj: Raw
    unknown: tuple[str, ...]


def conform(kind: Kind, obj: Raw) -> Conformed:
    """The object of a built-in kind in its type's form; the argument stays as it is.

    Raises ApiError 400 when a value has a type that the field cannot take.
    """
    schema = schema_of(kind)
    assert schema is not None, f"{kind.resource} has no type; custom resources go through crd.py"
    return conform_to(schema, kind, obj)


def conform_to(schema: Schema, kind: Kind, obj: Raw) -> Conformed:
    """Like ``conform``, for a body that is no stored kind, such as a Binding."""
    walk = _Walk()
    try:
        found = walk.value(schema, obj, "", kind.kind)
    except _MismatchError as error:
        raise cannot_be_handled(kind, str(error)) from error
    except RecursionError as error:
        raise cannot_be_handled(kind, "it is nested too deeply") from error
    return Conformed(found, tuple(walk.unknown))


def cannot_be_handled(kind: Kind, why: str) -> errors.ApiError:
    """400: a body that cannot be decoded as the kind."""
    return errors.bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


def strict_error(kind: Kind, sentences: Iterable[str]) -> errors.ApiError:
    """400 of ``fieldValidation=Strict``; each sentence names a field that is unknown or stands twice."""
    return cannot_be_handled(kind, f"strict decoding error: {', '.join(sentences)}")


def strict_patch_error(patched: str, sentences: Iterable[str]) -> errors.ApiError:
    """422 of ``fieldValidation=Strict`` for a patch; ``patched`` is what the patch made or was."""
    problem = errors.Field("patch").invalid(patched, f"strict decoding error: {', '.join(sentences)}")
    cause = {"reason": problem.type.reason, "message": problem.body, "field": problem.field}
    return errors.ApiError(422, "Invalid", f' "" is invalid: {problem}', {"causes": [cause]})


def unknown_field(path: str) -> str:
    """The warning of ``fieldValidation=Warn`` about one field."""
    return f"unknown field {errors.quoted(path)}"
