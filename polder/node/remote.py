"""Commands in containers (exec) and connections to their own processes (attach), as the server asks for them.

The runtime does both, over its streaming server on this machine's loopback (ADR 17). Which container is meant follows from
the pod's UID, which the server took from its own store: it stands for one pod of one tenant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
import orjson

from polder.api.meta import Raw
from polder.base.errors import PolderError
from polder.client.carry import ByteStream
from polder.client.channels import HALT, OPENED, REQUEST, RESIZE, START, STATUS, STDERR, STDIN, STDOUT, Channels
from polder.client.pace import PACE
from polder.client.spdy import SpdySession, SpdyStream
from polder.node.ended import Ended, Flow
from polder.node.spdydial import Connect, UpgradeError, connect_here, spdy_connection
from polder.node.starts import Starts
from polder.system.cri import CriClient
from polder.system.cri_streaming import Streams, prepare_attach, prepare_exec
from polder.system.cri_types import ContainerState, RuntimeFailureError

log = logging.getLogger(__name__)

TENANT_LIMIT: Final = 256
"""Commands and attachments of one tenant at a time on this node."""
REQUEST_LIMIT: Final = 30.0
"""Seconds that the server has to say what it wants; and then that the user's side stands:"""
START_LIMIT: Final = 50.0
STATUS_LIMIT: Final = 64 * 1024
OVER: Final = "the container has ended, and the container runtime does not say how the command did"


class CommandRequest(msgspec.Struct, frozen=True):
    """What is to be connected."""

    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool
    command: tuple[str, ...] = ()


class RemoteCommands:
    """Serves the server's streams of the kinds ``exec`` and ``attach``."""

    def __init__(self, cri: CriClient, connect: Connect = connect_here) -> None:
        self._cri = cri
        self._connect = connect
        self._starts = Starts()
        self._ended = Ended(cri.list_containers)
        self._open: Counter[str] = Counter()

    async def serve(self, header: Raw, stream: ByteStream) -> None:
        """One command to its end; a refusal is answered."""
        tenant, uid, kind = (str(header.get(name, "")) for name in ("tenant", "uid", "kind"))
        if self._open[tenant] >= TENANT_LIMIT:
            await stream.reset("too many commands of this tenant run on this node")
            return
        self._open[tenant] += 1
        try:
            await self._serve((tenant, kind, uid), Channels(stream))
        finally:
            self._open[tenant] -= 1
            if not self._open[tenant]:
                del self._open[tenant]

    async def _serve(self, what: tuple[str, str, str], channels: Channels) -> None:
        tenant, kind, uid = what
        try:
            request = await _expected(channels, REQUEST, REQUEST_LIMIT)
            asked = msgspec.json.decode(request, type=CommandRequest)
            container = await self._find(uid, asked.container)
        except (RuntimeFailureError, msgspec.DecodeError, TimeoutError) as error:
            await channels.send(OPENED, str(error).encode())
            return
        await channels.send(OPENED, b"")
        try:
            await _expected(channels, START, START_LIMIT)
        except TimeoutError:
            return  # the user's side did not come about, and nothing has begun
        job = _Job(tenant, kind, container, asked, channels, self._ended.quiet)
        if kind == "exec":
            async with self._starts.turn(tenant) as begun:
                status = await self._run(replace(job, begun=begun))
        else:
            status = await self._run(job)
        await channels.send(STATUS, status)

    async def _find(self, uid: str, name: str) -> str:
        """The container that runs now. Raises RuntimeFailureError, in a kubelet's words."""
        found = [
            c
            for c in await self._cri.list_containers(uid)
            if c.name == name and c.state == ContainerState.RUNNING and uid
        ]
        if not found:
            raise RuntimeFailureError(f'container not found ("{name}")', missing=True)
        return max(found, key=lambda c: c.attempt).id

    async def _run(self, job: _Job) -> bytes:
        """Runs it, and returns how it ended as metav1.Status. Raises ConnectionError where the server has gone."""
        asked = job.asked
        streams = Streams(asked.stdin, asked.stdout, asked.stderr, asked.tty)
        try:
            if job.kind == "exec":
                where = await prepare_exec(self._cri, job.container, asked.command, streams)
            else:
                where = await prepare_attach(self._cri, job.container, streams)
            async with spdy_connection(where, self._connect) as session:
                return await _carry(session, job)
        except (UpgradeError, TimeoutError) as error:
            return _failure(str(error) or "the container runtime does not answer")
        except ConnectionError:
            raise
        except (OSError, PolderError) as error:
            return _failure(str(error))


@dataclass(frozen=True, slots=True)
class _Job:
    """A command, or an attachment, on its way. ``ended`` returns when its container is over and it is silent; ``begun`` is told
    that it has said something.
    """

    tenant: str
    kind: str
    container: str
    asked: CommandRequest
    channels: Channels
    ended: Callable[[str, Flow], Awaitable[None]]
    begun: Callable[[], None] = lambda: None
    flow: Flow = field(default_factory=Flow)


async def _expected(channels: Channels, channel: int, limit: float) -> bytes:
    """A message that must come next. Raises TimeoutError, ConnectionError."""
    async with asyncio.timeout(limit):
        message = await channels.receive()
    if message is None or message[0] != channel:
        raise ConnectionResetError("the server asked for nothing")
    return message[1]


def _failure(why: str) -> bytes:
    """500 as upstream words it."""
    message = f"error executing command in container: {why}"
    return orjson.dumps(
        {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
            "reason": "InternalError", "message": f"Internal error occurred: {message}",
            "details": {"causes": [{"message": message}]},
        }
    )  # fmt: skip


async def _carry(session: SpdySession, job: _Job) -> bytes:
    """Both ways, until the runtime has said how it ended. Raises ConnectionError."""
    asked, channels = job.asked, job.channels
    error = await session.open({"streamtype": "error"})
    inputs: dict[int, SpdyStream] = {}
    outputs: dict[int, SpdyStream] = {}
    if asked.stdin:
        inputs[STDIN] = await session.open({"streamtype": "stdin"})
    if asked.stdout:
        outputs[STDOUT] = await session.open({"streamtype": "stdout"})
    if asked.stderr:
        outputs[STDERR] = await session.open({"streamtype": "stderr"})
    if asked.tty:
        inputs[RESIZE] = await session.open({"streamtype": "resize"})
    await error.end()
    upwards = asyncio.ensure_future(_upwards(channels, inputs))
    downwards = asyncio.ensure_future(_downwards(error, outputs, job))
    ended = asyncio.ensure_future(job.ended(job.container, job.flow))
    try:
        await asyncio.wait({upwards, downwards, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not (upwards.done() or downwards.done()):
            ended.result()
            return _failure(OVER)
        if not downwards.done():
            upwards.result()
            raise ConnectionResetError("the server has gone")
        return downwards.result()
    finally:
        for task in (upwards, downwards, ended):
            task.cancel()
        await asyncio.gather(upwards, downwards, ended, return_exceptions=True)


async def _upwards(channels: Channels, inputs: dict[int, SpdyStream]) -> None:
    """Input, until the server has gone. Raises ConnectionError."""
    while (message := await channels.receive()) is not None:
        channel, data = message
        stream = inputs.get(STDIN if channel == HALT else channel)
        if stream is None:
            continue
        try:
            await (stream.end() if channel == HALT else stream.write(data))
        except ConnectionError:
            inputs.pop(STDIN if channel == HALT else channel, None)  # the command reads no more; its end is on its way


async def _downwards(error: SpdyStream, outputs: dict[int, SpdyStream], job: _Job) -> bytes:
    """Output to its end, then the status. Raises ConnectionError where the server has gone."""
    try:
        async with asyncio.TaskGroup() as group:
            for channel, stream in outputs.items():
                group.create_task(_output(stream, channel, job))
            said = group.create_task(_whole(error))
    except ExceptionGroup as broken:
        raise broken.exceptions[0] from None
    return said.result() or _failure("the container runtime ended the connection without saying how the command ended")


async def _output(stream: SpdyStream, channel: int, job: _Job) -> None:
    while data := await _more(stream):
        job.begun()
        job.flow.waiting += 1
        try:
            await job.channels.send(channel, data)
        finally:
            job.flow.waiting -= 1
            job.flow.passed += 1
        await PACE.step(job.tenant)


async def _whole(stream: SpdyStream) -> bytes:
    found = b""
    while (data := await _more(stream)) and len(found) <= STATUS_LIMIT:
        found += data
    return found


async def _more(stream: SpdyStream) -> bytes:
    """What comes next; a reset is an end too: the runtime resets what it has done with."""
    try:
        return await stream.read()
    except ConnectionError:
        return b""
