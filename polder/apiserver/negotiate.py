"""Which form of an answer the caller accepts: the object itself, a Table, or its metadata alone; JSON or YAML.

Source: Kubernetes API concepts, "Resource representations" (RFC 9110 content negotiation with ``as``, ``g`` and ``v``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from polder.api.errors import not_acceptable

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
OPENAPI_V2_PROTO = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_ANY_JSON = frozenset({JSON, "*/*", "application/*"})
_ANY_YAML = frozenset({YAML, "application/x-yaml", "text/yaml"})
_SUPPORTED = (JSON, YAML, PROTOBUF)


class Form(Enum):
    """What of an object is answered."""

    OBJECT = ""
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A form, the version of meta.k8s.io that it is asked in, and the serialisation."""

    form: Form = Form.OBJECT
    meta_version: str = "v1"
    media: str = JSON


@dataclass(frozen=True, slots=True)
class Clause:
    """One media range of an Accept header."""

    media: str
    params: dict[str, str]
    quality: float


@lru_cache(maxsize=256)
def clauses(accept: str) -> tuple[Clause, ...]:
    """The media ranges of an Accept header, the most wanted first; order counts between equals."""
    found = []
    for part in accept.split(","):
        media, *params = (p.strip() for p in part.split(";"))
        if not media:
            continue
        pairs = {k.strip().lower(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in params)}
        try:
            quality = float(pairs.pop("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            found.append(Clause(media.lower(), pairs, quality))
    return tuple(sorted(found, key=lambda c: -c.quality))


@lru_cache(maxsize=256)
def accepted(accept: str) -> Accepted:
    """The first acceptable form, protobuf only where nothing else would do. No header accepts JSON. Raises ApiError 406."""
    if not accept:
        return Accepted()
    for clause in clauses(accept):
        media = JSON if clause.media in _ANY_JSON else YAML if clause.media in _ANY_YAML else ""
        wanted = clause.params.get("as", "")
        if not media:
            continue
        if not wanted:
            return Accepted(media=media)
        version = clause.params.get("v", "")
        if clause.params.get("g") != "meta.k8s.io" or version not in {"v1", "v1beta1"}:
            continue
        if wanted == "Table":
            return Accepted(Form.TABLE, version, media)
        if wanted in {"PartialObjectMetadata", "PartialObjectMetadataList"}:
            return Accepted(Form.METADATA, version, media)
    if any(clause.media == PROTOBUF and "as" not in clause.params for clause in clauses(accept)):
        return Accepted(media=PROTOBUF)
    raise not_acceptable(_SUPPORTED)
