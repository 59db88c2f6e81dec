"""metadata in writes: what the server sets, what it keeps, what it refuses.

Source: apimachinery's registry strategies (rest.BeforeCreate, rest.BeforeUpdate) and API conventions, "Metadata".
"""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime
from typing import Final

from polder.api.errors import Field, FieldError, bad_request, conflict, invalid
from polder.api.meta import TENANT_ANNOTATION, Raw
from polder.api.resets import metadata_stays
from polder.api.strategies import strategy_of
from polder.apiserver.catalog import Resource
from polder.base.clock import stamp

_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH: Final = 5
_GENERATED_LIMIT: Final = 63
_KEPT: Final = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_STAYS: Final = {"deployments.apps": ("labels",), "pods": ("ownerReferences",)}
"""What of the metadata a write of the status leaves alone all the same."""
META: Final = Field("metadata")


def check_kind(resource: Resource, obj: Raw) -> None:
    """Fills in ``apiVersion`` and ``kind``; raises ApiError 400 where they are others than the path's."""
    kind = resource.kind
    version, name = obj.get("apiVersion"), obj.get("kind")
    if version and version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name and name != kind.kind:
        raise bad_request(f"the kind in the data ({name}) does not match the expected kind ({kind.kind})")
    obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind


def check_metadata(obj: Raw) -> Raw:
    """``metadata`` as an object with text, maps and lists where they belong; raises ApiError 400."""
    meta = obj.setdefault("metadata", {}) if obj.get("metadata") is not None else {}
    obj["metadata"] = meta
    if not isinstance(meta, dict):
        raise bad_request("metadata: must be an object")
    for name in ("name", "generateName", "namespace", "uid", "resourceVersion"):
        if not isinstance(meta.get(name, ""), str | None):
            raise bad_request(f"metadata.{name}: must be a string")
    for name in ("labels", "annotations"):
        found = meta.get(name) or {}
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise bad_request(f"metadata.{name}: must be a map of strings")
    for name, kind in (("finalizers", str), ("ownerReferences", dict)):
        found = meta.get(name) or []
        if not isinstance(found, list) or not all(isinstance(v, kind) for v in found):
            raise bad_request(f"metadata.{name}: must be a list of {'strings' if kind is str else 'objects'}")
    return meta


def check_place(resource: Resource, meta: Raw, namespace: str) -> None:
    """The namespace in the data against the path's. Raises ApiError 400."""
    said = meta.get("namespace") or ""
    if not resource.kind.namespaced:
        if said:
            raise bad_request("namespace is not allowed on a cluster-scoped object: metadata.namespace must be empty")
        meta.pop("namespace", None)
        return
    if said and said != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    meta["namespace"] = namespace


def forbidden_annotations(meta: Raw) -> list[FieldError]:
    """The tenant's annotation exists in views only."""
    if TENANT_ANNOTATION in (meta.get("annotations") or {}):
        field = META / "annotations"
        return [field[TENANT_ANNOTATION].forbidden("shown in views over all tenants only; it cannot be written")]
    return []


def begin(resource: Resource, obj: Raw, now: datetime) -> None:
    """Sets what a new object's metadata must have. Raises ApiError 400, 422."""
    meta = obj["metadata"]
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for name in (*_KEPT, "resourceVersion", "managedFields", "selfLink"):
        meta.pop(name, None)
    if problems := forbidden_annotations(meta):
        raise invalid(resource.kind, meta.get("name") or "", problems)
    if not meta.get("name") and not meta.get("generateName"):
        raise invalid(resource.kind, "", [META_NAME.required("name or generateName is required")])
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = stamp(now)
    if resource.custom is not None:
        meta["generation"] = 1
        if resource.has_status:
            obj.pop("status", None)


META_NAME: Final = META / "name"


def generate_name(prefix: str) -> str:
    """A name that begins with ``prefix`` and ends in five random characters, at most 63 long."""
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    return prefix[: _GENERATED_LIMIT - _SUFFIX_LENGTH] + suffix


def check_name(meta: Raw, name: str) -> None:
    """Raises ApiError 400 where an object has another name than its URL."""
    if meta.get("name") != name:
        said = meta.get("name") or ""
        raise bad_request(f"the name of the object ({said}) does not match the name on the URL ({name})")


def check_same(resource: Resource, meta: Raw, old: Raw, name: str) -> None:
    """Name, UID and resource version of an update against what stands. Raises ApiError 400, 409, 422."""
    kind, before = resource.kind, old["metadata"]
    check_name(meta, name)
    if meta.get("uid") and meta["uid"] != before["uid"]:
        why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
        raise conflict(kind, name, why)
    said = meta.get("resourceVersion") or ""
    if said in {"", "0"}:
        if resource.custom is not None or not strategy_of(kind).blind:
            field = META / "resourceVersion"
            raise invalid(kind, name, [field.invalid(0, "must be specified for an update")])
    elif said != before["resourceVersion"]:
        raise conflict(kind, name)


def carry_over(resource: Resource, obj: Raw, old: Raw) -> None:
    """Keeps what only the server changes; counts a custom object's generation. Raises ApiError 422."""
    meta, before = obj["metadata"], old["metadata"]
    _keep(resource, meta, before)
    if resource.has_status:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]
    if resource.custom is not None and _wanted(obj) != _wanted(old):
        meta["generation"] = before.get("generation", 0) + 1


def _keep(resource: Resource, meta: Raw, before: Raw) -> None:
    """What of the metadata only the server changes. Raises ApiError 422."""
    for name in (*_KEPT, "managedFields"):
        meta.pop(name, None)
        if name in before:
            meta[name] = before[name]
    meta.pop("selfLink", None)
    meta["resourceVersion"] = before["resourceVersion"]
    problems = forbidden_annotations(meta) + _added_finalizers(meta, before)
    if problems:
        raise invalid(resource.kind, meta["name"], problems)


def with_status(resource: Resource, sent: Raw, old: Raw, *, by_node: bool) -> Raw:
    """What stands with the status that was sent, and with its metadata where such writes of the kind change it: labels and
    annotations are no node's to give. Raises ApiError 422.
    """
    stays = by_node or metadata_stays(resource.kind, custom=resource.custom is not None)
    meta = dict(old["metadata"]) if stays else with_metadata(resource, sent, old)
    obj = {**old, "metadata": meta}
    obj.pop("status", None)
    return {**obj, "status": sent["status"]} if "status" in sent else obj


def with_metadata(resource: Resource, sent: Raw, old: Raw) -> Raw:
    """The metadata that was sent, as far as a write of a subresource may change it. Raises ApiError 422."""
    meta, before = dict(sent["metadata"]), old["metadata"]
    _keep(resource, meta, before)
    for name in _STAYS.get(resource.kind.resource, ()):
        meta.pop(name, None)
        if name in before:
            meta[name] = before[name]
    return meta


def _added_finalizers(meta: Raw, before: Raw) -> list[FieldError]:
    """An object that is being deleted gets no new finalizers."""
    if not before.get("deletionTimestamp"):
        return []
    standing = set(before.get("finalizers") or [])
    added = [f for f in meta.get("finalizers") or [] if f not in standing]
    if not added:
        return []
    why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
    return [(META / "finalizers").forbidden(why)]


def _wanted(obj: Raw) -> Raw:
    """What of a custom object its generation counts: the status too, where it is written with the rest."""
    return {k: v for k, v in obj.items() if k not in {"metadata", "apiVersion", "kind"}}


def is_done(obj: Raw) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (obj["kind"] == "Namespace" and obj["apiVersion"] == "v1" and (obj.get("spec") or {}).get("finalizers"))
