"""JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), and the choice among the patches of the API.

All functions leave their arguments as they are and share unchanged parts with the result: treat objects as read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson

from polder.api import errors
from polder.api.meta import Raw
from polder.api.schemas import Schema
from polder.api.strategic import apply_strategic

MAX_OPERATIONS: Final = 10_000
COPY_LIMIT: Final = 3 * 1024 * 1024
"""Bytes that one JSON patch may copy: thirty copies of the document into itself would fill the memory. Moving the items
of long lists counts a little too.
"""


@dataclass(slots=True)
class _Room:
    """What is left of ``COPY_LIMIT``."""

    left: int = COPY_LIMIT

    def take(self, size: int, where: str) -> None:
        """Raises ApiError 413."""
        self.left -= size
        if self.left < 0:
            raise errors.too_large(f"{where}: the patch copies or moves more than {COPY_LIMIT} bytes")


class PatchType(Enum):
    """The media types of patches."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


def patch_type(media_type: str, schema: Schema | None) -> PatchType:
    """What a Content-Type asks for. ``schema`` None means a custom resource, which has no strategic merge.

    Raises ApiError 415.
    """
    offered = [found for found in PatchType if schema is not None or found is not PatchType.STRATEGIC]
    for found in offered:
        if media_type.partition(";")[0].strip() == found.value:
            return found
    raise errors.unsupported_media_type([found.value for found in offered])


def apply_patch(how: PatchType, doc: Raw, patch: Any, schema: Schema | None) -> Raw:
    """The object after the patch. Raises ApiError 400, 413, 415, 422."""
    try:
        return _apply(how, doc, patch, schema)
    except RecursionError as error:
        raise errors.bad_request("error decoding patch: it is nested too deeply") from error


def _apply(how: PatchType, doc: Raw, patch: Any, schema: Schema | None) -> Raw:
    match how:
        case PatchType.JSON:
            return apply_json(doc, patch)
        case PatchType.MERGE:
            if not isinstance(patch, dict):
                raise errors.bad_request("error decoding patch: a merge patch must be a JSON object")
            found: Raw = apply_merge(doc, patch)
            return found
        case PatchType.STRATEGIC:
            if schema is None:
                raise errors.unsupported_media_type([PatchType.JSON.value, PatchType.MERGE.value])
            if not isinstance(patch, dict):
                raise errors.bad_request("error decoding patch: a strategic merge patch must be a JSON object")
            return apply_strategic(doc, patch, schema)


def apply_merge(doc: Any, patch: Any) -> Any:
    """RFC 7386: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    found = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = apply_merge(found.get(key), value)
    return found


def _refused(why: str) -> errors.ApiError:
    sentence = "the server rejected our request due to an error in our request"
    return errors.ApiError(422, "Invalid", f"{sentence}: {why}")


def _pointer(text: object, where: str) -> list[str]:
    """The parts of an RFC 6901 pointer."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise errors.bad_request(f"error decoding patch: {where} must be a JSON pointer, got {errors.shown(text)}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def apply_json(doc: Raw, operations: Any) -> Raw:
    """RFC 6902: all operations or none."""
    if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
        raise errors.bad_request("error decoding patch: a JSON patch must be a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise errors.too_large(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}"
        )
    found: Any = orjson.loads(orjson.dumps(doc))
    room = _Room()
    for number, operation in enumerate(operations):
        found = _operate(found, operation, f"operation {number}", room)
    if not isinstance(found, dict):
        raise _refused("the patched document is no object")
    return found


def _operate(doc: Any, operation: Raw, where: str, room: _Room) -> Any:
    path = _pointer(operation.get("path"), f"{where}: path")
    name = operation.get("op")
    if name in ("add", "replace", "test") and "value" not in operation:
        raise errors.bad_request(f"error decoding patch: {where}: {name} needs a value")
    match name:
        case "add":
            return _add(doc, path, operation["value"], where, room)
        case "remove":
            return _remove(doc, path, where, room)[0]
        case "replace":
            _get(doc, path, where)
            return _set(doc, path, operation["value"], where)
        case "test":
            if not _same(_get(doc, path, where, None), operation["value"]):
                raise _refused(f"{where}: testing value {operation['path']} failed: test failed")
            return doc
        case "move":
            source = _pointer(operation.get("from"), f"{where}: from")
            if path[: len(source)] == source and path != source:
                raise _refused(f"{where}: a value cannot move into itself")
            doc, value = _remove(doc, source, where, room)
            return _add(doc, path, value, where, room)
        case "copy":
            value = _get(doc, _pointer(operation.get("from"), f"{where}: from"), where)
            text = orjson.dumps(value)
            room.take(len(text), where)
            return _add(doc, path, orjson.loads(text), where, room)
    raise errors.bad_request(f"error decoding patch: {where}: unknown op {errors.shown(name)}")


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: true is not 1, 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


_NEEDED: Final = object()


def _missing(path: list[str], where: str) -> errors.ApiError:
    return _refused(f"{where}: path /{'/'.join(path)} does not exist")


def _index(part: str, length: int, path: list[str], where: str) -> int:
    """A position inside a list of ``length``; RFC 6901 allows no sign and no leading zero."""
    if not part.isascii() or not part.isdigit() or (part != "0" and part.startswith("0")):
        raise _refused(f"{where}: {errors.shown(part)} is no list index in path /{'/'.join(path)}")
    if int(part) >= length:
        raise _missing(path, where)
    return int(part)


def _get(doc: Any, path: list[str], where: str, default: Any = _NEEDED) -> Any:
    for part in path:
        if isinstance(doc, dict):
            if part not in doc:
                if default is _NEEDED:
                    raise _missing(path, where)
                return default
            doc = doc[part]
        elif isinstance(doc, list):
            doc = doc[_index(part, len(doc), path, where)]
        else:
            raise _missing(path, where)
    return doc


def _add(doc: Any, path: list[str], value: Any, where: str, room: _Room) -> Any:
    if not path:
        return value
    parent = _get(doc, path[:-1], where)
    if isinstance(parent, list):
        room.take(len(parent) // 64, where)
        at = len(parent) if path[-1] == "-" else _index(path[-1], len(parent) + 1, path, where)
        parent.insert(at, value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _missing(path, where)
    return doc


def _set(doc: Any, path: list[str], value: Any, where: str) -> Any:
    if not path:
        return value
    parent = _get(doc, path[:-1], where)
    if isinstance(parent, list):
        parent[_index(path[-1], len(parent), path, where)] = value
    else:
        parent[path[-1]] = value
    return doc


def _remove(doc: Any, path: list[str], where: str, room: _Room) -> tuple[Any, Any]:
    if not path:
        raise _refused(f"{where}: the whole document cannot be removed")
    parent = _get(doc, path[:-1], where)
    value = _get(parent, path[-1:], where)
    if isinstance(parent, list):
        room.take(len(parent) // 64, where)
        del parent[_index(path[-1], len(parent), path, where)]
    else:
        del parent[path[-1]]
    return doc, value
