"""What each kind of write leaves as it stands: the fields that strategies reset, and what a status write may change.

Source: ``GetResetFields`` of upstream's registry strategies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from polder.api.fieldsets import EMPTY, Fields, of_paths
from polder.api.kinds import Kind

_STATUS: Final = of_paths(("f:status",))
_SPEC: Final = of_paths(("f:spec",))
_BOTH: Final = of_paths(("f:spec",), ("f:metadata",))
METADATA_STAYS: Final = frozenset({
    "apiservices.apiregistration.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "devicetaintrules.resource.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "resourceclaims.resource.k8s.io",
    "servicecidrs.networking.k8s.io",
    "storageversionmigrations.storagemigration.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "volumeattachments.storage.k8s.io",
})  # fmt: skip
"""Kinds whose metadata a write of the status leaves alone, as it does for custom kinds and Polder's own."""
_SPECIAL: Final[Mapping[tuple[str, str], Fields]] = {
    ("certificatesigningrequests.certificates.k8s.io", ""): of_paths(("f:spec",), ("f:status",)),
    ("certificatesigningrequests.certificates.k8s.io", "status"): of_paths(("f:spec",), ("f:status", "f:conditions")),
    ("certificatesigningrequests.certificates.k8s.io", "approval"): of_paths(
        ("f:spec",), ("f:status", "f:certificate")
    ),
    ("customresourcedefinitions.apiextensions.k8s.io", "status"): _SPEC,
    ("deployments.apps", "status"): of_paths(("f:spec",), ("f:metadata", "f:labels")),
    ("namespaces", "finalize"): _STATUS,
    ("pods", "status"): of_paths(
        ("f:spec",), ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences")
    ),
}
_KEPT: Final[Mapping[tuple[str, str], Fields]] = {
    ("pods", "ephemeralcontainers"): of_paths(("f:spec", "f:ephemeralContainers")),
    ("pods", "resize"): of_paths(
        ("f:spec", "f:resources"),
        *(
            ("f:spec", containers, "*", field)
            for containers in ("f:containers", "f:initContainers")
            for field in ("f:resources", "f:resizePolicy")
        ),
    ),
}


def metadata_stays(kind: Kind, *, custom: bool) -> bool:
    """Whether a write of the status leaves the metadata alone."""
    return custom or kind.group == "polder.dev" or kind.resource in METADATA_STAYS


def reset_fields(kind: Kind, subresource: str, *, custom: bool) -> Fields:
    """The fields that a write sets back to what stands."""
    special = _SPECIAL.get((kind.resource, subresource))
    if special is not None:
        return special
    if subresource == "status":
        return _BOTH if metadata_stays(kind, custom=custom) else _SPEC
    return _STATUS if not subresource and "status" in kind.subresources else EMPTY


def kept_fields(kind: Kind, subresource: str) -> Fields:
    """The only fields that a write through this subresource changes; none where all but the reset ones may change."""
    return _KEPT.get((kind.resource, subresource), EMPTY)
