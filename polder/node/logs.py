"""Container logs: reads the files that the runtime writes (CRI log format) and answers the server's requests for them.

A line is ``TIMESTAMP STREAM TAG TEXT``; the tag is F for a whole line and P for a part whose rest follows
(kubelet's ``pkg/kubelet/cri/streaming`` and the CRI's log format describe it).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from polder.api.meta import Raw
from polder.base.clock import Clock
from polder.base.errors import PermanentError, PolderError
from polder.client.pace import PACE
from polder.system.cri import UID_LABEL
from polder.system.cri_types import ContainerInfo, ContainerState

log = logging.getLogger(__name__)

CHUNK = 256 * 1024
READ = 64 * 1024
"""Bytes that are given their form at once: a few milliseconds."""
POLL = 0.2
"""Seconds between looks at a log that is followed."""
ALIVE_EVERY = 5
"""Looks between two questions to the runtime whether the container still runs."""
FRESH = 0.8
"""Seconds for which the runtime's answer counts."""


class LogRequest(msgspec.Struct, frozen=True):
    """What is asked for; numbers below zero and empty texts mean unset."""

    tenant: str
    namespace: str
    pod: str
    uid: str
    container: str
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int = -1
    since_seconds: int = -1
    since_time: str = ""
    limit_bytes: int = -1
    stream: str = ""


class LogStream(Protocol):
    """The part of a stream to the server that logs need."""

    async def read(self) -> bytes:
        """What the server sends; empty at its end. Raises ConnectionError when the stream is lost."""
        ...

    async def write(self, data: bytes) -> None:
        """Sends. Raises ConnectionError when the stream is lost."""
        ...

    async def reset(self, reason: str) -> None:
        """Ends the stream with a reason."""
        ...


Containers = Callable[[str], Awaitable[list[ContainerInfo]]]
"""The runtime's containers of a pod, by its UID; all for none."""


class LogReader:
    """Reads logs below one directory."""

    def __init__(self, root: Path, containers: Containers, clock: Clock) -> None:
        self._root = root
        self._present = _Present(containers)
        self._clock = clock

    async def serve(self, header: Raw, stream: LogStream) -> None:
        """Answers one request of the server; a refusal resets the stream with its reason."""
        try:
            request = msgspec.convert({k: v for k, v in header.items() if k != "kind"}, LogRequest)
        except msgspec.ValidationError as error:
            await stream.reset(f"request for a log: {error}")
            return
        sending = asyncio.create_task(self._send(request, stream))
        gone = asyncio.create_task(_until_lost(stream))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        failure = None if sending.cancelled() else sending.exception()
        if isinstance(failure, PolderError):
            await stream.reset(str(failure))
        elif failure is not None and not isinstance(failure, ConnectionError):
            log.error("reading the log of %s failed", request.pod, exc_info=failure)
            await stream.reset(f"the log of pod {request.pod} cannot be read")

    async def _send(self, request: LogRequest, stream: LogStream) -> None:
        async for chunk in self.read_logs(request):
            await stream.write(chunk)
            await PACE.step(request.tenant)

    async def read_logs(self, request: LogRequest) -> AsyncIterator[bytes]:
        """The log's bytes as a user sees them. Raises PermanentError where there is no log."""
        path, attempt = self._find(request)
        left = request.limit_bytes if request.limit_bytes > 0 else None
        form = _Form(request.timestamps, self._since(request), request.stream.encode())
        async for raw in self._raw(path, attempt, request):
            text = form.feed(raw)
            if left is not None:
                text = text[:left]
                left -= len(text)
            if text:
                yield text
            if left == 0:
                return

    def _since(self, request: LogRequest) -> datetime | None:
        if request.since_seconds > 0:
            return self._clock.now() - timedelta(seconds=request.since_seconds)
        return datetime.fromisoformat(request.since_time) if request.since_time else None

    def _find(self, request: LogRequest) -> tuple[Path, int]:
        parts = (request.tenant, request.namespace, request.pod, request.uid)
        if any("/" in part or "_" in part for part in parts) or "/" in request.container:
            raise PermanentError("request for a log: a name in it is no name")
        directory = self._root / "_".join(parts) / request.container
        numbers = sorted((int(p.stem) for p in directory.glob("*.log") if p.stem.isdigit()), reverse=True)
        wanted = numbers[1:2] if request.previous else numbers[:1]
        if not wanted:
            which = "previous terminated container" if request.previous else "container"
            raise PermanentError(f'{which} "{request.container}" in pod "{request.pod}" has no log on this node')
        return directory / f"{wanted[0]}.log", wanted[0]

    async def _raw(self, path: Path, attempt: int, request: LogRequest) -> AsyncIterator[bytes]:
        """Whole raw lines, in chunks."""
        looks, rest = 0, b""
        newer: BinaryIO | None = None
        file: BinaryIO = await asyncio.to_thread(path.open, "rb")
        try:
            file.seek(await asyncio.to_thread(tail_offset, path, request.tail_lines))
            ended = not request.follow
            while True:
                while data := await _more(file):
                    whole, newline, rest = (rest + data).rpartition(b"\n")
                    yield whole + newline
                if newer is not None:
                    file.close()
                    file, newer = newer, None
                    continue
                if request.follow and (newer := _replaced(file, path)) is not None:
                    continue  # the old one to its end first: it grew until it was replaced
                if ended:
                    return
                await asyncio.sleep(POLL)
                looks += 1
                # Its end is asked before the next read, so that its last words are read.
                ended = looks % ALIVE_EVERY == 0 and not await self._present.runs(request, attempt)
        finally:
            file.close()
            if newer is not None:
                newer.close()


class _Present:
    """Which containers run: asked once in a while for however many follow a log."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._asking = asyncio.Lock()
        self._asked = 0.0
        self._running: frozenset[tuple[str, str, int]] = frozenset()

    async def runs(self, request: LogRequest, attempt: int) -> bool:
        """Whether a container had not ended ``FRESH`` ago; also where the runtime does not say: it tells when it is back."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked >= FRESH:
                try:
                    found = await self._containers("")
                except PolderError:
                    return True
                alive = (c for c in found if c.state != ContainerState.EXITED)
                self._running = frozenset((c.labels.get(UID_LABEL, ""), c.name, c.attempt) for c in alive)
                self._asked = loop.time()
        return (request.uid, request.container, attempt) in self._running


async def _more(file: BinaryIO) -> bytes:
    """What has been written since; nothing is asked of a thread where nothing has."""
    if os.fstat(file.fileno()).st_size <= file.tell():
        return b""
    return await asyncio.to_thread(file.read, READ)


def _replaced(file: BinaryIO, path: Path) -> BinaryIO | None:
    """The file that the log goes on in after its rotation; None while there is no other."""
    try:
        if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return None
        return path.open("rb")
    except FileNotFoundError:
        return None


async def _until_lost(stream: LogStream) -> None:
    """Returns when the other side has gone away; that it merely has nothing more to say is no end."""
    try:
        while await stream.read():
            pass
    except ConnectionError:
        return
    await asyncio.Event().wait()


def tail_offset(path: Path, lines: int) -> int:
    """Where the last ``lines`` lines of a file begin; below zero: at its beginning."""
    if lines < 0:
        return 0
    with path.open("rb") as file:
        end = position = file.seek(0, 2)
        if lines == 0:
            return end
        found = 0
        while position > 0:
            size = min(CHUNK, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            at = len(block) - 1 if position + size == end and block.endswith(b"\n") else len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == lines:
                    return position + at + 1
    return 0


class _Form:
    """Turns raw lines into what the user sees."""

    def __init__(self, timestamps: bool, since: datetime | None, stream: bytes) -> None:
        self._timestamps = timestamps
        self._stream = stream
        self._since = since
        self._within_line = False

    def feed(self, raw: bytes) -> bytes:
        out = bytearray()
        for line in raw.split(b"\n"):
            parts = line.split(b" ", 3)
            if len(parts) < 4 or not self._wanted(parts[0]) or (self._stream and parts[1] != self._stream):
                continue
            if self._timestamps and not self._within_line:
                out += parts[0] + b" "
            out += parts[3]
            self._within_line = parts[2] == b"P"
            if not self._within_line:
                out += b"\n"
        return bytes(out)

    def _wanted(self, stamp: bytes) -> bool:
        if self._since is None:
            return True
        try:
            at = datetime.fromisoformat(stamp.decode())
        except ValueError:
            return True
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        if at < self._since:
            return False
        self._since = None  # lines are in order: the rest is wanted
        return True
