"""OpenAPI v2 documents of aggregated APIs, put into the server's own.

Source: kube-openapi's aggregator (facts): only what is below the other's paths, definitions renamed where two differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from polder.api.meta import Raw
from polder.api.openapi import Served, v2_json
from polder.api.openapi_proto import encode_document

_REF: Final = "#/definitions/"
_METHODS: Final = frozenset({"get", "put", "post", "delete", "patch"})
_OPERATION: Final[Raw] = {
    "tags": [], "operationId": "", "produces": [], "consumes": [], "parameters": [], "schemes": ["https"], "responses": {},
}  # fmt: skip
DEFINITIONS_LIMIT: Final = 2000
"""Definitions that are taken of one document."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another server's document of one group version, as it came."""

    group: str
    version: str
    body: bytes


def merged_v2(what: Served, others: Sequence[Other], *, proto: bool) -> bytes:
    """The server's document with the others in it, as JSON or protobuf. What cannot be read is left out."""
    document: Raw = orjson.loads(v2_json(what))
    for other in others:
        try:
            added = _added(document, other)
            if proto:
                encode_document({**document, **added})
            else:
                orjson.dumps(added)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # it is another's mistake, and must not take the whole document away
        document |= added
    return encode_document(document) if proto else orjson.dumps(document)


def _added(document: Raw, other: Other) -> Raw:
    """Paths and definitions of the document with the other's."""
    said: Raw = orjson.loads(other.body)
    prefix = f"/apis/{other.group}/{other.version}/"
    paths = {path: item for path, item in said["paths"].items() if path.startswith(prefix) and isinstance(item, dict)}
    known, theirs = document["definitions"], said.get("definitions") or {}
    names = _needed(paths, theirs)
    renamed = {name: _free(name, known, theirs[name]) for name in names}
    definitions = {new: _rewritten(theirs[name], renamed) for name, new in renamed.items() if new not in known}
    return {
        "paths": {**{path: _whole(_rewritten(item, renamed)) for path, item in paths.items()}, **document["paths"]},
        "definitions": {**known, **definitions},
    }


def _whole(item: Raw) -> Raw:
    """A path's item with every field that the encoding wants."""
    found = {**item, "parameters": item.get("parameters") or []}
    for method in _METHODS & item.keys():
        operation = {**_OPERATION, **item[method]}
        responses = operation.get("responses") or {}
        operation["responses"] = {code: {"description": "", **said} for code, said in responses.items()}
        found[method] = operation
    return found


def _needed(paths: Raw, definitions: Raw) -> list[str]:
    """The definitions that paths refer to, and those that these refer to."""
    found: dict[str, None] = {}
    waiting: list[Any] = [paths]
    while waiting and len(found) < DEFINITIONS_LIMIT:
        for name in _references(waiting.pop()):
            if name in definitions and name not in found:
                found[name] = None
                waiting.append(definitions[name])
    return list(found)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REF):
            yield reference.removeprefix(_REF)
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _free(name: str, known: Raw, definition: Any) -> str:
    """The name itself where nothing else has it, else with a number."""
    number, candidate = 1, name
    while candidate in known and known[candidate] != definition:
        number += 1
        candidate = f"{name}_v{number}"
    return candidate


def _rewritten(value: Any, renamed: dict[str, str]) -> Any:
    if isinstance(value, dict):
        found = {key: _rewritten(inner, renamed) for key, inner in value.items()}
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_REF):
            name = reference.removeprefix(_REF)
            found["$ref"] = _REF + renamed.get(name, name)
        return found
    if isinstance(value, list):
        return [_rewritten(inner, renamed) for inner in value]
    return value
