"""Typed values: which fields they have, how one is merged into another, what is left without some fields.

Results share what they do not change with the arguments, which stay as they are. All is linear in the size of the values.
Source: structured-merge-diff, typed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from polder.api.apply_compare import same
from polder.api.apply_items import ABSENT, ItemError, element_of, elements_of, is_associative, is_granular
from polder.api.apply_types import DEDUCED, UNTYPED, Type
from polder.api.fieldsets import EMPTY, SELF, Fields, children, is_member, node, path_text, shown_value
from polder.api.meta import Raw


class TypedError(Exception):
    """A value does not have its type; the message names the place, as upstream does."""

    def __init__(self, why: str, path: str = "") -> None:
        super().__init__(f"{path}: {why}" if path else why)
        self.why = why
        self.path = path

    def below(self, path: str) -> TypedError:
        """The same, seen from further up."""
        return TypedError(self.why, path + self.path)


# --- checking ----------------------------------------------------------------------------------------------------------


def check(kind: Type, value: Any, *, duplicates: bool = False) -> None:
    """Raises TypedError at the first place where the value does not have its type. ``duplicates`` allows equal items."""
    if value is None:
        return
    if isinstance(value, dict):
        if not kind.is_map:
            raise _mistyped(kind, value)
        _check_map(kind, value, duplicates=duplicates)
    elif isinstance(value, list):
        if not kind.is_list:
            raise _mistyped(kind, value)
        _check_list(kind, value, duplicates=duplicates)
    elif not _is_scalar(kind.scalar, value):
        raise _mistyped(kind, value)


def _check_map(kind: Type, value: Raw, *, duplicates: bool) -> None:
    fields = kind.fields
    for key, inner in value.items():
        part = fields.get(key) or kind.element
        if part is None:
            raise TypedError("field not declared in schema", f".{key}")
        if inner is not None and part is not UNTYPED and part is not DEDUCED:
            try:
                check(part, inner, duplicates=duplicates)
            except TypedError as problem:
                raise problem.below(f".{key}") from None


def _is_scalar(scalar: str, value: Any) -> bool:
    match scalar:
        case "string":
            return isinstance(value, str)
        case "numeric":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
    return scalar == "untyped"


_GO_TYPES: Final = {str: "string", bool: "bool", int: "int64", float: "float64"}


def _mistyped(kind: Type, value: Any) -> TypedError:
    shown = shown_value(value) if not isinstance(value, dict | list) else f"&{{{value}}}"
    if kind.is_map:
        return TypedError(f"expected map, got {shown}")
    if kind.is_list:
        return TypedError(f"expected list, got {shown}")
    if kind.scalar == "numeric":
        got = _GO_TYPES.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "[]interface {}")
        return TypedError(f"expected numeric (int or float), got {got}")
    wanted = "any scalar" if kind.scalar == "untyped" else kind.scalar
    return TypedError(f"expected {wanted}, got {shown}")


def _check_list(kind: Type, value: list[Any], *, duplicates: bool) -> None:
    items = kind.items
    assert items is not None
    seen: set[str] = set()
    for number, item in enumerate(value):
        element = f"i:{number}"
        if kind.relation != "atomic":
            try:
                element = element_of(kind, item)
            except ItemError as problem:
                raise TypedError(f"element {number}: {problem}") from problem
            if element in seen and not duplicates:
                raise TypedError(f"duplicate entries for key {path_text((element,))}")
            seen.add(element)
        if items is not UNTYPED and items is not DEDUCED:
            try:
                check(items, item, duplicates=duplicates)
            except TypedError as problem:
                raise problem.below(path_text((element,))) from None


# --- the fields of a value ---------------------------------------------------------------------------------------------


def fields_of(kind: Type, value: Any) -> Fields:
    """What somebody who sends this value owns."""
    found = _owned(kind, value)
    return found if found else {}


def _owned(kind: Type, value: Any) -> Fields | None:
    """The node of a value; None where there is nothing to own."""
    if isinstance(value, dict) and kind.is_map:
        return EMPTY if kind.atomic else _owned_map(kind, value)
    if isinstance(value, list) and kind.is_list:
        return EMPTY if kind.relation == "atomic" else _owned_list(kind, value)
    if value is None and (is_granular(kind) or (is_associative(kind) and not kind.scalar and not kind.is_map)):
        return None
    return EMPTY


def _owned_map(kind: Type, value: Raw) -> Fields | None:
    found: Fields = {}
    fields, element = kind.fields, kind.element
    for key, inner in value.items():
        if isinstance(inner, str) and (element is not None or key in fields):
            found["f:" + key] = EMPTY
            continue
        part = fields.get(key) or element
        if part is None:
            continue
        owned = _owned(part, inner)
        if inner is None or inner == {} or key not in fields:
            owned = node(children(owned or EMPTY), member=True)
        if owned is not None:
            found["f:" + key] = owned
    return found or None


def _owned_list(kind: Type, value: list[Any]) -> Fields | None:
    items = kind.items
    assert items is not None
    found: Fields = {}
    for element, item in elements_of(kind, value):
        if element in found:
            found[element] = EMPTY
        else:
            found[element] = node(children(_owned(items, item) or EMPTY), member=True)
    return found or None


# --- merging -----------------------------------------------------------------------------------------------------------


def merge(kind: Type, live: Any, config: Any) -> Any:
    """``live`` with what ``config`` says: scalars and wholes replaced, objects and associative lists merged."""
    if config is ABSENT or live is config:
        return live
    if live is ABSENT:
        return config
    if live == config and same(kind, live, config):
        return live
    if not live and not config:
        return config  # null and empty are told apart
    if (isinstance(config, dict) or config is None) and isinstance(live, dict) and is_granular(kind):
        return _merge_maps(kind, live, config or EMPTY)
    if (isinstance(config, list) or config is None) and isinstance(live, list) and is_associative(kind):
        return _merge_lists(kind, live, config) if config and live else config or live
    return config


def _merge_maps(kind: Type, live: Raw, config: Raw) -> Raw:
    found = dict(live)
    for key, value in config.items():
        part = kind.fields.get(key) or kind.element
        found[key] = merge(part, live.get(key, ABSENT), value) if part is not None else value
    return found


def _merge_lists(kind: Type, live: list[Any], config: list[Any]) -> list[Any]:
    """Items of the configuration in its order, the others of the live list where they stood among them."""
    items = kind.items
    assert items is not None
    left, right = list(elements_of(kind, live)), dict(elements_of(kind, config))
    counts = Counter(element for element, _ in left)
    standing = {element: item if counts[element] == 1 else None for element, item in left}
    found: list[Any] = []
    for element, item in _order(left, list(right), standing):
        found.append(item if element is None else merge(items, standing.get(element, ABSENT), right[element]))
    return found


def _order(left: list[tuple[str, Any]], wanted: list[str], standing: Raw) -> Iterator[tuple[str | None, Any]]:
    """What the merged list holds: elements of the configuration, and (None, item) for an item that only stands."""
    chosen, merged = set(wanted), set[str]()
    shared = iter([element for element in wanted if element in standing])
    following = next(shared, None)
    at = done = 0
    while at < len(left) or done < len(wanted):
        element, item = left[at] if at < len(left) else ("", None)
        more = done < len(wanted)
        if at < len(left) and element not in chosen:
            yield None, item
            at += 1
            continue
        is_next = more and at < len(left) and element == wanted[done]
        if more and at < len(left) and not is_next and following is not None and following != element:
            at += 1  # it is merged where the configuration's order has it
            continue
        if at < len(left) and (is_next or element in merged):
            at += 1
        if more:
            element = wanted[done]
            merged.add(element)
            yield element, None
            done += 1
            following = next(shared, None) if following == element else following


# --- removing ----------------------------------------------------------------------------------------------------------


def remove(kind: Type, value: Any, gone: Fields) -> Any:
    """The value without these fields and all below them. An object or list that is emptied stays, empty."""
    if isinstance(value, dict) and is_granular(kind):
        return _remove_from_map(kind, value, gone)
    if isinstance(value, list) and is_associative(kind):
        return _remove_from_list(kind, value, gone)
    return value


def _remove_from_map(kind: Type, value: Raw, gone: Fields) -> Raw:
    found: Raw = {}
    for key, inner in value.items():
        part = gone.get("f:" + key)
        if part is None:
            found[key] = inner
        elif not is_member(part):
            below = kind.fields.get(key) or kind.element
            found[key] = remove(below, inner, part) if below is not None else inner
    return found


def _remove_from_list(kind: Type, value: list[Any], gone: Fields) -> list[Any]:
    items = kind.items
    assert items is not None
    found: list[Any] = []
    for item in value:
        try:
            part = gone.get(element_of(kind, item))
        except ItemError:
            part = None
        if part is None:
            found.append(item)
        elif not is_member(part):
            found.append(remove(items, item, part))
    return found


# --- sets and types ----------------------------------------------------------------------------------------------------


def with_named(kind: Type | None, fields: Fields) -> Fields:
    """The set with every declared field above a member as a member too; objects that are maps are not added."""
    found: Fields = {}
    for key, inner in fields.items():
        if not inner:  # a leaf, or the mark of a member
            if key != SELF:
                found[key] = inner
            continue
        is_field = key.startswith("f:")
        below = None if kind is None else kind.at(key[2:]) if is_field else kind.items
        member = SELF in inner or (is_field and kind is not None and key[2:] in kind.fields)
        found[key] = node(with_named(below, inner), member=member)
    return found


def reconciled(kind: Type | None, fields: Fields) -> Fields:
    """The set as it would be had the type always been this one: what became a whole is owned as a whole."""
    if kind is None or kind is DEDUCED or kind is UNTYPED:
        return fields
    found: Fields = {}
    changed = False
    for key, inner in fields.items():
        if not inner:
            found[key] = inner
            continue
        below = kind.at(key[2:]) if key.startswith("f:") else kind.items
        kept = inner
        if below is not None and below is not DEDUCED:
            whole = (below.is_map and below.atomic) or (
                not below.is_map and below.is_list and not is_associative(below)
            )
            kept = EMPTY if whole else reconciled(below, inner)
        changed = changed or kept is not inner
        found[key] = kept
    return found if changed else fields
