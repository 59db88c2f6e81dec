"""The definitions of custom kinds in OpenAPI documents.

Source: upstream's ``apiextensions-apiserver/pkg/controller/openapi``, ``builder.go`` and ``v2/conversion.go``.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from polder.api.crd import CustomVersion
from polder.api.meta import Raw
from polder.api.openapi_schemas import GVK, PLAIN_KEYS, TYPE_META, Dialect, convert
from polder.api.schemas import META, REF
from polder.api.structural import EMBEDDED, PRESERVE

_CONVENTIONS: Final = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_META_SAYS: Final = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"
_SELECTABLE: Final = "x-kubernetes-selectable-fields"
_LIST_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_KEYS: Final = (*PLAIN_KEYS, "type", "uniqueItems", "example", "externalDocs")


def custom_definition(version: CustomVersion, dialect: Dialect) -> Raw:
    """The definition of a custom kind in one version. Parses the schema itself: documents are built in threads."""
    schema: Raw = orjson.loads(version.text)
    if dialect is Dialect.V2 and schema.get(PRESERVE):
        # Readers of version 2 take a kind with properties for one that has no others.
        found: Raw = {"type": "object"}
    else:
        found = _custom(schema, dialect)
        found["properties"] = {**found.get("properties", {}), **TYPE_META, "metadata": _metadata(dialect)}
    kind = version.kind
    found[GVK] = [{"group": kind.group, "kind": kind.kind, "version": kind.version}]
    if version.selectable:
        found[_SELECTABLE] = [{"fieldPath": path} for path in version.selectable]
    return found


def _metadata(dialect: Dialect) -> Raw:
    return convert({"$ref": f"{REF}{META}.ObjectMeta", "description": _META_SAYS}, dialect)


def _custom(schema: Raw, dialect: Dialect) -> Raw:
    """A structural schema."""
    if dialect is Dialect.V2:
        schema = _second(schema)
    found: Raw = {key: value for key, value in schema.items() if key in _KEYS or (key.startswith("x-") and value)}
    if dialect is Dialect.V3:
        if schema.get("nullable"):
            found["nullable"] = True
        found |= {key: schema[key] for key in (*_LIST_JUNCTORS, "not") if schema.get(key)}
    if isinstance(schema.get("items"), dict):
        found["items"] = _custom(schema["items"], dialect)
    more = schema.get("additionalProperties")
    if more is not None:
        found["additionalProperties"] = _custom(more, dialect) if isinstance(more, dict) else more
    if "properties" in schema:
        found["properties"] = {key: _custom(part, dialect) for key, part in schema["properties"].items()}
    if schema.get(EMBEDDED) and not (dialect is Dialect.V2 and schema.get(PRESERVE)):
        found["properties"] = {**found.get("properties", {}), **TYPE_META, "metadata": _metadata(dialect)}
        required = found.get("required") or []
        found["required"] = [*required, *(name for name in ("kind", "apiVersion") if name not in required)]
    return found


def _second(schema: Raw) -> Raw:
    """One level of a schema without what the readers of version 2 cannot take."""
    found = dict(schema)
    preserve = found.get(PRESERVE)
    if found.get("nullable"):
        found.pop("type", None)
    if preserve or found.get("nullable"):
        found.pop("items", None)
        found.pop("properties", None)
    if found.get("type") == "array" and not isinstance(found.get("items"), dict):
        del found["type"]
    if preserve and found.get("type") == "object":
        del found["type"]
    properties: dict[str, Any] = found.get("properties") or {}
    more = found.get("additionalProperties")
    required = [name for name in found.get("required") or () if not (properties.get(name) or {}).get("nullable")]
    if not required or (isinstance(more, dict) and more.get("nullable")):
        found.pop("required", None)
    else:
        found["required"] = required
    return found
