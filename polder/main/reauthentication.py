"""Follows the configuration of authentication: a file that changes is taken over whole, or refused, and the old one stays.

Only the part ``authentication`` of the server's configuration, and the files that it names; everything else in it counts from
the next start on.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from polder.apiserver.authn_build import AuthnSettings
from polder.base.errors import PermanentError
from polder.main.authentication import files_of, read_methods
from polder.main.config import ServerConfig, load

log = logging.getLogger(__name__)

POLL: Final = 2.0
"""Seconds between two looks at the files. What changed is read when the next look finds it as the last one did: whoever writes a
file in place may be in the middle of it.
"""
_State = tuple[tuple[str, int, int, int], ...]


class Taker(Protocol):
    """Who is told."""

    def take_over(self, settings: AuthnSettings) -> None:
        """A configuration that is whole."""
        ...

    def refused(self) -> None:
        """One that cannot be used."""
        ...


class AuthenticationFile:
    """The server's configuration file and what it names. ``config`` is what was read at the start."""

    def __init__(self, path: Path, config: ServerConfig, taker: Taker) -> None:
        self._path = path
        self._taker = taker
        self._named = files_of(config.authentication)
        self._read = self._seen = self._look()

    def _look(self) -> _State:
        return _state((str(self._path), *self._named))

    async def run(self) -> None:
        """Follows the files until cancelled."""
        while True:
            await asyncio.sleep(POLL)
            before, self._seen = self._seen, await asyncio.to_thread(self._look)
            if self._read != self._seen == before:
                await self.reload()

    async def reload(self) -> None:
        """Reads the files now; whatever is wrong goes to the log."""
        try:
            settings = await asyncio.to_thread(self._settings)
        except PermanentError as error:
            self._taker.refused()
            log.error("authentication stays as it was: %s", error)  # noqa: TRY400 - the file's fault
            return
        self._taker.take_over(settings)
        log.info("the configuration of authentication was read again: %d methods", len(settings.methods))

    def _settings(self) -> AuthnSettings:
        """Each file's state is noted before it is read, so that a change meanwhile is seen later. Raises PermanentError."""
        self._read = self._look()
        own = _state((str(self._path),))
        config = load(self._path, ServerConfig)
        self._named = files_of(config.authentication)
        self._read = own + _state(self._named)
        return read_methods(config.authentication)


def _state(names: tuple[str, ...]) -> _State:
    """What stands in the file system under the names, as far as a change shows in it."""
    found = []
    for name in names:
        try:
            state = Path(name).stat()
            found.append((name, state.st_mtime_ns, state.st_size, state.st_ino))
        except OSError:
            found.append((name, 0, 0, 0))
    return tuple(found)
