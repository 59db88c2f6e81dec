"""Structural schemas of custom resources: pruning, defaulting and validation of raw objects (apiextensions/v1).

A schema is the JSON of ``openAPIV3Schema`` after ``crd_rules`` found nothing wrong with it. Patterns are matched in linear
time (a tenant writes them).
"""

from __future__ import annotations

import functools
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from polder.api import quantity
from polder.api.errors import ApiError, Field, FieldError, FieldErrorType
from polder.api.meta import Raw

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_RESOURCE_KEYS: Final = frozenset({"apiVersion", "kind", "metadata"})
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
WORK_LIMIT: Final = 1_000_000
"""Steps of checking one object (about 3 µs each): junctors over lists multiply, and all tenants wait meanwhile."""
DEFAULTS_LIMIT: Final = 3 * 1024 * 1024
"""Bytes of defaults filled into one object: a large default over a long list multiplies."""
_SHOWN: Final = 50


@dataclass(slots=True)
class Work:
    """What one object may cost still. ``unit`` says what is counted."""

    left: int
    unit: str

    def spend(self, amount: int, at: str) -> None:
        """Raises ApiError 422 naming the place where the budget ended."""
        self.left -= amount
        if self.left < 0:
            why = f"{at or 'the object'}: the object and its definition's schema together take too many {self.unit}"
            raise ApiError(422, "Invalid", why, {"causes": [{"message": why, "field": at}]})


@functools.lru_cache(maxsize=512)
def pattern_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text contains the pattern (RE2's syntax, linear time). Raises ValueError on a broken pattern."""
    import jsonschema_rs

    try:
        options = jsonschema_rs.RegexOptions()
        found = jsonschema_rs.Draft202012Validator({"pattern": pattern}, pattern_options=options)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise ValueError(f"must be a regular expression in RE2 syntax, got {pattern!r}") from error
    matches: Callable[[str], bool] = found.is_valid
    return matches


# --- pruning and defaulting ---------------------------------------------------------------------------------------------


def prune(schema: Raw, obj: Raw) -> tuple[Raw, list[str]]:
    """The object without fields that the schema does not know, and their paths; at the root, ``apiVersion``, ``kind`` and
    ``metadata`` stay as they are.
    """
    unknown: list[str] = []
    found = _prune(schema, obj, "", unknown, is_resource=True)
    assert isinstance(found, dict)
    return found, unknown


def _prune(schema: Raw, value: Any, path: str, unknown: list[str], *, is_resource: bool = False) -> Any:
    if isinstance(value, list):
        items = schema.get("items")
        if not isinstance(items, dict):
            return value
        return [_prune(items, item, f"{path}[{at}]", unknown, is_resource=bool(items.get(EMBEDDED)))
                for at, item in enumerate(value)]  # fmt: skip
    if not isinstance(value, dict):
        return value
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    found: Raw = {}
    for key, item in value.items():
        at = f"{path}.{key}" if path else key
        if is_resource and key in _RESOURCE_KEYS:
            found[key] = item
        elif key in properties:
            part = properties[key]
            found[key] = _prune(part, item, at, unknown, is_resource=bool(part.get(EMBEDDED)))
        elif isinstance(more, dict):
            found[key] = _prune(more, item, at, unknown, is_resource=bool(more.get(EMBEDDED)))
        elif more is True or schema.get(PRESERVE):
            found[key] = item
        else:
            unknown.append(at)
    return found


def apply_defaults(schema: Raw, value: Any, work: Work | None = None) -> Any:
    """The value with the schema's defaults filled in; null where null is not allowed counts as absent. Raises ApiError."""
    work = work or Work(DEFAULTS_LIMIT, "bytes of defaults")
    if isinstance(value, list):
        items = schema.get("items")
        return [apply_defaults(items, item, work) for item in value] if isinstance(items, dict) else value
    if not isinstance(value, dict):
        return value
    found = dict(value)
    more = schema.get("additionalProperties")
    properties: Raw = schema.get("properties") or {}
    for key, part in properties.items():
        absent = key not in found or (found[key] is None and not part.get("nullable"))
        if absent and "default" in part:
            text = orjson.dumps(part["default"])
            work.spend(len(text), key)
            found[key] = orjson.loads(text)
    for key, item in found.items():
        part = properties.get(key, more)
        if isinstance(part, dict):
            found[key] = apply_defaults(part, item, work)
    return found


# --- validation -----------------------------------------------------------------------------------------------------------


def validate(schema: Raw, value: Any, at: Field, work: Work | None = None) -> Iterator[FieldError]:
    """Everything in which the value breaks the schema, in upstream's words. Raises ApiError 422 past ``WORK_LIMIT``."""
    work = work or Work(WORK_LIMIT, "steps to check")
    work.spend(1 + len(schema.get("enum") or ()) // 64 + len(schema.get("required") or ()) // 8, at.path)
    if value is None and schema.get("nullable"):
        return
    mistyped = _type_error(schema, value, at)
    if mistyped is not None:
        yield mistyped
        return
    if "enum" in schema and value not in schema["enum"]:
        yield FieldError(FieldErrorType.NOT_SUPPORTED, at.path, value, f"supported values: {_listed(schema['enum'])}")
    if isinstance(value, str):
        work.spend(len(value) // 1024, at.path)
        yield from _string(schema, value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(schema, value, at)
    elif isinstance(value, list):
        yield from _list(schema, value, at, work)
    elif isinstance(value, dict):
        yield from _object(schema, value, at, work)
    yield from _combined(schema, value, at, work)


def _listed(values: list[Any]) -> str:
    more = ", …" if len(values) > _SHOWN else ""
    return ", ".join(orjson.dumps(value).decode() for value in values[:_SHOWN]) + more


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": _is_number,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def _json_name(value: Any) -> str:
    if value is None:
        return "null"
    return next(name for name, is_one in _TYPES.items() if is_one(value))


def _type_error(schema: Raw, value: Any, at: Field) -> FieldError | None:
    found = _json_name(value)
    if schema.get(INT_OR_STRING):
        if found in ("string", "integer"):
            return None
        wanted = "integer,string"
    else:
        wanted = schema.get("type", "")
        if not wanted or (wanted in _TYPES and _TYPES[wanted](value)):
            return None
    shown = value if found not in ("object", "array") else found
    shown = "null" if value is None else shown
    detail = f'{at.path} in body must be of type {wanted}: "{found}"'
    return at.type_invalid(shown, detail)


def _string(schema: Raw, value: str, at: Field) -> Iterator[FieldError]:
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield FieldError(FieldErrorType.TOO_LONG, at.path, None, f"may not be more than {schema['maxLength']} bytes")
    if "minLength" in schema and len(value) < schema["minLength"]:
        yield at.invalid(value, f"{at.path} in body should be at least {schema['minLength']} chars long")
    if "pattern" in schema and not pattern_matcher(schema["pattern"])(value):
        yield at.invalid(value, f"{at.path} in body should match '{schema['pattern']}'")
    form = _FORMATS.get(schema.get("format", ""))
    if form is not None and not form(value):
        yield at.invalid(value, f"{at.path} in body must be of type {schema['format']}: {_listed([value])}")


def _number(schema: Raw, value: float, at: Field) -> Iterator[FieldError]:
    for key, exclusive, words in (("minimum", "exclusiveMinimum", "greater"), ("maximum", "exclusiveMaximum", "less")):
        if key not in schema:
            continue
        bound, open_end = schema[key], bool(schema.get(exclusive))
        beyond = value < bound if key == "minimum" else value > bound
        if beyond or (open_end and value == bound):
            equal = "" if open_end else " or equal to"
            yield at.invalid(value, f"{at.path} in body should be {words} than{equal} {bound}")
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield at.invalid(value, f"{at.path} in body should be a multiple of {step}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        yield at.invalid(value, f"Checked value must be of type integer with format {schema['format']} in {at.path}")


def _list(schema: Raw, value: list[Any], at: Field, work: Work) -> Iterator[FieldError]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield at.too_many(len(value), schema["maxItems"])
        return
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield at.invalid(len(value), f"{at.path} in body should have at least {schema['minItems']} items")
    items = schema.get("items")
    if isinstance(items, dict):
        for number, item in enumerate(value):
            yield from validate(items, item, at[number], work)
    kind = schema.get("x-kubernetes-list-type")
    if kind in ("set", "map"):
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        seen: set[bytes] = set()
        for number, item in enumerate(value):
            identity = {key: item.get(key) for key in keys} if kind == "map" and isinstance(item, dict) else item
            text = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)
            if text in seen:
                yield at[number].duplicate(identity)
            seen.add(text)


def _object(schema: Raw, value: Raw, at: Field, work: Work) -> Iterator[FieldError]:
    count = len(value)
    if "maxProperties" in schema and count > schema["maxProperties"]:
        yield at.too_many(count, schema["maxProperties"])
    if "minProperties" in schema and count < schema["minProperties"]:
        yield at.invalid(count, f"{at.path} in body should have at least {schema['minProperties']} properties")
    for key in schema.get("required") or ():
        if key not in value:
            yield (at / key).required()
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        if key in properties:
            yield from validate(properties[key], item, at / key, work)
        elif isinstance(more, dict):
            yield from validate(more, item, at / key, work)
    if schema.get(EMBEDDED):
        for key in ("apiVersion", "kind"):
            if not value.get(key):
                yield (at / key).required("must not be empty")


def _fits(schema: Raw, value: Any, at: Field, work: Work) -> bool:
    return next(validate(schema, value, at, work), None) is None


def _combined(schema: Raw, value: Any, at: Field, work: Work) -> Iterator[FieldError]:
    for part in schema.get("allOf") or ():
        yield from validate(part, value, at, work)
    shown = _json_name(value) if isinstance(value, dict | list) else value
    if "anyOf" in schema and not any(_fits(part, value, at, work) for part in schema["anyOf"]):
        yield at.invalid(shown, f"{at.path} in body must validate at least one schema (anyOf)")
    if "oneOf" in schema:
        fitting = sum(_fits(part, value, at, work) for part in schema["oneOf"])
        if fitting != 1:
            found = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
            yield at.invalid(shown, f"{at.path} in body must validate one and only one schema (oneOf). {found}")
    if "not" in schema and _fits(schema["not"], value, at, work):
        yield at.invalid(shown, f"{at.path} in body must not validate the schema (not)")


# --- formats ----------------------------------------------------------------------------------------------------------------

_DURATION: Final = re.compile(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w))+|0")
_HOSTNAME: Final = re.compile(r"(?=.{1,253}$)[A-Za-z0-9]([-A-Za-z0-9]{0,62})?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,62})?)*\.?")


def _try(read: Callable[[str], object], error: type[Exception] = ValueError) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            read(text)
        except error:
            return False
        return True

    return fits


def _date_time(text: str) -> datetime:
    if "T" not in text.upper():
        raise ValueError(text)
    found = datetime.fromisoformat(text.upper())
    if found.tzinfo is None:
        raise ValueError(text)
    return found


def _date(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d")


def _uuid(text: str) -> uuid.UUID:
    return uuid.UUID(text)


_FORMATS: Final[dict[str, Callable[[str], bool]]] = {
    "date-time": _try(_date_time),
    "date": _try(_date),
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "ipv4": _try(ipaddress.IPv4Address),
    "ipv6": _try(ipaddress.IPv6Address),
    "cidr": _try(functools.partial(ipaddress.ip_network, strict=False)),
    "uuid": _try(_uuid),
    "hostname": lambda text: _HOSTNAME.fullmatch(text) is not None,
    "email": lambda text: re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None,
    "byte": lambda text: re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text) is not None and len(text) % 4 == 0,
    "quantity": _try(quantity.parse, quantity.QuantityError),
    "uri": lambda text: re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) is not None,
    "mac": lambda text: re.fullmatch(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}", text) is not None,
}
"""Formats that are checked; others are notes."""
