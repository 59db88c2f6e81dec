"""ObjectMeta: names, labels, annotations, owners, finalizers, and what of it never changes."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from typing import Final

from polder.api import names
from polder.api.errors import Field, FieldError
from polder.api.kinds import BUILT_IN, Kind
from polder.api.meta import TENANT_ANNOTATION, Raw

ANNOTATIONS_LIMIT: Final = 256 * 1024
_META: Final = Field("metadata")
_IMMUTABLE: Final = "field is immutable"
_STANDARD_FINALIZERS: Final = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_BUILT_IN: Final = frozenset(kind.resource for kind in BUILT_IN)


def tenant_name(text: str) -> list[str]:
    """The name of a tenant: a DNS label of at most 40 bytes, and not the platform's own."""
    if text in ("root", "*"):
        return ["is reserved for the platform"]
    said = ["must be no more than 40 bytes"] if len(text) > 40 else []
    return said + [sentence for sentence in names.dns_label(text) if not sentence.startswith("must be no more")]


def path_segment(text: str) -> list[str]:
    """What can stand between two slashes of a path; upstream's ``ValidatePathSegmentName``."""
    if text in (".", ".."):
        return [f"may not be '{text}'"]
    return [f"may not contain '{sign}'" for sign in "/%" if sign in text]


def ip_address(text: str) -> list[str]:
    """An IP address in canonical form."""
    try:
        found = ipaddress.ip_address(text if "%" not in text else "")
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return [] if str(found) == text else [f'must be in canonical form ("{found}")']


NAME_RULES: Final[dict[str, Callable[[str], list[str]]]] = {
    "namespaces": names.dns_label,
    "services": names.dns_label_1035,
    "statefulsets.apps": names.dns_label,
    "ipaddresses.networking.k8s.io": ip_address,
    "certificatesigningrequests.certificates.k8s.io": path_segment,
    "apiservices.apiregistration.k8s.io": path_segment,
    "tenants.polder.dev": tenant_name,
    "networks.polder.dev": names.dns_label,
    "routers.polder.dev": names.dns_label,
    **dict.fromkeys(
        (
            f"{plural}.rbac.authorization.k8s.io"
            for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
        ),
        path_segment,
    ),
}
"""Kinds whose names are not plain DNS subdomains."""


def validate_meta(kind: Kind, meta: Raw) -> Iterator[FieldError]:
    """A new object's metadata."""
    rule = NAME_RULES.get(kind.resource, names.dns_subdomain)
    if prefix := meta.get("generateName"):
        masked = f"{prefix[:-1]}a" if prefix.endswith("-") else prefix
        yield from ((_META / "generateName").invalid(prefix, said) for said in rule(masked))
    if not meta.get("name"):
        yield (_META / "name").required("name or generateName is required")
    else:
        said = rule(meta["name"])
        yield from ((_META / "name").invalid(meta["name"], sentence) for sentence in said)
    yield from validate_labels(meta.get("labels") or {}, _META / "labels")
    yield from validate_annotations(meta.get("annotations") or {}, _META / "annotations")
    yield from _owners(meta.get("ownerReferences") or [])
    yield from _finalizers(kind, meta.get("finalizers") or [])


def validate_labels(labels: Raw, at: Field) -> Iterator[FieldError]:
    """Keys are qualified names, values are short."""
    for key, value in labels.items():
        yield from (at.invalid(key, said) for said in names.qualified_name(key))
        yield from (at.invalid(value, said) for said in names.label_value(value))


def validate_annotations(annotations: Raw, at: Field) -> Iterator[FieldError]:
    """Keys are qualified names; all together stay below 256 KiB."""
    for key in annotations:
        yield from (at.invalid(key, said) for said in names.qualified_name(key.lower()))
    if TENANT_ANNOTATION in annotations:
        yield at[TENANT_ANNOTATION].forbidden("is set by Polder in views over all tenants and never stored")
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items()) > ANNOTATIONS_LIMIT:
        yield at.too_long(ANNOTATIONS_LIMIT)


def _owners(owners: list[Raw]) -> Iterator[FieldError]:
    at = _META / "ownerReferences"
    controller = ""
    for number, owner in enumerate(owners):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                what = "version must not be empty" if name == "apiVersion" else "must not be empty"
                yield (at[number] / name).invalid(owner.get(name, ""), what)
        if owner.get("controller"):
            if controller:
                both = f"{controller} and {owner.get('kind')}/{owner.get('name')}"
                why = f'Only one reference can have Controller set to true. Found "true" in references for {both}'
                yield at.invalid(owners, why)
            controller = f"{owner.get('kind')}/{owner.get('name')}"


def _finalizers(kind: Kind, finalizers: list[str]) -> Iterator[FieldError]:
    at = _META / "finalizers"
    for finalizer in finalizers:
        yield from (at.invalid(finalizer, said) for said in names.qualified_name(finalizer))
        if kind.resource in _BUILT_IN and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            yield at.invalid(finalizer, "name is neither a standard finalizer name nor is it fully qualified")


def validate_meta_update(kind: Kind, new: Raw, old: Raw) -> Iterator[FieldError]:
    """Changed metadata: identity stays, and an object on its way out gets no new finalizers."""
    for name in ("name", "namespace", "uid", "creationTimestamp"):
        if new.get(name) != old.get(name):
            yield (_META / name).invalid(new.get(name) or "", _IMMUTABLE)
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if added:
            listed = ", ".join(map(json.dumps, added))
            why = "no new finalizers can be added if the object is being deleted, found new finalizers"
            yield (_META / "finalizers").forbidden(f"{why} []string{{{listed}}}")
    yield from (error for error in validate_meta(kind, new) if error.field not in ("metadata.name",))
