"""Of pods, which claims they use, and which claims are to be made for them."""

from __future__ import annotations

from typing import Any

from polder.api.meta import Object, Struct
from polder.api.podvolumes import ClaimVolume


class ClaimTemplate(Struct, frozen=True, kw_only=True):
    """A claim that is made with a pod: labels and annotations, and its spec as it was written."""

    metadata: dict[str, Any] = {}
    spec: dict[str, Any] = {}


class MadeClaim(Struct, frozen=True, kw_only=True):
    """A volume whose claim is made with the pod."""

    volume_claim_template: ClaimTemplate | None = None


class UsedVolume(Struct, frozen=True, kw_only=True):
    """A volume of a pod, as far as it is a claim."""

    name: str = ""
    persistent_volume_claim: ClaimVolume | None = None
    ephemeral: MadeClaim | None = None


class UsingSpec(Struct, frozen=True, kw_only=True):
    """A pod's volumes."""

    volumes: list[UsedVolume] | None = None


class UsingStatus(Struct, frozen=True, kw_only=True):
    """Whether the pod has ended."""

    phase: str = "Pending"


class UsingPod(Object, frozen=True, kw_only=True):
    """A pod as those look at it who care for claims."""

    spec: UsingSpec = UsingSpec()
    status: UsingStatus = UsingStatus()
