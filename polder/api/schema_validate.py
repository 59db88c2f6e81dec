"""Validation of raw objects by structural schemas, in upstream's words (kube-openapi's validation, apiextensions/v1).

What one object may cost is bounded: junctors over lists multiply. Patterns are matched in linear time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson

from polder.api import formats
from polder.api.cel import regex
from polder.api.correlation import Pair
from polder.api.errors import Field, FieldError, FieldErrorType
from polder.api.meta import Raw
from polder.api.structural import INT_OR_STRING, LIST_KEYS, LIST_TYPE, RESOURCE_KEYS, Work

WORK_LIMIT: Final = 700_000
"""Steps of checking one object (about 3 µs each)."""
TURN_LIMIT: Final = 1_500
"""Steps that an event loop's turn has time for."""
_SHOWN: Final = 50
_JUNCTORS: Final = frozenset({"anyOf", "oneOf", "allOf", "not"})
_ALTERNATIVE: Final = 4
"""Problems of an alternative that are shown."""
_NOWHERE: Final = Field("<nil>")
"""Where upstream puts what junctors say."""


def validate(
    schema: Raw, value: Any, at: Field, work: Work | None = None, pair: Pair | None = None
) -> Iterator[FieldError]:
    """Everything in which the value breaks the schema; what did not change since ``pair.old`` is not held against it.
    Raises ApiError 422 past ``WORK_LIMIT``.
    """
    work = work or Work(WORK_LIMIT, "steps to check")
    if pair is None:
        yield from _found(schema, value, at, work, None)
        return
    problems = list(_found(schema, value, at, work, pair))
    if problems and not pair.is_same:
        yield from problems


def _found(schema: Raw, value: Any, at: Field, work: Work, pair: Pair | None) -> Iterator[FieldError]:
    work.spend(1 + len(schema.get("enum") or ()) // 64 + len(schema.get("required") or ()) // 8, at.path)
    if value is None and schema.get("nullable"):
        return
    mistyped = _type_error(schema, value, at)
    if mistyped is not None:
        yield mistyped
        return
    if not _JUNCTORS.isdisjoint(schema):
        yield from _combined(schema, value, at, work)
    if isinstance(value, str):
        work.spend(len(value) // 1024, at.path)
        yield from _string(schema, value, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(schema, value, at)
    elif isinstance(value, list):
        yield from _list(schema, value, at, work, pair)
    elif isinstance(value, dict):
        yield from _object(schema, value, at, work, pair)
    if "enum" in schema and value not in schema["enum"]:
        yield FieldError(FieldErrorType.NOT_SUPPORTED, at.path, value, f"supported values: {_listed(schema['enum'])}")


def _listed(values: list[Any]) -> str:
    more = ", …" if len(values) > _SHOWN else ""
    texts = [value if isinstance(value, str) else orjson.dumps(value).decode() for value in values[:_SHOWN]]
    return ", ".join(orjson.dumps(text).decode() for text in texts) + more


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


def json_name(value: Any) -> str:
    """What JSON calls the value."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return "number"
    return next(name for name, is_one in _TYPES.items() if is_one(value))


def _type_error(schema: Raw, value: Any, at: Field) -> FieldError | None:
    if schema.get(INT_OR_STRING):
        if isinstance(value, str) or _TYPES["integer"](value):
            return None
        wanted = "integer,string"
    else:
        wanted = schema.get("type", "")
        if not wanted or (wanted in _TYPES and _TYPES[wanted](value)):
            return None
    found = json_name(value)
    return at.type_invalid(found, f'{at.path} in body must be of type {wanted}: "{found}"')


def _string(schema: Raw, value: str, at: Field) -> Iterator[FieldError]:
    form = formats.CHECKS.get(schema.get("format", ""))
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield at.too_long(schema["maxLength"])
    elif "minLength" in schema and len(value) < schema["minLength"]:
        yield at.invalid(value, f"{at.path} in body should be at least {schema['minLength']} chars long")
    elif schema.get("pattern") and not regex.matcher(schema["pattern"])(value):
        yield at.invalid(value, f"{at.path} in body should match '{schema['pattern']}'")
    if form is not None and not form(value):
        detail = f"{at.path} in body must be of type {schema['format']}: {_listed([value])}"
        yield at.type_invalid(value, detail)


def _shown_number(value: Any) -> str:
    """As Go's %v shows a float64."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(schema: Raw, value: float, at: Field) -> Iterator[FieldError]:
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(2**bits) <= value < 2**bits:
        yield at.invalid(value, f"Checked value must be of type integer with format {schema['format']} in {at.path}")
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield at.invalid(value, f"{at.path} in body should be a multiple of {_shown_number(step)}")
    for key, exclusive, words in (("maximum", "exclusiveMaximum", "less"), ("minimum", "exclusiveMinimum", "greater")):
        if key not in schema or (isinstance(value, float) and math.isnan(value)):
            continue
        bound, open_end = schema[key], bool(schema.get(exclusive))
        beyond = value < bound if key == "minimum" else value > bound
        if beyond or (open_end and value == bound):
            equal = "" if open_end else " or equal to"
            yield at.invalid(value, f"{at.path} in body should be {words} than{equal} {_shown_number(bound)}")


def _list(schema: Raw, value: list[Any], at: Field, work: Work, pair: Pair | None) -> Iterator[FieldError]:
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield at.too_many(len(value), schema["maxItems"])
        return
    if "minItems" in schema and len(value) < schema["minItems"]:
        yield at.invalid(len(value), f"{at.path} in body should have at least {schema['minItems']} items")
    items = schema.get("items")
    if isinstance(items, dict):
        for number, item in enumerate(value):
            yield from validate(items, item, at[number], work, pair.index(number) if pair is not None else None)


def _object(schema: Raw, value: Raw, at: Field, work: Work, pair: Pair | None) -> Iterator[FieldError]:
    count = len(value)
    if "minProperties" in schema and count < schema["minProperties"]:
        yield at.invalid(count, f"{at.path} in body should have at least {schema['minProperties']} properties")
    if "maxProperties" in schema and count > schema["maxProperties"]:
        yield at.too_many(count, schema["maxProperties"])
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        part = properties.get(key, more)
        if isinstance(part, dict):
            ratchets = pair is not None and not (not at.path and key in RESOURCE_KEYS)
            inner = pair.key(key) if ratchets and pair is not None else None
            yield from validate(part, item, at / key, work, inner)
    for key in schema.get("required") or ():
        if key not in value:
            yield (at / key).required()


def _combined(schema: Raw, value: Any, at: Field, work: Work) -> Iterator[FieldError]:
    yield from _any_of(schema, value, at, work)
    yield from _one_of(schema, value, at, work)
    for part in schema.get("allOf") or ():
        problems = list(validate(part, value, at, work))
        if problems:
            yield _NOWHERE.invalid("", f'"{at.path}" must validate all the schemas (allOf). None validated')
            yield from problems
            break
    if "not" in schema and next(validate(schema["not"], value, at, work), None) is None:
        yield _NOWHERE.invalid("", f'"{at.path}" must not validate the schema (not)')


def _few(schema: Raw, value: Any, at: Field, work: Work) -> list[FieldError]:
    """The first problems of an alternative: more of them tell nobody more."""
    return list(itertools.islice(validate(schema, value, at, work), _ALTERNATIVE))


def _any_of(schema: Raw, value: Any, at: Field, work: Work) -> Iterator[FieldError]:
    first: list[FieldError] | None = None
    for part in schema.get("anyOf") or ():
        problems = _few(part, value, at, work)
        if not problems:
            return
        first = problems if first is None else first
    if first is not None:
        yield _NOWHERE.invalid("", f'"{at.path}" must validate at least one schema (anyOf)')
        yield from first


def _one_of(schema: Raw, value: Any, at: Field, work: Work) -> Iterator[FieldError]:
    parts = schema.get("oneOf") or ()
    results = [_few(part, value, at, work) for part in parts]
    fitting = sum(not problems for problems in results)
    if not parts or fitting == 1:
        return
    found = f"Found {fitting} valid alternatives" if fitting else "Found none valid"
    yield _NOWHERE.invalid("", f'"{at.path}" must validate one and only one schema (oneOf). {found}')
    if not fitting:
        yield from results[0]


# --- what schemas say beyond OpenAPI ------------------------------------------------------------------------------------


def validate_lists(schema: Raw, value: Any, at: Field, work: Work) -> Iterator[FieldError]:
    """Lists of type set and map: no item stands twice."""
    work.spend(1, at.path)
    if isinstance(value, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            part = properties.get(key)
            if isinstance(part, dict):
                yield from validate_lists(part, item, at / key, work)
            elif isinstance(more, dict):
                yield from validate_lists(more, item, at[key], work)
    elif isinstance(value, list):
        yield from _repeated(schema, value, at)
        items = schema.get("items")
        if isinstance(items, dict):
            for number, item in enumerate(value):
                yield from validate_lists(items, item, at[number], work)


def _repeated(schema: Raw, value: list[Any], at: Field) -> Iterator[FieldError]:
    kind, keys = schema.get(LIST_TYPE), schema.get(LIST_KEYS) or []
    if kind not in ("set", "map"):
        return
    seen: set[bytes] = set()
    for number, item in enumerate(value):
        shown = (
            {key: item.get(key) for key in keys if key in item} if kind == "map" and isinstance(item, dict) else item
        )
        text = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
        if text in seen:
            yield at[number].duplicate(shown)
        seen.add(text)
