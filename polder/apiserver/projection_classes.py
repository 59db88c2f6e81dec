"""Root's classes as every tenant sees them beside its own: what a tenant needs to choose one, and no more."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import orjson

from polder.api.meta import Raw
from polder.apiserver.builtin import PRIORITY_CLASSES
from polder.apiserver.objects import encode

STORAGE_CLASSES: Final = "storageclasses.storage.k8s.io"
RUNTIME_CLASSES: Final = "runtimeclasses.node.k8s.io"
_FIELDS: Final = {
    STORAGE_CLASSES: ("provisioner", "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion"),
    RUNTIME_CLASSES: ("handler", "overhead"),
    PRIORITY_CLASSES: ("value", "globalDefault", "description", "preemptionPolicy"),
}
_ANNOTATIONS: Final = ("storageclass.kubernetes.io/is-default-class",)
SHARED_CLASSES: Final = frozenset(_FIELDS)


@lru_cache(maxsize=256)
def project_class(resource: str, value: bytes) -> bytes:
    """The stored form of a class's projection. Pure."""
    raw = orjson.loads(value)
    meta = raw["metadata"]
    annotations = meta.get("annotations") or {}
    shown: Raw = {
        "name": meta["name"],
        "uid": meta["uid"],
        "creationTimestamp": meta.get("creationTimestamp"),
        "annotations": {name: annotations[name] for name in _ANNOTATIONS if name in annotations},
    }
    body = {field: raw[field] for field in _FIELDS[resource] if field in raw}
    return encode({"apiVersion": raw["apiVersion"], "kind": raw["kind"], "metadata": shown, **body})
