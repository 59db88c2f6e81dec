"""Reading a request's body: bounded in bytes, time and depth; JSON or YAML; errors say where."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Hashable
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import orjson
import yaml
from aiohttp import web

from polder.api.errors import ApiError, bad_request, too_large, unsupported_media_type
from polder.api.meta import Raw
from polder.apiserver import protobuf
from polder.apiserver.fairness import LARGE, away, handing_over
from polder.apiserver.repeated import repeated_fields

DEPTH_LIMIT = 100
"""Nesting of objects and arrays in a body; the deepest built-in type is far below it."""
YAML_LIMIT = 256 * 1024
"""Bytes of a body in YAML, which takes a hundred times the time of JSON to read: about half a second at most."""
AUDITED = web.RequestKey("polder.audited", bytes)
"""Key of a request under which its body is left for the audit, if it is there."""
_WHOLE = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]+|0|[1-9][0-9_]*)$")
"""Whole numbers without YAML 1.1's base 60 (``1:30``), which JSON does not know and which takes quadratic time."""
_JSON = "application/json"
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


class _PlainLoader(yaml.CSafeLoader):
    """YAML as JSON knows it: no dates, no merge keys, no aliases, keys that are text. Of a key that stands twice the last
    value counts; ``repeated`` has the lines.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.repeated: list[tuple[int, str]] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Makes each key text before it can meet an equal one of another type."""
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
            key = _json_key(self.construct_object(key_node, deep=deep))
            if key in found:
                self.repeated.append((key_node.start_mark.line + 1, key))
            found[key] = self.construct_object(value_node, deep=True)
        return found


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith((":timestamp", ":merge", ":value", ":int"))]
    for first, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE, [*"-+0123456789"])


def _construct_int(loader: _PlainLoader, node: yaml.ScalarNode) -> int:
    """Also where a tag asks for a number of another form."""
    if not _WHOLE.match(loader.construct_scalar(node)):
        raise yaml.constructor.ConstructorError(None, None, "a whole number cannot be written so", node.start_mark)
    found: int = loader.construct_yaml_int(node)
    return found


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)


async def read_body(request: web.BaseRequest, limit: int, timeout: float) -> bytes:
    """The whole body. Raises ApiError 413 over ``limit`` bytes, 408 when it takes longer than ``timeout`` seconds."""
    if request.content_length is not None and request.content_length > limit:
        raise too_large(f"limit is {limit}")
    chunks: list[bytes] = []
    size = 0
    coming = not request.content.is_eof()
    held = False
    try:
        async with AsyncExitStack() as room, away() if coming else nullcontext(), asyncio.timeout(timeout):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large(f"limit is {limit}")
                if coming and size > LARGE and not held:
                    held = True
                    await room.enter_async_context(handing_over(patient=True))  # what comes meanwhile is not read
                chunks.append(chunk)
    except TimeoutError:
        raise ApiError(408, "Timeout", f"the request's body did not arrive within {timeout:g} seconds") from None
    body = b"".join(chunks)
    if AUDITED in request:
        request[AUDITED] = body
    return body


def media_type(request: web.BaseRequest) -> str:
    """The body's media type without parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Sent:
    """A decoded body, and sentences about keys that stand twice in it."""

    value: Any
    repeated: tuple[str, ...] = ()

    @property
    def obj(self) -> Raw:
        """The body as an object. Raises ApiError 400 for anything else."""
        if not isinstance(self.value, dict):
            raise bad_request(f"the body must be a JSON object, not {_json_name(self.value)}")
        return self.value


def parse_body(body: bytes, media: str) -> Any:
    """Any JSON value. Raises ApiError 400 with the position of a mistake, 415 for other media types."""
    return read_sent(body, media).value


def read_sent(body: bytes, media: str) -> Sent:
    """A body with what is odd about it. Raises ApiError as ``parse_body`` does."""
    if not body.strip():
        raise bad_request("the request has no body: an object is needed")
    repeated: tuple[str, ...] = ()
    if media in _YAML:
        if len(body) > YAML_LIMIT:
            raise too_large(f"limit of a body in YAML is {YAML_LIMIT}; JSON may be longer")
        found, repeated = _parse_yaml(body)
    elif media in {"", _JSON} or media.endswith("+json"):
        found = _parse_json(body)
    elif media == protobuf.MEDIA:
        return Sent(protobuf.decode_body(body))
    else:
        raise unsupported_media_type((_JSON, "application/yaml", protobuf.MEDIA))
    if body.count(b"{") + body.count(b"[") > DEPTH_LIMIT:
        check_depth(found)
    return Sent(found, repeated if media in _YAML else repeated_fields(body, found))


def parse_object(body: bytes, media: str) -> Raw:
    """A JSON object. Raises ApiError as ``parse_body`` does, and 400 for anything else."""
    return read_sent(body, media).obj


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _parse_json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        message = f"error decoding the body as JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}"
        raise bad_request(message) from None


def _parse_yaml(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """The value, and the sentence about keys that stand twice."""
    try:
        _scan_yaml(body)
        loader = _PlainLoader(body)
        try:
            found = _plain(loader.get_single_data())
        finally:
            loader.dispose()
        lines = "".join(f'\n  line {line}: key "{key}" already set in map' for line, key in loader.repeated)
        return found, (f"yaml: unmarshal errors:{lines}",) if lines else ()
    except yaml.MarkedYAMLError as problem:
        where = ""
        if problem.problem_mark is not None:
            where = f" at line {problem.problem_mark.line + 1}, column {problem.problem_mark.column + 1}"
        raise bad_request(f"error decoding the body as YAML: {problem.problem}{where}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as problem:
        raise bad_request(f"error decoding the body as YAML: {problem}") from None


def _scan_yaml(body: bytes) -> None:
    """Refuses, before anything is built, aliases (they multiply) and deep nesting (the composer recurses in C)."""
    depth = 0
    for event in yaml.parse(body, Loader=_PlainLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.AliasEvent):
            raise bad_request(f"error decoding the body as YAML: line {line}: aliases are not accepted")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_LIMIT:
            raise bad_request(f"line {line}: the body is nested more than {DEPTH_LIMIT} levels deep")


def _plain(value: Any) -> Any:
    """The value itself; what JSON cannot hold is refused."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _plain(inner)
    if (
        value is None
        or isinstance(value, str | int | dict | list)
        or (isinstance(value, float) and math.isfinite(value))
    ):
        return value
    raise bad_request(f"error decoding the body as YAML: a value of type {type(value).__name__} has no JSON form")


def _json_key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise bad_request("error decoding the body as YAML: a mapping's key must be a scalar")


def check_depth(value: Any) -> None:
    """Raises ApiError 400 where objects and arrays are nested too deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise bad_request(f"the body is nested more than {DEPTH_LIMIT} levels deep")
