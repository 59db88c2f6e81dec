"""Resources inside of custom resources (``x-kubernetes-embedded-resource``): their version, kind and metadata."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.meta import Raw
from polder.api.structural import EMBEDDED

_TEXTS: Final = ("name", "generateName", "namespace", "uid", "resourceVersion")


def validate_embedded(schema: Raw, value: Any, at: Field, *, is_root: bool = False) -> Iterator[FieldError]:
    """Resources inside of resources have a version, a kind and sound metadata."""
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for number, item in enumerate(value):
                yield from validate_embedded(items, item, at[number])
        return
    if not isinstance(value, dict):
        return
    if schema.get(EMBEDDED) and not is_root:
        for key in ("apiVersion", "kind"):
            if not isinstance(value.get(key, ""), str):
                yield (at / key).invalid(value[key], "must be a string")
            elif not value.get(key):
                yield (at / key).required("must not be empty")
        yield from _metadata(value.get("metadata"), at / "metadata")
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    for key, item in value.items():
        part = properties.get(key)
        if isinstance(part, dict):
            yield from validate_embedded(part, item, at / key)
        elif isinstance(more, dict):
            yield from validate_embedded(more, item, at[key])


def _metadata(meta: Any, at: Field) -> Iterator[FieldError]:
    if meta is None:
        return
    if not isinstance(meta, dict):
        yield at.invalid(meta, "must be an object")
        return
    for name in _TEXTS:
        if not isinstance(meta.get(name, ""), str):
            yield (at / name).invalid(meta[name], "must be a string")
    name = meta.get("name") or ""
    if isinstance(name, str) and name:
        yield from ((at / "name").invalid(name, said) for said in names.dns_subdomain(name))
    for key in ("labels", "annotations"):
        found = meta.get(key) or {}
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            yield (at / key).invalid(found, "must be a map of strings")
            continue
        for label, value in found.items():
            yield from ((at / key).invalid(label, said) for said in names.qualified_name(label))
            if key == "labels":
                yield from ((at / key).invalid(value, said) for said in names.label_value(value))
