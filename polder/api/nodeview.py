"""What of the platform's nodes tenants see, beside what they put on them themselves."""

from __future__ import annotations

from typing import Final

FIXED_LABELS: Final[tuple[str, ...]] = ("kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch")
"""Labels that every node has, as the platform says."""
TOPOLOGY_LABELS: Final[tuple[str, ...]] = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
"""Where a node is, if the platform says so; else a tenant may say it for its own pods. EndpointSlices show it anyway."""
NODE_LABELS: Final[tuple[str, ...]] = (*FIXED_LABELS, *TOPOLOGY_LABELS)
"""Labels of a node that every tenant sees, where the node has them, and by which its pods are placed."""
