"""OpenAPI documents of what is served: version 2 as JSON and protobuf, version 3 as an index and a document for each group
version. Equal digests mean equal documents, so that tenants with the same kinds can share them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from polder.api.crd import CustomVersion
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.api.openapi_custom import custom_definition
from polder.api.openapi_paths import EXTRA_DEFINITIONS, Operation, operations, paths_v2, paths_v3
from polder.api.openapi_proto import encode_document
from polder.api.openapi_schemas import Dialect, list_definition, name_of, published
from polder.api.schemas import EXTRA, META, definitions

PROTO_ACCEPTED: Final = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)
"""The names under which clients ask for version 2 as protobuf."""
PROTO_CONTENT_TYPE: Final = PROTO_ACCEPTED[1]
"""The Content-Type of that answer, always: the first name is none that Go's MIME parser takes."""
_TITLE: Final = "Polder"
_VERSION: Final = "v1.36.0"


@dataclass(frozen=True, slots=True)
class Served:
    """The kinds of one tenant. Two with the same digest have the same documents."""

    digest: str
    kinds: tuple[Kind, ...] = field(compare=False)
    custom: tuple[CustomVersion, ...] = field(compare=False)

    def part(self, group: str, version: str) -> Served:
        """What of it one group version has."""
        kinds = [kind for kind in self.kinds if (kind.group, kind.version) == (group, version)]
        custom = [found for found in self.custom if (found.kind.group, found.kind.version) == (group, version)]
        return served(kinds, custom)


def served(kinds: Iterable[Kind], custom: Iterable[CustomVersion]) -> Served:
    """The kinds that documents describe: built-in ones, and the versions of custom ones."""
    kinds, custom = tuple(kinds), tuple(custom)
    digest = hashlib.sha256(usedforsecurity=False)
    for kind in kinds:
        digest.update(f"{kind.resource} {kind.version}\n".encode())
    for found in sorted(custom, key=lambda version: (version.kind.resource, version.kind.version)):
        digest.update(f"{found.kind!r} {found.selectable}\n".encode() + found.text + b"\n")
    return Served(digest.hexdigest(), kinds, custom)


def _operations(what: Served) -> Iterable[Operation]:
    for kind in what.kinds:
        yield from operations(kind, name_of(kind, custom=False), custom=False)
    for version in what.custom:
        yield from operations(version.kind, name_of(version.kind, custom=True), custom=True)


def _definitions(what: Served, dialect: Dialect) -> dict[str, Raw]:
    raw = definitions()
    wanted = {f"{META}.ListMeta", f"{META}.ObjectMeta", *EXTRA_DEFINITIONS, *EXTRA}
    made: dict[str, Raw] = {}
    for kind in what.kinds:
        name = name_of(kind, custom=False)
        wanted.add(name)
        if f"{name}List" in raw:
            wanted.add(f"{name}List")
        else:
            made[f"{name}List"] = list_definition(kind, name, dialect)
    for version in what.custom:
        name = name_of(version.kind, custom=True)
        made[name] = custom_definition(version, dialect)
        made[f"{name}List"] = list_definition(version.kind, name, dialect)
    return dict(sorted({**published(sorted(wanted), raw, dialect), **made}.items()))


def _document_v2(what: Served) -> Raw:
    return {
        "swagger": "2.0",
        "info": {"title": _TITLE, "version": _VERSION},
        "paths": paths_v2(iter(_operations(what))),
        "definitions": _definitions(what, Dialect.V2),
    }


def v2_json(what: Served) -> bytes:
    """``/openapi/v2`` as JSON."""
    return orjson.dumps(_document_v2(what))


def v2_proto(what: Served) -> bytes:
    """``/openapi/v2`` as protobuf, see PROTO_ACCEPTED and PROTO_CONTENT_TYPE."""
    return encode_document(_document_v2(what))


def group_versions(what: Served) -> list[tuple[str, str]]:
    """Every group and version that is served, in order."""
    kinds = (*what.kinds, *(found.kind for found in what.custom))
    return list(dict.fromkeys((kind.group, kind.version) for kind in kinds))


def v3_index(what: Served, prefix: str = "") -> bytes:
    """``/openapi/v3``; ``prefix`` is what stands before ``/openapi`` in the request's path, such as ``/tenants/acme``."""
    paths = {}
    for group, version in group_versions(what):
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        paths[path] = {
            "serverRelativeURL": f"{prefix}/openapi/v3/{path}?hash={what.part(group, version).digest.upper()}"
        }
    return orjson.dumps({"paths": paths})


def v3_json(part: Served) -> bytes:
    """``/openapi/v3/api/VERSION`` or ``/openapi/v3/apis/GROUP/VERSION``: the document of one group version's part."""
    document = {
        "openapi": "3.0.0",
        "info": {"title": _TITLE, "version": _VERSION},
        "paths": paths_v3(iter(_operations(part))),
        "components": {"schemas": _definitions(part, Dialect.V3)},
    }
    return orjson.dumps(document)
