"""Strategic merge patch: upstream's directives, driven by the merge keys and strategies of the published definitions.

``$patch`` (replace, delete, merge), ``$retainKeys``, ``$setElementOrder/FIELD``, ``$deleteFromPrimitiveList/FIELD``.
The result shares unchanged parts with the object that is patched. Lists are merged in time linear in their length: a
tenant writes both sides, and a quadratic merge of one body would hold up every tenant for minutes.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import orjson

from polder.api import errors
from polder.api.meta import Raw
from polder.api.schemas import ANY, Property, Schema, Shape

PATCH: Final = "$patch"
RETAIN: Final = "$retainKeys"
ORDER: Final = "$setElementOrder/"
PRIMITIVES: Final = "$deleteFromPrimitiveList/"
_OTHER: Final = Property(ANY)


def apply_strategic(doc: Raw, patch: Raw, schema: Schema) -> Raw:
    """The object after the patch. Raises ApiError 400 on directives that make no sense."""
    return _merge_map(doc, patch, schema)


def _bad(why: str) -> errors.ApiError:
    return errors.bad_request(f"invalid strategic merge patch: {why}")


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _bad(f"{name} must be a list")
    return value


def _property(schema: Schema, key: str) -> Property:
    if schema.shape is Shape.MAP and schema.items is not None:
        return Property(schema.items)
    return schema.fields.get(key, _OTHER)


def _is_directive(key: str) -> bool:
    return key in (PATCH, RETAIN) or key.startswith((ORDER, PRIMITIVES))


def _without_directives(value: Any) -> Any:
    """A patch's part that is taken as it is."""
    if isinstance(value, dict):
        return {k: _without_directives(v) for k, v in value.items() if not _is_directive(k) and v is not None}
    if isinstance(value, list):
        return [_without_directives(item) for item in value if not (isinstance(item, dict) and PATCH in item)]
    return value


def _merge_map(original: Raw, patch: Raw, schema: Schema) -> Raw:
    match patch.get(PATCH):
        case "replace":
            return {key: value for key, value in patch.items() if key != PATCH}
        case "delete":
            return {}
        case None | "merge":
            pass
        case other:
            raise _bad(f"unknown patch type found: {errors.shown(other)}")
    found = _retained(original, patch)
    for key in [key for key in patch if key.startswith(ORDER)]:
        name = key.removeprefix(ORDER)
        merged = _ordered(found, patch, name, _property(schema, name))
        if merged is not None:
            found[name] = merged
    ordered = {key.removeprefix(ORDER) for key in patch if key.startswith(ORDER)}
    for key, value in patch.items():
        if key.startswith(PRIMITIVES):
            name = key.removeprefix(PRIMITIVES)
            if name in found:
                gone = {_hashed(item) for item in _list(value, key)}
                found[name] = [item for item in _list(found[name], name) if _hashed(item) not in gone]
        elif not _is_directive(key) and not (key in ordered and isinstance(value, list)):
            _merge_key(found, key, value, _property(schema, key))
    return found


def _retained(original: Raw, patch: Raw) -> Raw:
    if RETAIN not in patch:
        return dict(original)
    keep = {_hashed(name) for name in _list(patch[RETAIN], RETAIN)}
    for key, value in patch.items():
        if not _is_directive(key) and value is not None and key not in keep:
            raise _bad(f"{RETAIN} does not contain {errors.shown(key)}, which the patch sets")
    return {key: value for key, value in original.items() if key in keep}


def _merge_key(found: Raw, key: str, value: Any, prop: Property) -> None:
    """Merges one field of the patch into ``found``."""
    if value is None:
        found.pop(key, None)
        return
    before = found.get(key)
    replaces = "replace" in prop.strategies
    if isinstance(before, dict) and isinstance(value, dict):
        found[key] = _without_directives(value) if replaces else _merge_map(before, value, prop.schema)
    elif isinstance(before, list) and isinstance(value, list) and "merge" in prop.strategies:
        found[key] = _merge_list(before, value, prop)
    else:
        found[key] = _without_directives(value)


def _merge_list(original: list[Any], patch: list[Any], prop: Property) -> list[Any]:
    """Merges a list whose strategy is merge: items are matched by the merge key, or by value where there is none."""
    if not all(isinstance(item, dict) for item in (*original, *patch)):
        there = {_hashed(item) for item in original}
        merged = [*original, *(item for item in patch if _hashed(item) not in there)]
        return _arrange(merged, patch, original, "")
    if not prop.merge_key:
        raise _bad("a list of objects without a declared merge key cannot be merged")
    original, patch, replaced = _special(original, patch, prop.merge_key)
    if replaced:
        return patch
    merged = list(original)
    schema = prop.schema.items or ANY
    places: dict[Any, int] = {}
    for number, old in enumerate(merged):
        places.setdefault(_hashed(old.get(prop.merge_key)), number)
    for item in patch:
        at = places.setdefault(_hashed(_key_of(item, prop.merge_key)), len(merged))
        if at == len(merged):
            merged.append(_without_directives(item))
        else:
            merged[at] = _merge_map(merged[at], item, schema)
    return _arrange(merged, patch, original, prop.merge_key)


def _key_of(item: Raw, merge_key: str) -> Any:
    if merge_key not in item:
        raise _bad(f"map: {errors.shown(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _special(original: list[Raw], patch: list[Raw], key: str) -> tuple[list[Raw], list[Raw], bool]:
    """Carries out items with ``$patch``; the rest of the patch, and whether it replaces the list."""
    rest: list[Raw] = []
    gone: set[Any] = set()
    replaces = False
    for item in patch:
        match item.get(PATCH):
            case None:
                rest.append(item)
            case "delete":
                gone.add(_hashed(_key_of(item, key)))
            case "replace":
                replaces = True
            case other:
                raise _bad(f"unknown patch type found: {errors.shown(other)}")
    return [old for old in original if _hashed(old.get(key)) not in gone] if gone else original, rest, replaces


def _ordered(found: Raw, patch: Raw, name: str, prop: Property) -> list[Any] | None:
    """The list after its patch, in the order that ``$setElementOrder`` asks; None when there is no list."""
    order = _list(patch[ORDER + name], ORDER + name)
    before, change = found.get(name), patch.get(name)
    if before is None and not isinstance(change, list):
        return None
    _check_order(order, change if isinstance(change, list) else [], prop.merge_key, name)
    if before is None:
        merged: list[Any] = _without_directives(change)
    elif isinstance(change, list):
        merged = _merge_list(_list(before, name), change, prop)
    else:
        merged = _list(before, name)
    return _arrange(merged, order, before or [], prop.merge_key)


def _check_order(order: list[Any], change: list[Any], key: str, name: str) -> None:
    """What the patch sets must stand in the order."""
    known = {_identity(item, key) for item in order}
    for item in change:
        deletes = isinstance(item, dict) and PATCH in item
        if not deletes and _identity(item, key) not in known:
            raise _bad(f"the order in patch list {name} does not contain {errors.shown(item)}")


def _hashed(value: Any) -> Any:
    """Something that hashes, equal for equal JSON values."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if isinstance(value, dict | list) else value


def _identity(item: Any, key: str) -> Any:
    return _hashed(item.get(key) if key and isinstance(item, dict) else item)


def _places(items: list[Any], key: str) -> dict[Any, int]:
    """Where each identity stands first."""
    found: dict[Any, int] = {}
    for number, item in enumerate(items):
        found.setdefault(_identity(item, key), number)
    return found


def _arrange(merged: list[Any], order: list[Any], before: list[Any], key: str) -> list[Any]:
    """Items named in ``order`` in that order; the others go in among them by where they stood ``before``."""
    wanted, stood = _places(order, key), _places(before, key)
    rows = [(_identity(item, key), item) for item in merged]
    named = deque(sorted((row for row in rows if row[0] in wanted), key=lambda row: wanted[row[0]]))
    others = deque(
        sorted((row for row in rows if row[0] not in wanted), key=lambda row: stood.get(row[0], len(before)))
    )
    result: list[Any] = []
    while others and named:
        left, right = stood.get(others[0][0]), stood.get(named[0][0])
        first = left is not None and right is not None and left < right
        result.append(others.popleft()[1] if first else named.popleft()[1])
    return [*result, *(item for _, item in named), *(item for _, item in others)]
