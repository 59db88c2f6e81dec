"""Of claims, volumes and storage classes (core/v1, storage/v1), what the scheduler and nodes look at."""

from __future__ import annotations

from typing import Any

from polder.api.meta import LabelSelector, Object, Struct
from polder.api.podspec import Resources


class ClaimSpec(Struct, frozen=True, kw_only=True):
    """What a claim asks for, and the volume that it has."""

    access_modes: list[str] | None = None
    storage_class_name: str | None = None
    volume_name: str = ""
    volume_mode: str = "Filesystem"
    resources: Resources | None = None
    selector: LabelSelector | None = None


class ClaimStatus(Struct, frozen=True, kw_only=True):
    """Whether it has its volume, and how large that is."""

    phase: str = "Pending"
    message: str = ""
    capacity: dict[str, str | int | float] | None = None


class Claim(Object, frozen=True, kw_only=True):
    """A PersistentVolumeClaim."""

    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class ClaimRef(Struct, frozen=True, kw_only=True):
    """The claim that a volume is kept for."""

    namespace: str = ""
    name: str = ""
    uid: str = ""


class NodePath(Struct, frozen=True, kw_only=True):
    """A path of a node (``local``, ``hostPath``)."""

    path: str = ""
    type: str = ""


class CsiVolume(Struct, frozen=True, kw_only=True):
    """A volume of a driver, and its name there."""

    driver: str = ""
    volume_handle: str = ""
    read_only: bool = False


class VolumeSpec(Struct, frozen=True, kw_only=True):
    """What a volume is, and where."""

    capacity: dict[str, str | int | float] | None = None
    access_modes: list[str] | None = None
    storage_class_name: str = ""
    volume_mode: str = "Filesystem"
    claim_ref: ClaimRef | None = None
    host_path: NodePath | None = None
    local: NodePath | None = None
    csi: CsiVolume | None = None
    node_affinity: dict[str, Any] | None = None
    persistent_volume_reclaim_policy: str = "Retain"


class Volume(Object, frozen=True, kw_only=True):
    """A PersistentVolume."""

    spec: VolumeSpec = VolumeSpec()
    status: ClaimStatus = ClaimStatus()


class TopologyClause(Struct, frozen=True, kw_only=True):
    """One label, and the values that are allowed."""

    key: str
    values: list[str] = []


class TopologyTerm(Struct, frozen=True, kw_only=True):
    """core/v1 TopologySelectorTerm: all clauses must hold."""

    match_label_expressions: list[TopologyClause] | None = None


class StorageClassFacts(Object, frozen=True, kw_only=True):
    """A StorageClass: who makes its volumes, when, and where they may be."""

    provisioner: str = ""
    reclaim_policy: str = "Delete"
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[TopologyTerm] | None = None
