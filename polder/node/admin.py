"""The agent's local door for people on its machine: one JSON request, one JSON answer, over a unix socket (0600).

It works when the API server is away, which is when one wants to look.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)
LIMIT = 64 * 1024
"""Bytes of a request."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked: the network of one tenant on this node."""

    inspect: str


class Inspection(msgspec.Struct, frozen=True):
    """A tenant's network on this node as canonical texts; ``differences`` is empty when the kernel is as desired."""

    tenant: str
    present: bool
    topology: str = ""
    desired: str = ""
    differences: str = ""
    drops: str = ""
    """What policies have dropped: a line for each that did."""


Inspect = Callable[[str], Awaitable[Inspection]]


class AdminServer:
    """Serves the socket until closed."""

    def __init__(self, path: Path, inspect: Inspect) -> None:
        self._path = path
        self._inspect = inspect
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens, in place of a socket that an earlier agent left."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LIMIT)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = msgspec.json.decode(await reader.readline(), type=Request)
            writer.write(msgspec.json.encode(await self._inspect(request.inspect)) + b"\n")
            await writer.drain()
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("a request on %s was refused: %s", self._path, error)
        except ConnectionError as error:
            log.debug("who asked on %s went away: %s", self._path, error)
        finally:
            writer.close()


async def ask(path: Path, tenant: str) -> Inspection:
    """Asks the agent behind ``path``. Raises OSError if there is none, or if it gives no answer."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 28)
    try:
        writer.write(msgspec.json.encode(Request(tenant)) + b"\n")
        answer = await reader.readline()
        if not answer:
            raise ConnectionAbortedError(errno.ECONNABORTED, "it ended the connection without an answer")
        return msgspec.json.decode(answer, type=Inspection)
    finally:
        writer.close()
