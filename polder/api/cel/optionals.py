"""Optional types and the function that two-variable comprehensions need."""

from __future__ import annotations

from typing import Any, Final

from polder.api.cel import values
from polder.api.cel.access import optional_index
from polder.api.cel.errors import Fault
from polder.api.cel.functions import Library, function, member
from polder.api.cel.types import BOOL, INT, list_of, map_of, optional_of, param
from polder.api.cel.values import NONE, Duration, Optional, Timestamp

K, V = param("K"), param("V")
_OPT, _LIST, _MAP = optional_of(V), list_of(V), map_of(K, V)


def _value(found: Optional) -> Any:
    if not found.there:
        raise Fault("optional.none() dereference")
    return found.value


def _of_non_zero(value: Any) -> Optional:
    size = values.size(value)
    zero = value is None or size == 0 or (type(value) in (bool, int, values.UInt, float) and not value)
    zero = zero or (isinstance(value, Duration | Timestamp) and value.nanos == 0)
    return NONE if zero else Optional(True, value)


def _end(place: int) -> Any:
    def run(value: Any) -> Optional:
        items = values.as_list(value)
        return Optional(True, items[place]) if items else NONE

    return run


def _unwrap(value: Any) -> list[Any]:
    return [item.value for item in values.as_list(value) or [] if isinstance(item, Optional) and item.there]


def _unreached(*_: object) -> object:
    raise AssertionError("evaluated by evaluate.py itself")


LIBRARY: Final[Library] = {
    "optional.of": (function("optional_of", (V,), _OPT, lambda value: Optional(True, value)),),
    "optional.ofNonZeroValue": (function("optional_ofNonZeroValue", (V,), _OPT, _of_non_zero),),
    "optional.none": (function("optional_none", (), _OPT, lambda: NONE),),
    "value": (member("optional_value", (_OPT,), V, _value),),
    "hasValue": (member("optional_hasValue", (_OPT,), BOOL, lambda found: found.there),),
    "or": (member("optional_or_optional", (_OPT, _OPT), _OPT, _unreached),),
    "orValue": (member("optional_orValue_value", (_OPT, V), V, _unreached),),
    "_[?_]": (
        function("list_optindex_optional_int", (_LIST, INT), _OPT, optional_index),
        function("optional_list_optindex_optional_int", (optional_of(_LIST), INT), _OPT, optional_index),
        function("map_optindex_optional_value", (_MAP, K), _OPT, optional_index),
        function("optional_map_optindex_optional_value", (optional_of(_MAP), K), _OPT, optional_index),
    ),
    "_[_]": (
        function("optional_list_index_int", (optional_of(_LIST), INT), _OPT, _unreached),
        function("optional_map_index_value", (optional_of(_MAP), K), _OPT, _unreached),
    ),
    "first": (member("list_first", (_LIST,), _OPT, _end(0)),),
    "last": (member("list_last", (_LIST,), _OPT, _end(-1)),),
    "optional.unwrap": (function("optional_unwrap", (list_of(_OPT),), _LIST, _unwrap),),
    "unwrapOpt": (member("optional_unwrapOpt", (list_of(_OPT),), _LIST, _unwrap),),
    "cel.@mapInsert": (
        function("@mapInsert_map_key_value", (_MAP, K, V), _MAP, _unreached),
        function("@mapInsert_map_map", (_MAP, _MAP), _MAP, _unreached),
    ),
}
