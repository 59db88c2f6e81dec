"""What MutatingAdmissionPolicies add: ``Object{…}`` and ``JSONPatch{…}`` as values, and escaping keys of patches."""

from __future__ import annotations

import base64
from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.conversions import to_string
from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, function
from polder.api.cel.types import STRING
from polder.api.cel.values import DynamicObject, Fields, Optional, type_name


def escape_key(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def to_json(value: Any) -> Any:
    """A value as JSON knows it. Raises Fault for what has no such form."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, values.Timestamp | values.Duration):
        return to_string(value)
    items = values.as_list(value)
    if items is not None:
        return [to_json(item) for item in items]
    if values.is_map(value):
        return {_key(key): to_json(values.map_find(value, key).value) for key in values.map_keys(value)}
    if isinstance(value, Fields):
        return {name: to_json(value.find(name).value) for name in value.names()}
    if isinstance(value, Optional) and value.there:
        return to_json(value.value)
    raise Fault(f"a value of type {type_name(value)} has no JSON form")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Fault(f"a key of type {type_name(key)} has no JSON form")
    return key


def to_patch(value: Any) -> list[dict[str, Any]]:
    """The operations (RFC 6902) of a list of ``JSONPatch`` values. Raises Fault."""
    found = []
    for item in values.as_list(value) or []:
        if not isinstance(item, DynamicObject) or item.type_name != "JSONPatch":
            raise Fault(f"type mismatch: JSONPatchType.{type_name(item)} should evaluate to JSONPatch")
        found.append({name: to_json(each) for name, each in item.fields.items()})
    return found


LIBRARY: Final[Library] = {
    "jsonpatch.escapeKey": (function("string_jsonpatch_escapeKey_string", (STRING,), STRING, escape_key),),
}
