"""Images that nobody uses go when their file system is fuller than it should be, the longest unused first."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from polder.base.clock import Clock
from polder.node.eviction.thresholds import Amount
from polder.system.cri import CriClient
from polder.system.cri_types import ImageInfo, RuntimeFailureError

log = logging.getLogger(__name__)

YOUNG = 120.0
"""Seconds for which an image that nobody uses stays all the same: a pod that wants it may be about to start."""
OWN = "polder.dev/"
"""Begins the names of images without which no pod starts."""


@dataclass(slots=True)
class ImageUse:
    """Since when each image is known, and when it was last used, by id."""

    cri: CriClient
    clock: Clock
    _last: dict[str, float] = field(default_factory=dict)

    async def unused(self) -> list[ImageInfo]:
        """Images that no container has and that are old enough to go, the longest unused first. Raises RuntimeFailureError."""
        images, containers = await self.cri.list_images(), await self.cri.list_containers()
        return self._sorted(images, {one.image_ref for one in containers})

    def _sorted(self, images: Sequence[ImageInfo], used: set[str]) -> list[ImageInfo]:
        now, found = self.clock.monotonic(), []
        known = {image.id for image in images}
        self._last = {id_: at for id_, at in self._last.items() if id_ in known}
        for image in images:
            names = {image.id, *image.tags, *image.digests}
            own = any(name.startswith(OWN) for name in image.tags)
            if own or names & used:
                self._last[image.id] = now
            elif now - self._last.setdefault(image.id, now) >= YOUNG:
                found.append(image)
        return sorted(found, key=lambda image: self._last[image.id])

    async def free(self, wanted: int) -> int:
        """Removes unused images until so many bytes are free again, or none is left; answers how many bytes those had."""
        freed = 0
        for image in await self.unused():
            if freed >= wanted:
                break
            try:
                await self.cri.remove_image(image.id)
            except RuntimeFailureError as error:
                log.warning("image %s was not removed: %s", image.id, error)
                continue
            log.info("image %s was removed: nobody uses it, and the disk is filling", image.tags or image.id)
            freed += image.size
        return freed


def surplus(found: Amount, high: float, low: float) -> int:
    """Bytes that should go where more than the share ``high`` is in use, so that ``low`` is; 0 where there is room."""
    used = found.capacity - found.available
    return int(used - found.capacity * low) if found.capacity and used > found.capacity * high else 0
