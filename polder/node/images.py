"""Images on a node: imported from archives or pulled, under each container's pull policy."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from weakref import WeakValueDictionary

from polder.api.podspec import Container
from polder.base.errors import PermanentError, PolderError
from polder.node.access import ImageAccess
from polder.node.archive import read_references
from polder.node.keyring import Keys, Login, logins_for
from polder.node.pods.backoff import MANY, Backoff
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
PULLS_AT_ONCE = 4
"""Of one tenant on one node."""
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


@dataclass(frozen=True, slots=True)
class Puller:
    """For whom an image is wanted: tenant and pod, and the pod's pull secrets, read only if they are needed."""

    tenant: str
    pod: str
    secrets: Callable[[], Awaitable[Keys]]


class Images:
    """Makes sure that an image is here, and that the pod may use it, before a container is made from it."""

    def __init__(self, cri: CriClient, access: ImageAccess) -> None:
        self._cri = cri
        self._access = access
        self._backoff = Backoff()
        self._words: dict[str, str] = {}
        self._pulls: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def ensure(self, container: Container, who: Puller, say: Say) -> ImageInfo:
        """The image of a container. Raises ImageError in upstream's words."""
        name = container.image
        if not _REFERENCE.fullmatch(name) or name.startswith(f"{OWN_HOST}/"):
            message = f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": invalid reference format'
            say("Warning", "InspectFailed", message)
            raise ImageError("InvalidImageName", message, 30.0)
        policy, logins = pull_policy(container), None
        found = await self._cri.image(name)
        if found is not None and policy != ALWAYS:
            allowed = await asyncio.to_thread(self._access.allowed, found.id, name, who.tenant, ())
            if not allowed:  # to read secrets costs a question to the server
                logins = logins_for(name, await who.secrets())
                allowed = await asyncio.to_thread(self._access.allowed, found.id, name, who.tenant, logins)
            if allowed:
                say(
                    "Normal",
                    "Pulled",
                    f'Container image "{name}" already present on machine and can be accessed by the pod',
                )
                return found
        if policy == NEVER:
            message = f'Container image "{name}" is not present with pull policy of Never'
            say("Warning", "ErrImageNeverPull", message)
            raise ImageError("ErrImageNeverPull", message, 10.0)
        if logins is None:
            logins = logins_for(name, await who.secrets())
        return await self._pull(name, who, logins, say)

    async def _pull(self, name: str, who: Puller, logins: Sequence[Login], say: Say) -> ImageInfo:
        key = f"{who.pod}_{name}"
        left = self._backoff.remaining(key, time.monotonic())
        if left > 0:
            message = f'Back-off pulling image "{name}"'
            say("Normal", "BackOff", message)
            said = self._words.get(key, "")
            raise ImageError("ImagePullBackOff", f"{message}: {said}" if said else message, left)
        asked = time.monotonic()
        async with self._pulls.setdefault(who.tenant, asyncio.Semaphore(PULLS_AT_ONCE)):
            say("Normal", "Pulling", f'Pulling image "{name}"')
            began = time.monotonic()
            try:
                found = await self._fetch(name, who.tenant, logins)
            except RuntimeFailureError as error:
                self._failed(name, key, error, say)
        now = time.monotonic()
        self._backoff.clear(key)
        self._words.pop(key, None)
        if found is None:
            raise ImageError("ErrImagePull", f'image "{name}" was pulled and is gone again', 10.0)
        times = f"{now - began:.3f}s ({now - asked:.3f}s including waiting)"
        say("Normal", "Pulled", f'Successfully pulled image "{name}" in {times}. Image size: {found.size} bytes.')
        return found

    async def _fetch(self, name: str, tenant: str, logins: Sequence[Login]) -> ImageInfo | None:
        """Pulls with the first credentials that the registry accepts; without any if there are none."""
        await asyncio.to_thread(self._access.begin, name)
        tries: list[Login | None] = [*logins] or [None]
        for number, login in enumerate(tries):
            try:
                await self._cri.pull(name, None if login is None else _shown(login))
            except RuntimeFailureError as error:
                if error.away or number + 1 == len(tries):
                    raise
                continue
            found = await self._cri.image(name)
            if found is not None:
                await asyncio.to_thread(self._access.grant, found.id, name, tenant, login)
            return found
        return None

    def _failed(self, name: str, key: str, error: RuntimeFailureError, say: Say) -> NoReturn:
        message = f'failed to pull image "{name}": {error}'
        if not error.away:
            self._backoff.raise_(key, time.monotonic())
            if len(self._words) >= MANY:
                self._words.clear()
            self._words[key] = f"ErrImagePull: {message}"
            say("Warning", "Failed", f'Failed to pull image "{name}": {error}')
            say("Warning", "Failed", "Error: ErrImagePull")
        raise ImageError("ErrImagePull", message, 1.0)


def _shown(login: Login) -> tuple[str, str, str, str]:
    """Without the registry, as upstream: its name in the secret may be a pattern, which the runtime would take for a host."""
    return login.user, login.password, login.identity_token, login.registry_token


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
