"""CustomResourceDefinitions: the rules of a definition (apiextensions/v1).

Not there yet, and refused when written: rules in CEL, conversion by webhook, the scale subresource, selectable fields.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

from polder.api import jsonpath, names
from polder.api.crd_rules import check_schema
from polder.api.errors import Field, FieldError
from polder.api.kinds import BUILT_IN
from polder.api.meta import Raw

_SPEC: Final = Field("spec")
_SCOPES: Final = ("Cluster", "Namespaced")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_OWN_GROUPS: Final = frozenset(kind.group for kind in BUILT_IN)
_APPROVAL: Final = "api-approved.kubernetes.io"
_LATER: Final = "is not supported by this version of Polder"


def validate_crd(crd: Raw) -> Iterator[FieldError]:
    """The whole definition."""
    spec = crd.get("spec") or {}
    yield from _group(crd, spec.get("group", ""))
    yield from _names(crd, spec)
    if not spec.get("scope"):
        yield (_SPEC / "scope").required()
    elif spec["scope"] not in _SCOPES:
        yield (_SPEC / "scope").not_supported(spec["scope"], _SCOPES)
    if spec.get("preserveUnknownFields"):
        yield (_SPEC / "preserveUnknownFields").invalid(True, "must be false")
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        yield (_SPEC / "conversion.strategy").forbidden(f"conversion by webhook {_LATER}")
    yield from _versions(spec.get("versions") or [])


def _group(crd: Raw, group: str) -> Iterator[FieldError]:
    at = _SPEC / "group"
    if not group:
        yield at.required()
        return
    yield from (at.invalid(group, said) for said in names.dns_subdomain(group))
    if "." not in group:
        yield at.invalid(group, "should be a domain with at least one dot")
    if group in _OWN_GROUPS or group == "authentication.k8s.io":
        yield at.forbidden(f"group {group} is Polder's own")
    elif group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io"):
        annotations = (crd.get("metadata") or {}).get("annotations") or {}
        if not annotations.get(_APPROVAL):
            why = f'protected groups must have approval annotation "{_APPROVAL}"'
            yield Field("metadata.annotations")[_APPROVAL].required(why)


def _names(crd: Raw, spec: Raw) -> Iterator[FieldError]:
    given, at = spec.get("names") or {}, _SPEC / "names"
    wanted = f"{given.get('plural', '')}.{spec.get('group', '')}"
    if (name := (crd.get("metadata") or {}).get("name", "")) != wanted:
        yield Field("metadata.name").invalid(name, 'must be spec.names.plural+"."+spec.group')
    for key in ("plural", "singular", "kind", "listKind"):
        text = given.get(key, "")
        if not text:
            yield (at / key).required()
            continue
        yield from ((at / key).invalid(text, said) for said in names.dns_label_1035(text.lower()))
        if key in ("plural", "singular") and text != text.lower():
            yield (at / key).invalid(text, "must be lower case")
    for group in ("shortNames", "categories"):
        for number, text in enumerate(given.get(group) or ()):
            yield from ((at / group)[number].invalid(text, said) for said in names.dns_label_1035(text))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        yield (at / "listKind").invalid(given["listKind"], "kind and listKind may not be the same")


def _versions(versions: list[Raw]) -> Iterator[FieldError]:
    at = _SPEC / "versions"
    if not versions:
        yield at.required("must have at least one version")
        return
    seen: set[str] = set()
    for number, version in enumerate(versions):
        where, name = at[number], version.get("name", "")
        yield from ((where / "name").invalid(name, said) for said in names.dns_label_1035(name))
        if name in seen:
            yield (where / "name").duplicate(name)
        seen.add(name)
        yield from _version(version, where)
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield at.invalid([version.get("name") for version in versions],
                         "must have exactly one version marked as storage version")  # fmt: skip


def _version(version: Raw, at: Field) -> Iterator[FieldError]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        yield (at / "schema.openAPIV3Schema").required("schemas are required")
    else:
        yield from check_schema(schema, at / "schema.openAPIV3Schema")
    if "scale" in (version.get("subresources") or {}):
        yield (at / "subresources.scale").forbidden(f"the scale subresource {_LATER}")
    if version.get("selectableFields"):
        yield (at / "selectableFields").forbidden(f"selecting by fields of custom resources {_LATER}")
    for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
        where = (at / "additionalPrinterColumns")[number]
        if not column.get("name"):
            yield (where / "name").required()
        if column.get("type") not in _COLUMN_TYPES:
            yield (where / "type").not_supported(column.get("type", ""), _COLUMN_TYPES)
        path = column.get("jsonPath", "")
        if not path:
            yield (where / "jsonPath").required()
            continue
        try:
            jsonpath.parse(path)
        except jsonpath.JsonPathError as error:
            yield (where / "jsonPath").invalid(path, str(error))


def validate_crd_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """Group, names and scope stay; versions that were stored stay listed."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for path in (("group",), ("scope",), ("names", "plural"), ("names", "kind")):
        values = [functools.reduce(lambda part, key: part.get(key) or {}, path, spec) for spec in (after, before)]
        if values[0] != values[1]:
            yield (_SPEC / ".".join(path)).invalid(values[0], "field is immutable")
    listed = {version.get("name") for version in after.get("versions") or ()}
    for number, name in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if name not in listed:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions"
            )
            yield Field("status.storedVersions")[number].invalid(name, why)
