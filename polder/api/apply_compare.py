"""How a typed object became another: which fields were written, which went.

Source: structured-merge-diff, typed (compare).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from polder.api.apply_items import ABSENT, elements_of, is_associative, is_granular
from polder.api.apply_types import Type
from polder.api.fieldsets import EMPTY, Fields, children, node
from polder.api.meta import Raw


@dataclass(slots=True)
class Difference:
    """How a value became another: what was written (added or modified) and what was removed."""

    written: Fields = field(default_factory=dict)
    removed: Fields = field(default_factory=dict)

    def map(self, change: Callable[[Fields], Fields]) -> Difference:
        """Both sets changed alike."""
        return Difference(change(self.written), change(self.removed))


def compare(kind: Type, old: Any, new: Any) -> Difference:
    """The difference of two objects of one type."""
    found = Difference()
    _compare(kind, old, new, found)
    return found


def _everything(kind: Type, value: Any) -> Fields:
    """The node of a value that came or went as a whole: with every field, list and object in it."""
    found: Fields = {}
    if isinstance(value, dict) and is_granular(kind):
        for key, inner in value.items():
            part = kind.fields.get(key) or kind.element
            if part is not None:
                found["f:" + key] = _everything(part, inner)
        for name in kind.by_value:
            if name not in value:
                found["f:" + name] = EMPTY
    elif isinstance(value, list) and is_associative(kind):
        items = kind.items
        assert items is not None
        for element, item in elements_of(kind, value):
            found[element] = EMPTY if element in found else _everything(items, item)
    return node(found, member=True)


def same(kind: Type, old: Any, new: Any) -> bool:
    """Whether two values are the same JSON, where 1.0 is 1 and true is not."""
    if old is new:
        return True
    if old != new or isinstance(old, bool) is not isinstance(new, bool):
        return False
    if not isinstance(old, dict | list) or not kind.is_open:
        return True
    return _sorted(old) == _sorted(new) or _sorted(_whole(old)) == _sorted(_whole(new))


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _whole(value: Any) -> Any:
    """Numbers that are whole as such, for 1.0 is 1."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _whole(inner) for key, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def _compare(kind: Type, old: Any, new: Any, found: Difference) -> bool:
    """Adds the fields below this place to ``found``; tells whether the value itself was written, as a whole."""
    if same(kind, old, new):
        return False
    before, after = _kind(old), _kind(new)
    if after == "map" or (before == "map" and not after):
        if before in ("map", "") and is_granular(kind):
            if not old and not new:
                return True
            _compare_maps(kind, old or EMPTY, new or EMPTY, found)
            return False
    elif (after == "list" or (before == "list" and not after)) and before in ("list", "") and is_associative(kind):
        if not old and not new:
            return True
        _compare_lists(kind, old or [], new or [], found)
        return False
    if before and after and before != after:
        return _compare_kinds(kind, old, new, found)
    return True


def _compare_kinds(kind: Type, old: Any, new: Any, found: Difference) -> bool:
    """A value that became one of another kind: what was in it went, what is in it came. Whatever is a whole on one of the
    sides was written as such.
    """
    went, came = children(_everything(kind, old)), children(_everything(kind, new))
    found.removed = {**found.removed, **went}
    found.written = {**found.written, **came}
    return not went or not came


def _step(kind: Type, key: str, pair: tuple[Any, Any], found: Difference) -> None:
    """Compares what stands at one element on both sides."""
    old, new = pair
    if old is ABSENT:
        found.written[key] = _everything(kind, new)
    elif new is ABSENT:
        found.removed[key] = _everything(kind, old)
    else:
        inner = Difference()
        written = _compare(kind, old, new, inner)
        if inner.written or written:
            found.written[key] = node(inner.written, member=written)
        if inner.removed:
            found.removed[key] = inner.removed


def _missing(kind: Type, key: str) -> Any:
    """What an absent field counts as."""
    return {} if key in kind.by_value else None if key in kind.blank else ABSENT


def _compare_maps(kind: Type, old: Raw, new: Raw, found: Difference) -> None:
    fields = kind.fields
    for key, after in new.items():
        before = old.get(key, ABSENT)
        if before is after or (part := fields.get(key) or kind.element) is None:
            continue
        if before is ABSENT:
            before = _missing(kind, key)
        _step(part, "f:" + key, (before, after), found)
    for key, before in old.items():
        if key not in new and (part := fields.get(key) or kind.element) is not None:
            _step(part, "f:" + key, (before, _missing(kind, key)), found)


def _grouped(kind: Type, items: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for element, item in elements_of(kind, items):
        found.setdefault(element, []).append(item)
    return found


def _compare_lists(kind: Type, old: list[Any], new: list[Any], found: Difference) -> None:
    items = kind.items
    assert items is not None
    before, after = _grouped(kind, old), _grouped(kind, new)
    for element in (*before, *(e for e in after if e not in before)):
        left, right = before.get(element, []), after.get(element, [])
        if len(left) <= 1 and len(right) <= 1:
            pair = (left[0] if left else ABSENT, right[0] if right else ABSENT)
            _step(items, element, pair, found)
        elif len(left) >= 2 and len(right) >= 2:
            if left != right:
                found.written[element] = EMPTY
        elif len(left) >= 2:
            if right:
                found.written[element] = _everything(items, right[0])
            found.removed[element] = EMPTY
        else:
            if left:
                found.removed[element] = _everything(items, left[0])
            found.written[element] = EMPTY


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "map"
    if isinstance(value, list):
        return "list"
    return "scalar" if value is not None and value is not ABSENT else ""
