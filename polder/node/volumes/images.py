"""Image volumes: the files of an image, mounted read-only below the pod's directory.

The runtimes that Polder runs on do not mount images by themselves: the image is pulled as for a container, and its layers
are mounted from a view of containerd's, which is named by the pod and kept until the pod's directory goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from polder.api.core import Pod
from polder.api.meta import tenant_of
from polder.api.podspec import Container
from polder.api.podvolumes import Volume
from polder.node.volumes.mounting import Mounted
from polder.node.volumes.scratch import is_mounted
from polder.node.walks import Walks
from polder.system import mounts
from polder.system.cri_types import ImageInfo, RuntimeFailureError
from polder.system.snapshots import View

Pull = Callable[[Pod, Container], Awaitable[ImageInfo]]
"""Makes sure that an image is here and that the pod may use it. Raises ImageError."""


class Layers(Protocol):
    """containerd's snapshots."""

    async def view(self, key: str, parent: str) -> View:
        """A read-only view of the snapshot at the end of a chain of layers."""
        ...

    async def digest(self, image: str) -> str:
        """An image's digest, by its id. Raises RuntimeFailureError."""
        ...

    def unpack(self, digest: str) -> None:
        """Makes the snapshots of an image that has none yet; blocks. Raises RuntimeFailureError."""
        ...

    async def remove(self, key: str) -> None:
        """Removes a view; none there is no error."""
        ...


class ImageVolumes:
    """``pods`` holds the pods' directories, ``chain`` tells the last layer of an image."""

    def __init__(self, pods: Path, pull: Pull, chain: Callable[[str], Awaitable[str]], layers: Layers) -> None:
        self._pods = pods
        self._pull = pull
        self._chain = chain
        self._layers = layers
        self._walks = Walks()

    async def mounted(self, pod: Pod, volume: Volume) -> Mounted | None:
        """The image's files; None for a volume of another kind. Raises ImageError, RuntimeFailureError."""
        if volume.image is None:
            return None
        place = self._place(pod.metadata.uid) / volume.name
        if not await asyncio.to_thread(is_mounted, place):
            wanted = Container(
                name=volume.name, image=volume.image.reference, image_pull_policy=volume.image.pull_policy
            )
            image = await self._pull(pod, wanted)
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
            view = await self._view(pod, volume, image)
            await asyncio.to_thread(view.mount_at, place)
        return Mounted(place, read_only=True)

    async def _view(self, pod: Pod, volume: Volume, image: ImageInfo) -> View:
        """Of an imported image that no container has used, nothing is unpacked: that is done now, for tenants in turn."""
        key, chain = _key(pod.metadata.uid, volume.name), await self._chain(image.id)
        try:
            return await self._layers.view(key, chain)
        except RuntimeFailureError as error:
            if not error.missing:
                raise
        digest = await self._layers.digest(image.id)
        await self._walks.run(tenant_of(pod.metadata), self._layers.unpack, digest)
        return await self._layers.view(key, chain)

    async def release(self, uid: str) -> None:
        """Gives back the views of a pod's volumes; idempotent."""
        place = self._place(uid)
        names = [entry.name for entry in place.iterdir()] if place.is_dir() else []
        for name in names:
            await asyncio.to_thread(mounts.unmount_below, place / name)
            await self._layers.remove(_key(uid, name))
            (place / name).rmdir()

    def _place(self, uid: str) -> Path:
        return self._pods / uid / "volumes" / "image"


def _key(uid: str, volume: str) -> str:
    return f"polder-volume-{uid}-{volume}"
