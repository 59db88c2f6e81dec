"""Which volume a claim gets, and what both say when they have each other. Pure; follows upstream's persistentvolume
controller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from polder.api.labelselector import matcher_of
from polder.api.meta import Object, Raw
from polder.api.quantity import QuantityError, whole
from polder.api.storagefacts import Claim, ClaimRef, StorageClassFacts, Volume

BOUND = "pv.kubernetes.io/bind-completed"
BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONER = "volume.kubernetes.io/storage-provisioner"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
CLAIM_HELD = "kubernetes.io/pvc-protection"
"""The finalizer of a claim: it stays while a pod uses it."""
VOLUME_HELD = "kubernetes.io/pv-protection"
"""The finalizer of a volume: it stays while a claim has it."""
LATE = "WaitForFirstConsumer"


def note(obj: Object, name: str) -> str:
    """An annotation, empty if there is none."""
    return (obj.metadata.annotations or {}).get(name, "")


def class_of(claim: Claim) -> str:
    """The name of the claim's class, empty for none."""
    return note(claim, OLD_CLASS) or claim.spec.storage_class_name or ""


def class_of_volume(volume: Volume) -> str:
    """The name of the volume's class, empty for none."""
    return note(volume, OLD_CLASS) or volume.spec.storage_class_name


def is_late(claim: Claim, found: StorageClassFacts | None) -> bool:
    """Whether the claim waits until its first pod has a node."""
    return found is not None and found.volume_binding_mode == LATE and not note(claim, SELECTED_NODE)


def size_of(volume: Volume) -> int:
    """Bytes."""
    return _bytes((volume.spec.capacity or {}).get("storage", 0))


def _bytes(amount: str | int | float) -> int:
    try:
        return whole(amount)
    except QuantityError:
        return 0


def wanted_of(claim: Claim) -> int:
    """Bytes that the claim asks for."""
    requests = claim.spec.resources.requests if claim.spec.resources is not None else None
    return _bytes((requests or {}).get("storage", 0))


def is_for(volume: Volume, claim: Claim) -> bool:
    """Whether the volume is kept for the claim: by its name, and its UID if it says one."""
    kept = volume.spec.claim_ref
    if kept is None or (kept.namespace, kept.name) != (claim.metadata.namespace, claim.metadata.name):
        return False
    return kept.uid in ("", claim.metadata.uid)


def mismatch(volume: Volume, claim: Claim) -> str:
    """Why the volume is not what the claim asks for; empty if it is."""
    if size_of(volume) < wanted_of(claim):
        return "requested PV is too small"
    if class_of_volume(volume) != class_of(claim):
        return "storageClassName does not match"
    if volume.spec.volume_mode != claim.spec.volume_mode:
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes or ()) <= set(volume.spec.access_modes or ()):
        return "incompatible accessMode"
    return ""


def best(claim: Claim, volumes: Iterable[Volume], *, late: bool) -> Volume | None:
    """The volume that is kept for the claim, else the smallest that fits; none of these while the claim waits."""
    found = list(volumes)
    kept = next((v for v in found if is_for(v, claim) and not mismatch(v, claim) and not _is_going(v)), None)
    if kept is not None or late:
        return kept
    selector = msgspec.to_builtins(claim.spec.selector) if claim.spec.selector is not None else {}
    fits = matcher_of(selector)
    free = [
        volume
        for volume in found
        if volume.spec.claim_ref is None
        and volume.status.phase == "Available"
        and not _is_going(volume)
        and not mismatch(volume, claim)
        and fits.matches_labels(volume.metadata.labels or {})
    ]
    return min(free, key=lambda v: (size_of(v), v.metadata.name), default=None)


def _is_going(volume: Volume) -> bool:
    return volume.metadata.deletion_timestamp is not None


def reference(claim: Claim) -> Raw:
    """How a volume names its claim."""
    meta = claim.metadata
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
        "uid": meta.uid, "resourceVersion": meta.resource_version,
    }  # fmt: skip


def volume_patch(volume: Volume, claim: Claim) -> Raw | None:
    """What the volume is told of its claim; None if it knows."""
    kept = volume.spec.claim_ref
    if kept is not None and kept.uid == claim.metadata.uid:
        return None
    meta: Raw = {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version}
    if kept is None:
        meta["annotations"] = {BY_CONTROLLER: "yes"}
    return {"metadata": meta, "spec": {"claimRef": reference(claim)}}


def claim_patch(claim: Claim, volume: Volume) -> Raw | None:
    """What the claim is told of its volume; None if it knows."""
    named = claim.spec.volume_name == volume.metadata.name
    if named and note(claim, BOUND):
        return None
    notes = {BOUND: "yes"} if named else {BOUND: "yes", BY_CONTROLLER: "yes"}
    meta = {"uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version, "annotations": notes}
    return {"metadata": meta, "spec": {"volumeName": volume.metadata.name}}


def claim_status(volume: Volume) -> Raw:
    """The status of a claim that has the volume."""
    return {"phase": "Bound", "accessModes": volume.spec.access_modes, "capacity": volume.spec.capacity}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a volume: its phase, why, whether its claim is to be looked at, let go, or the volume deleted."""

    phase: str
    message: str = ""
    look: bool = False
    unbind: bool = False
    delete: bool = False
    told: tuple[str, ...] = field(default=())


def fate_of(volume: Volume, claim: Claim | None, driver: str) -> Fate:
    """By the claim that it is kept for, as it stands; None: there is none of that name and UID."""
    kept = volume.spec.claim_ref
    if kept is None:
        return Fate("Available")
    if not kept.uid:
        return Fate("Available", look=True)
    if claim is None or claim.metadata.uid != kept.uid:
        return _released(volume, driver)
    if claim.spec.volume_name == volume.metadata.name:
        return Fate("Bound", look=claim.status.phase != "Bound")
    if not claim.spec.volume_name:
        return Fate(volume.status.phase, look=True)
    if note(volume, PROVISIONED_BY) and volume.spec.persistent_volume_reclaim_policy == "Delete":
        return _released(volume, driver)
    return Fate("Available", unbind=bool(note(volume, BY_CONTROLLER)))


def _released(volume: Volume, driver: str) -> Fate:
    policy, csi = volume.spec.persistent_volume_reclaim_policy, volume.spec.csi
    if policy == "Retain" or (csi is not None and csi.driver != driver):
        return Fate("Released")
    if policy == "Delete" and csi is not None and note(volume, PROVISIONED_BY) == driver:
        return Fate("Released", delete=True)
    if policy == "Delete" and csi is not None:
        return Fate("Released")
    if policy == "Delete":
        words = f'error getting deleter volume plugin for volume "{volume.metadata.name}": no deletable volume plugin matched'
        return Fate("Failed", words, told=("VolumeFailedDelete",))
    return Fate("Failed", "no recyclable volume plugin matched", told=("VolumeFailedRecycle",))


def unbound(volume: Volume) -> Raw:
    """What the volume forgets when it is let go: the claim, or its UID alone where the claim's name was given by hand."""
    kept = volume.spec.claim_ref or ClaimRef()
    by_hand: dict[str, Any] = {"namespace": kept.namespace, "name": kept.name, "uid": None, "resourceVersion": None}
    meta: Raw = {"uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version}
    if note(volume, BY_CONTROLLER):
        meta["annotations"] = {BY_CONTROLLER: None}
        return {"metadata": meta, "spec": {"claimRef": None}}
    return {"metadata": meta, "spec": {"claimRef": by_hand}}
