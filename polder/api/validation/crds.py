"""CustomResourceDefinitions: the rules of a definition (apiextensions/v1), in upstream's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from polder.api import formats, jsonpath, names
from polder.api.cel.urls import problem_of
from polder.api.correlation import same
from polder.api.crd_schema import Old, check_schema
from polder.api.errors import Field, FieldError
from polder.api.field_path import FieldPathError, resolve
from polder.api.kinds import BUILT_IN
from polder.api.meta import Raw
from polder.api.validation.client_config import check_client_config

_SPEC: Final = Field("spec")
_SCOPES: Final = ("Cluster", "Namespaced")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS: Final = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
OWN_GROUPS: Final = frozenset(kind.group for kind in BUILT_IN)
APPROVAL: Final = "api-approved.kubernetes.io"
_SEE: Final = "see https://github.com/kubernetes/enhancements/pull/1111"
SELECTABLE_LIMIT: Final = 8
_NUMBER_FORMATS: Final = frozenset({"int32", "int64", "float", "double", "password"})
_REVIEWS: Final = ("v1", "v1beta1")


def validate_crd(crd: Raw) -> Iterator[FieldError]:
    """A new definition."""
    yield from _definition(crd, None)


def validate_crd_update(new: Raw, old: Raw) -> Iterator[FieldError]:
    """A changed definition, in itself and against what stood before. What did not change was sound before."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if same(after, before):
        yield from _approval(new, old)
        return
    yield from _definition(new, old)
    paths = [("group",), ("names", "plural")]
    if _is_established(old):
        paths += [("scope",), ("names", "kind")]
    for path in paths:
        values = [_dig(spec, path) for spec in (after, before)]
        if values[0] != values[1]:
            yield (_SPEC / ".".join(path)).invalid(values[0], "field is immutable")


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = (value or {}).get(key)
    return value


def _is_established(crd: Raw) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def _definition(crd: Raw, old: Raw | None) -> Iterator[FieldError]:
    spec = crd.get("spec") or {}
    wanted = f"{(spec.get('names') or {}).get('plural', '')}.{spec.get('group', '')}"
    name = (crd.get("metadata") or {}).get("name", "")
    if name != wanted:
        yield Field("metadata.name").invalid(name, 'must be spec.names.plural+"."+spec.group')
    yield from _group(spec.get("group") or "")
    if not spec.get("scope"):
        yield (_SPEC / "scope").required()
    elif spec["scope"] not in _SCOPES:
        yield (_SPEC / "scope").not_supported(spec["scope"], _SCOPES)
    yield from _versions(spec, old)
    yield from _names(spec.get("names") or {})
    yield from _conversion(spec, old)
    yield from _stored(crd)
    yield from _approval(crd, old)
    if spec.get("preserveUnknownFields") and not (old or {}).get("spec", {}).get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        yield (_SPEC / "preserveUnknownFields").invalid(True, why)


def _group(group: str) -> Iterator[FieldError]:
    at = _SPEC / "group"
    said = names.dns_subdomain(group)
    if not group:
        yield at.required()
    elif said:
        yield at.invalid(group, ",".join(said))
    elif "." not in group:
        yield at.invalid(group, "should be a domain with at least one dot")
    if group in OWN_GROUPS:
        yield at.forbidden(f"group {group} is served by Polder itself")


# --- names --------------------------------------------------------------------------------------------------------------


def _names(given: Raw) -> Iterator[FieldError]:
    at = _SPEC / "names"
    for key in ("plural", "singular", "kind", "listKind"):
        text = given.get(key) or ""
        if not text:
            yield (at / key).required()
            continue
        mixed = key in ("kind", "listKind")
        said = names.dns_label_1035(text.lower() if mixed else text)
        if said:
            prefix = "may have mixed case, but should otherwise match: " if mixed else ""
            yield (at / key).invalid(text, prefix + ",".join(said))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        yield (at / "listKind").invalid(given["listKind"], "kind and listKind may not be the same")
    for group in ("shortNames", "categories"):
        for number, text in enumerate(given.get(group) or ()):
            said = names.dns_label_1035(text)
            if said:
                yield (at / group)[number].invalid(text, ",".join(said))


# --- versions -----------------------------------------------------------------------------------------------------------


def _versions(spec: Raw, old: Raw | None) -> Iterator[FieldError]:
    at, versions = _SPEC / "versions", spec.get("versions") or []
    before = {v.get("name"): v for v in ((old or {}).get("spec") or {}).get("versions") or ()}
    seen: set[str] = set()
    unique = True
    for number, version in enumerate(versions):
        where, name = at[number], version.get("name") or ""
        said = names.dns_label_1035(name)
        if said:
            yield (where / "name").invalid(name, ",".join(said))
        unique = unique and name not in seen
        seen.add(name)
        yield from _version(version, where, before.get(name), old)
    shown = [version.get("name") for version in versions]
    if not unique:
        yield at.invalid(shown, "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield at.invalid(shown, "must have exactly one version marked as storage version")


def _schema_of(version: Raw | None) -> Raw | None:
    found = ((version or {}).get("schema") or {}).get("openAPIV3Schema")
    return found if isinstance(found, dict) else None


def _spared(version: Raw, before: Raw | None) -> Old:
    """What an unchanged or already broken schema is spared."""
    old = _schema_of(before)
    if old is None:
        return Old()
    if same(old, _schema_of(version)):
        return Old(same_schema=True, set_items=True, map_keys=True, defaults=True)
    return Old()


def _version(version: Raw, at: Field, before: Raw | None, old: Raw | None) -> Iterator[FieldError]:
    yield from _deprecation(version, at / "deprecationWarning")
    schema, where = _schema_of(version), at / "schema" / "openAPIV3Schema"
    if schema is None:
        if old is None or _schema_of(before) is not None or version.get("served"):
            yield where.required("schemas are required" if old is None else "because otherwise all fields are pruned")
    else:
        has_status = "status" in (version.get("subresources") or {})
        yield from check_schema(schema, where, has_status=has_status, old=_spared(version, before))
    yield from _scale((version.get("subresources") or {}).get("scale"), at / "subresources" / "scale")
    for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
        yield from _column(column, (at / "additionalPrinterColumns")[number])
    fields = version.get("selectableFields") or []
    if fields:
        kept = fields == (before or {}).get("selectableFields")
        yield from _selectable(fields, schema, at / "selectableFields", kept=kept)


def unknown_formats(crd: Raw, old: Raw | None) -> list[str]:
    """Formats in a definition's schemas that are not checked, as far as they are new."""
    known = set() if old is None else set(_formats(old))
    return [name for name in dict.fromkeys(_formats(crd)) if name not in known]


def _formats(crd: Raw) -> Iterator[str]:
    todo = [_schema_of(version) for version in (crd.get("spec") or {}).get("versions") or ()]
    while todo:
        found = todo.pop()
        if not isinstance(found, dict):
            continue
        name = found.get("format") or ""
        if name and name not in formats.CHECKS and name not in _NUMBER_FORMATS:
            yield name
        todo += [found.get("items"), found.get("additionalProperties"), found.get("not")]
        todo += (found.get("properties") or {}).values()
        todo += [part for junctor in ("allOf", "anyOf", "oneOf") for part in found.get(junctor) or ()]


def _deprecation(version: Raw, at: Field) -> Iterator[FieldError]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return
    if not version.get("deprecated"):
        yield at.invalid(warning, "can only be set for deprecated versions")
        return
    if len(warning) > 256:
        yield at.invalid(warning, "must be <= 256 characters long")
    if not warning:
        yield at.invalid(warning, "must not be an empty string")
    for place, char in enumerate(warning):
        if not char.isprintable():
            why = f"must only contain printable UTF-8 characters; non-printable character found at index {place}"
            yield at.invalid(warning, why)
            break


def _column(column: Raw, at: Field) -> Iterator[FieldError]:
    one_of = f"must be one of {','.join(_COLUMN_TYPES)}"
    if not column.get("name"):
        yield (at / "name").required()
    if not column.get("type"):
        yield (at / "type").required(one_of)
    elif column["type"] not in _COLUMN_TYPES:
        yield (at / "type").invalid(column["type"], one_of)
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        yield (at / "format").invalid(column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}")
    path = column.get("jsonPath") or ""
    if not path:
        yield (at / "JSONPath").required()
    elif not path.startswith("."):
        yield (at / "JSONPath").invalid(path, "must be a simple json path starting with .")
    else:
        try:
            jsonpath.parse(path)
        except jsonpath.JsonPathError as error:
            yield (at / "JSONPath").invalid(path, str(error))


def _scale(scale: Raw | None, at: Field) -> Iterator[FieldError]:
    if scale is None:
        return
    paths: Mapping[str, tuple[str, ...]] = {
        "specReplicasPath": (".spec.",), "statusReplicasPath": (".status.",), "labelSelectorPath": (".spec.", ".status."),
    }  # fmt: skip
    for key, roots in paths.items():
        path = scale.get(key) or ""
        if not path:
            if key != "labelSelectorPath":
                yield (at / key).required()
        elif not path.startswith("."):
            yield (at / key).invalid(path, "must be a simple json path starting with .")
        elif not path.startswith(roots):
            listed = " or ".join(root.rstrip(".") for root in roots)
            yield (at / key).invalid(path, f"should be a json path under {'either ' * (len(roots) > 1)}{listed}")


def _selectable(fields: list[Raw], schema: Raw | None, at: Field, *, kept: bool) -> Iterator[FieldError]:
    if schema is None:
        yield at.invalid("", "may only be set when `version.schema.openAPIV3Schema` is not included")
        return
    seen: set[str] = set()
    for number, field in enumerate(fields):
        where, path = at[number] / "jsonPath", field.get("jsonPath") or ""
        if not path:
            yield where.required()
            continue
        try:
            found, part = resolve(path, schema, brackets=False)
        except FieldPathError as error:
            yield where.invalid(path, f"is an invalid path: {error}")
            continue
        if found.path.partition(".")[0] == "metadata":
            yield where.invalid(path, "must not point to fields in metadata")
        if part.get("type") not in ("string", "boolean", "integer"):
            why = (
                "must point to a field of type string, boolean or integer. "
                "Enum string fields and strings with formats are allowed."
            )
            yield where.invalid(path, why)
        if found.path in seen:
            yield where.duplicate(path)
        seen.add(found.path)
    if len(seen) > SELECTABLE_LIMIT and not kept:
        yield at.too_many(len(seen), SELECTABLE_LIMIT)


# --- conversion, stored versions, approval ------------------------------------------------------------------------------


def _conversion(spec: Raw, old: Raw | None) -> Iterator[FieldError]:
    conversion, at = spec.get("conversion"), _SPEC / "conversion"
    if conversion is None:
        return
    strategy, webhook = conversion.get("strategy") or "", conversion.get("webhook")
    if not strategy:
        yield (at / "strategy").required()
    elif strategy not in ("None", "Webhook"):
        yield (at / "strategy").not_supported(strategy, ("None", "Webhook"))
    if strategy == "Webhook" and spec.get("preserveUnknownFields"):
        yield (at / "strategy").invalid(strategy, "must be None if spec.preserveUnknownFields is true")
    if strategy != "Webhook":
        if webhook is not None:
            yield (at / "webhook").forbidden("should not be set when strategy is not set to Webhook")
        return
    webhook = webhook or {}
    config = webhook.get("clientConfig")
    if config is None:
        yield (at / "webhookClientConfig").required("required when strategy is set to Webhook")
    else:
        lenient = old is None or not _is_established(old)
        yield from check_client_config(config, at / "webhookClientConfig", any_bundle=lenient)
    yield from _review_versions(webhook.get("conversionReviewVersions") or [], at / "conversionReviewVersions")


def _review_versions(versions: list[str], at: Field) -> Iterator[FieldError]:
    if not versions:
        yield at.required()
        return
    seen: set[str] = set()
    for number, version in enumerate(versions):
        if version in seen:
            yield at[number].invalid(version, "duplicate version")
            continue
        seen.add(version)
        yield from (at[number].invalid(version, said) for said in names.dns_label_1035(version))
    if not seen & set(_REVIEWS):
        yield at.invalid(versions, f"must include at least one of {', '.join(_REVIEWS)}")


def _stored(crd: Raw) -> Iterator[FieldError]:
    at, stored = Field("status.storedVersions"), (crd.get("status") or {}).get("storedVersions") or []
    versions = (crd.get("spec") or {}).get("versions") or []
    if not stored:
        yield at.invalid(stored, "must have at least one stored version")
        return
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            yield at.invalid(stored, f"must have the storage version {version.get('name')}")
    listed = {version.get("name") for version in versions}
    for number, name in enumerate(stored):
        if name not in listed:
            why = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions "
                f"until a storage migration ensures no data remains persisted in {name} and removes {name} from "
                "status.storedVersions"
            )
            yield at[number].invalid(name, why)


def approval(crd: Raw) -> tuple[str, str]:
    """Whether a definition in a group of the community may be there: the reason of its condition, and what to say."""
    said = ((crd.get("metadata") or {}).get("annotations") or {}).get(APPROVAL) or ""
    if not said:
        return "MissingAnnotation", f'protected groups must have approval annotation "{APPROVAL}", {_SEE}'
    if said.startswith("unapproved"):
        return "UnapprovedAnnotation", f'not approved: "{said}"'
    if not problem_of(said) and urlsplit(said).netloc:
        return "ApprovedAnnotation", f"approved in {said}"
    why = f'protected groups must have approval annotation "{APPROVAL}" with either a URL or a reason starting with'
    return "InvalidAnnotation", f'{why} "unapproved", {_SEE}'


def is_protected(group: str) -> bool:
    """Whether a group belongs to the Kubernetes community."""
    return group in ("k8s.io", "kubernetes.io") or group.endswith((".k8s.io", ".kubernetes.io"))


def _approval(crd: Raw, old: Raw | None) -> Iterator[FieldError]:
    if not is_protected((crd.get("spec") or {}).get("group") or ""):
        return
    reason, why = approval(crd)
    if old is not None and approval(old)[0] == reason:
        return
    at = Field("metadata.annotations")[APPROVAL]
    if reason == "MissingAnnotation":
        yield at.required(why)
    elif reason == "InvalidAnnotation":
        yield at.invalid(crd["metadata"]["annotations"][APPROVAL], why)
