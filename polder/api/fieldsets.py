"""Sets of fields, as managedFields hold them (``FieldsV1``), and their algebra.

A set is the JSON itself: ``{"f:spec": {"f:replicas": {}, 'k:{"name":"x"}': {".": {}}}}``. A node without content names its
field alone; in a node with content the key ``.`` says that the field itself belongs to the set too. So what is stored
needs no decoding, and operations share every part that they do not change. Treat sets as read-only.
Source: structured-merge-diff, fieldpath (sets and their serialisation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

Fields = dict[str, Any]
"""A set, or a node of one."""
Path = tuple[str, ...]

SELF: Final = "."
EMPTY: Final[Fields] = {}
_ESCAPES: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_MARKS: Final = re.compile("[<>&\u2028\u2029]")
_DEPTH_LIMIT: Final = 100


class FieldsError(Exception):
    """A value is no set of fields."""


# --- elements of paths ------------------------------------------------------------------------------------------------


def _json(value: Any) -> str:
    """A value as Go writes it into an element."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return _MARKS.sub(lambda found: _ESCAPES[found[0]], text) if _MARKS.search(text) else text


def key_element(keys: dict[str, Any]) -> str:
    """The element of a list's item that has these keys."""
    return "k:" + _json(keys)


def value_element(value: Any) -> str:
    """The element of a value in a list that is a set."""
    return "v:" + _json(int(value) if isinstance(value, float) and value.is_integer() else value)


def shown_value(value: Any) -> str:
    """A value in messages, as Go prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else orjson.dumps(value).decode() if isinstance(value, str) else str(value)


def path_text(path: Path) -> str:
    """A path in messages: ``.spec.containers[name="x"].image``."""
    found = []
    for element in path:
        kind, text = element[:2], element[2:]
        if kind == "f:":
            found.append(f".{text}")
        elif kind == "k:":
            found.append("[" + ",".join(f"{k}={shown_value(v)}" for k, v in sorted(orjson.loads(text).items())) + "]")
        elif kind == "v:":
            found.append(f"[={shown_value(orjson.loads(text))}]")
        else:
            found.append(f"[{text}]")
    return "".join(found)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_fields(value: Any) -> Fields:
    """A set that a client sent, in canonical form; elements of unknown types are left out. Raises FieldsError."""
    return _read(value, 0)[0]


def _read(value: Any, depth: int) -> tuple[Fields, bool]:
    """The children, and whether the node itself is a member."""
    if not isinstance(value, dict) or depth > _DEPTH_LIMIT:
        raise FieldsError("fields must be nested objects")
    found: Fields = {}
    member = False
    for key, inner in value.items():
        if key == SELF:
            member = True
            continue
        element = _canonical(key)
        if not element:
            continue
        below, belongs = _read(inner, depth + 1)
        found[element] = node(below, member=belongs)
    return found, member or not found


def _canonical(key: str) -> str:
    """An element as this module writes it; empty for a type that is not known. Raises FieldsError."""
    if len(key) < 2 or key[1] != ":":
        raise FieldsError(f"{key!r} is no element of a path")
    if key[0] == "f":
        return key
    if key[0] not in "kvi":
        return ""
    try:
        value = orjson.loads(key[2:])
    except orjson.JSONDecodeError as problem:
        raise FieldsError(f"{key!r} is no element of a path") from problem
    if key[0] == "k":
        if not isinstance(value, dict):
            raise FieldsError(f"{key!r} is no element of a path")
        return key_element(value)
    if key[0] == "i" and (isinstance(value, bool) or not isinstance(value, int)):
        raise FieldsError(f"{key!r} is no element of a path")
    return value_element(value) if key[0] == "v" else f"i:{value}"


# --- algebra ----------------------------------------------------------------------------------------------------------


def node(children: Fields, *, member: bool) -> Fields:
    """A node with these children; without any, it stands for its own field."""
    return {SELF: EMPTY, **children} if member and children else children


def is_member(found: Fields) -> bool:
    """Whether a node's own field belongs to the set."""
    return not found or SELF in found


def of_paths(*paths: Path) -> Fields:
    """The set of these paths."""
    found: Fields = {}
    for path in paths:
        found = union(found, _chain(path))
    return found


def _chain(path: Path) -> Fields:
    found: Fields = EMPTY
    for element in reversed(path):
        found = {element: found}
    return found


def ordered(fields: Fields) -> Fields:
    """The same set, its elements in the order in which upstream writes them: clients compare the text."""
    found: Fields = orjson.loads(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))
    return found


def union(left: Fields, right: Fields) -> Fields:
    """What either set has."""
    if not left or not right or left is right:
        return left or right
    found = dict(left)
    for key, theirs in right.items():
        if key == SELF:
            continue
        ours = found.get(key)
        found[key] = theirs if not ours and (ours is None or not theirs) else _union_nodes(found[key], theirs)
    return found


def _union_nodes(left: Fields, right: Fields) -> Fields:
    if left is right:
        return left
    member = is_member(left) or is_member(right)
    return node(union(children(left), children(right)), member=member)


def children(found: Fields) -> Fields:
    """A node's content without its own field."""
    return {key: value for key, value in found.items() if key != SELF} if SELF in found else found


def difference(left: Fields, right: Fields) -> Fields:
    """What only ``left`` has; a field and what is below it are told apart."""
    if not left or not right:
        return left
    found: Fields = {}
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None:
            found[key] = ours
            continue
        if not theirs and not ours:
            continue
        kept = difference(children(ours), children(theirs))
        member = is_member(ours) and not is_member(theirs)
        if kept or member:
            found[key] = node(kept, member=member)
    return found


def without(left: Fields, right: Fields) -> Fields:
    """``left`` without the fields of ``right`` and all that is below them."""
    if not left or not right:
        return left
    found: Fields = {}
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None:
            found[key] = ours
        elif not is_member(theirs):
            kept = without(children(ours), theirs)
            if kept or is_member(ours):
                found[key] = node(kept, member=is_member(ours))
    return found


def only(left: Fields, right: Fields) -> Fields:
    """What of ``left`` lies on, above or below the fields of ``right``: an allow-list of prefixes, where ``*`` stands for
    any element.
    """
    found: Fields = {}
    for key, ours in left.items():
        theirs = right.get(key, right.get("*"))
        if theirs is None or key == SELF:
            continue
        kept = ours if is_member(theirs) else node(only(children(ours), theirs), member=is_member(ours))
        if kept or is_member(ours):
            found[key] = kept
    return found


def intersection(left: Fields, right: Fields) -> Fields:
    """What both sets have."""
    found: Fields = {}
    if len(right) < len(left):
        left, right = right, left
    for key, ours in left.items():
        theirs = right.get(key)
        if theirs is None or key == SELF:
            continue
        if not ours and not theirs:
            found[key] = ours
            continue
        common = intersection(children(ours), children(theirs))
        member = is_member(ours) and is_member(theirs)
        if common or member:
            found[key] = node(common, member=member)
    return found


def has(fields: Fields, path: Path) -> bool:
    """Whether the path is a member."""
    found: Fields | None = fields
    for element in path:
        found = found.get(element) if found is not None else None
        if found is None:
            return False
    return bool(path) and found is not None and is_member(found)


def paths(fields: Fields, prefix: Path = ()) -> Iterator[Path]:
    """The members: those of a level first, then what is below them, in order."""
    keys = sorted(key for key in fields if key != SELF)
    for key in keys:
        if is_member(fields[key]):
            yield (*prefix, key)
    for key in keys:
        yield from paths(fields[key], (*prefix, key))
