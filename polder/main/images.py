"""The images that Polder itself needs: built on this machine from Debian's packages."""

from __future__ import annotations

import asyncio
from pathlib import Path

from polder.base.errors import PermanentError
from polder.main.cluster import Cluster, NodePlan
from polder.node.archive import build_images
from polder.node.images import import_archive


def ensure_images(cluster: Cluster) -> None:
    """Builds the archives. Idempotent."""
    build_images(cluster.images)


async def import_everywhere(cluster: Cluster, archive: Path, only: str = "") -> list[str]:
    """Imports an archive into every node's containerd, or into one; answers the images' names."""
    nodes = [n for n in cluster.all_nodes() if only in ("", n.name)]
    if not nodes:
        raise PermanentError(f"--node {only}: no such node; there are {', '.join(n.name for n in cluster.all_nodes())}")
    names = await asyncio.gather(*(_import(node, archive) for node in nodes))
    return names[0]


async def _import(node: NodePlan, archive: Path) -> list[str]:
    return await import_archive(node.folder / "containerd" / "sock", archive)
