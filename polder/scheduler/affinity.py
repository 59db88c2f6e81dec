"""Node affinity of a waiting pod. Pod affinity is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec

from polder.api.meta import Struct
from polder.api.nodeaffinity import NodeAffinity, NodeAffinityTerms, affinity_of


class _Affinity(Struct, frozen=True, kw_only=True):
    node_affinity: NodeAffinityTerms | None = None
    pod_affinity: dict[str, Any] | None = None
    pod_anti_affinity: dict[str, Any] | None = None


def node_affinity(affinity: dict[str, Any] | None) -> tuple[NodeAffinity, str]:
    """The pod's ``spec.affinity``, and a sentence that refuses it if it asks for what is not supported."""
    if not affinity:
        return NodeAffinity(), ""
    try:
        parsed = msgspec.convert(affinity, _Affinity)
    except msgspec.ValidationError as error:
        return NodeAffinity(), f"spec.affinity is malformed: {error}"
    for name, given in (("podAffinity", parsed.pod_affinity), ("podAntiAffinity", parsed.pod_anti_affinity)):
        if given:
            return NodeAffinity(), f"spec.affinity.{name} is not supported, only spec.affinity.nodeAffinity is"
    return affinity_of(parsed.node_affinity), ""
