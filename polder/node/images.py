"""Images on a node: imported from archives or pulled, under each container's pull policy."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from polder.api.podspec import Container
from polder.base.errors import PermanentError, PolderError
from polder.node.archive import read_references
from polder.node.pods.backoff import Backoff
from polder.system.containerd import CONTAINERS, PAUSE_IMAGE, SEARCH_PATH, find_ctr
from polder.system.cri import CriClient
from polder.system.cri_types import ImageInfo, RuntimeFailureError

ALWAYS, NEVER, IF_NOT_PRESENT = "Always", "Never", "IfNotPresent"
OWN_HOST = "polder.dev"
"""Images under this name are Polder's own parts and no pod's."""
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*(?::[\w][\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
IMPORT_SECONDS = 300
VISIBLE_SECONDS = 10.0

Say = Callable[[str, str, str], None]
"""Notes an event: type, reason, message."""


class ImageError(PolderError):
    """Why a container waits for its image: upstream's reason, one sentence, and seconds until the next try."""

    def __init__(self, reason: str, message: str, after: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.after = after


def pull_policy(container: Container) -> str:
    """The policy, defaulted by the tag as upstream does."""
    if container.image_pull_policy:
        return container.image_pull_policy
    name = container.image.rsplit("/", 1)[-1]
    latest = "@" not in name and (":" not in name or name.endswith(":latest"))
    return ALWAYS if latest else IF_NOT_PRESENT


class Images:
    """Makes sure that an image is here before a container is made from it."""

    def __init__(self, cri: CriClient) -> None:
        self._cri = cri
        self._backoff = Backoff()
        self._pulls: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ensure(self, container: Container, say: Say) -> ImageInfo:
        """The image of a container. Raises ImageError in upstream's words."""
        name = container.image
        if not _REFERENCE.fullmatch(name) or name.startswith(f"{OWN_HOST}/"):
            message = f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}"'
            say("Warning", "InspectFailed", message)
            raise ImageError("InvalidImageName", message, 30.0)
        policy = pull_policy(container)
        found = await self._cri.image(name)
        if found is not None and policy != ALWAYS:
            say("Normal", "Pulled", f'Container image "{name}" already present on machine')
            return found
        if policy == NEVER:
            message = f'Container image "{name}" is not present with pull policy of Never'
            say("Warning", "ErrImageNeverPull", message)
            raise ImageError("ErrImageNeverPull", message, 10.0)
        return await self._pull(name, say)

    async def _pull(self, name: str, say: Say) -> ImageInfo:
        left = self._backoff.remaining(name, time.monotonic())
        if left > 0:
            message = f'Back-off pulling image "{name}"'
            say("Normal", "BackOff", message)
            raise ImageError("ImagePullBackOff", message, left)
        async with self._pulls.setdefault(name, asyncio.Lock()):
            say("Normal", "Pulling", f'Pulling image "{name}"')
            began = time.monotonic()
            try:
                await self._cri.pull(name)
                found = await self._cri.image(name)
            except RuntimeFailureError as error:
                self._failed(name, str(error), say, error.away)
        took = time.monotonic() - began
        self._backoff.clear(name)
        if found is None:
            raise ImageError("ErrImagePull", f'image "{name}" was pulled and is gone again', 10.0)
        say("Normal", "Pulled", f'Successfully pulled image "{name}" in {took:.3f}s')
        return found

    def _failed(self, name: str, words: str, say: Say, away: bool) -> None:
        message = f'Failed to pull image "{name}": {words}'
        if not away:
            self._backoff.raise_(name, time.monotonic())
            say("Warning", "Failed", message)
            say("Warning", "Failed", "Error: ErrImagePull")
        raise ImageError("ErrImagePull", message, 1.0)


async def import_archive(socket: Path, archive: Path) -> list[str]:
    """Imports a ``docker save`` or OCI archive into the containerd at a socket; answers the images' names.

    Raises PermanentError for a file that is no archive, and for what containerd refuses.
    """
    names = await asyncio.to_thread(read_references, archive)
    if not names:
        raise PermanentError(f"{archive} names no image; save it by name (docker save NAME:TAG)")
    await asyncio.to_thread(_import, socket, archive)
    cri = CriClient(socket)
    try:
        # The CRI plugin learns of a new image from containerd's event, a moment later.
        async with asyncio.timeout(VISIBLE_SECONDS):
            for name in names:
                while await cri.image(name) is None:  # noqa: ASYNC110  the runtime tells nobody
                    await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise PermanentError(f"{archive} was imported, but the runtime does not show {name}") from error
    finally:
        await cri.close()
    return names


def _import(socket: Path, archive: Path) -> None:
    ctr = find_ctr()
    if ctr is None:
        raise PermanentError("ctr, containerd's own client, is needed to import images; install Debian's containerd")
    command = [ctr, "--address", str(socket), "--namespace", CONTAINERS, "images", "import", "--no-unpack"]
    done = subprocess.run(
        [*command, str(archive)],
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
        check=False,
        env={"PATH": SEARCH_PATH},
    )
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise PermanentError(f"importing {archive} failed: {words[-1] if words else 'no reason given'}")


async def ensure_own_images(cri: CriClient, socket: Path, archives: list[Path]) -> None:
    """Imports Polder's own images where the runtime lacks them: the pause image always, the others as they are there."""
    for archive in archives:
        names = await asyncio.to_thread(read_references, archive)
        missing = [name for name in names if await cri.image(name) is None]
        if missing:
            await import_archive(socket, archive)
    if await cri.image(PAUSE_IMAGE) is None:
        raise PermanentError(f"the runtime lacks {PAUSE_IMAGE}, and no archive brings it; build the project's images")
