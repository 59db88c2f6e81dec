"""A container runtime as far as streaming goes: commands run as processes of this machine, over a real SPDY server.

It differs from containerd in that every container is this machine, attaching is to ``cat``, and a terminal is none.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

from polder.client.channels import Channels
from polder.client.frames import StreamError
from polder.client.spdy import SpdyError, SpdySession, SpdyStream
from polder.node.remote import RemoteCommands
from polder.system.cri_types import ContainerInfo, ContainerState


class Socket:
    """SPDY's bytes on a TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def read(self) -> bytes:
        return await self.reader.read(65536)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Runtime:
    """What the agent asks of CRI, and the streaming server behind it."""

    def __init__(self, containers: Sequence[ContainerInfo] = ()) -> None:
        self.containers = list(containers)
        self.port = 0
        self.waiting: dict[str, Any] = {}
        self.sizes: list[Any] = []
        self.running = 0
        self.busy, self.idle = asyncio.Event(), asyncio.Event()
        self.refusal = ""

    def _count(self, more: int) -> None:
        self.running += more
        (self.busy.set if self.running else self.busy.clear)()
        (self.idle.clear if self.running else self.idle.set)()

    async def list_containers(self, uid: str) -> list[ContainerInfo]:
        return [c for c in self.containers if uid in {"", c.labels["uid"]}]

    async def ask(self, method: str, request: Any) -> Any:
        token = f"/{method.lower()}/{len(self.waiting)}"
        self.waiting[token] = request
        return SimpleNamespace(url=f"http://127.0.0.1:{self.port}{token}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "Upgrade: SPDY/3.1" in head
        request = self.waiting.get(head.split()[1])
        if request is None or self.refusal:
            writer.write(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n" + self.refusal.encode())
            writer.close()
            return
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
        streams: dict[str, SpdyStream] = {}
        wanted = {"error", *(name for name in ("stdin", "stdout", "stderr") if getattr(request, name))}
        wanted |= {"resize"} if request.tty else set()
        ready = asyncio.Event()

        def take(stream: SpdyStream) -> bool:
            streams[stream.headers["streamtype"]] = stream
            if streams.keys() == wanted:
                ready.set()
            return True

        session = SpdySession(Socket(reader, writer), client=False, on_stream=take)
        running = asyncio.ensure_future(session.run())
        self._count(1)
        try:
            await ready.wait()
            work = asyncio.ensure_future(self.run(list(getattr(request, "cmd", [])) or ["cat"], streams))
            await asyncio.wait({work, running}, return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        finally:
            self._count(-1)
            running.cancel()
            with suppress(asyncio.CancelledError, SpdyError, OSError):
                await running
            writer.close()

    async def run(self, command: list[str], streams: dict[str, SpdyStream]) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        assert process.stdin and process.stdout and process.stderr
        tasks = [asyncio.ensure_future(_out(process.stdout, streams.get("stdout")))]
        tasks.append(asyncio.ensure_future(_out(process.stderr, streams.get("stderr"))))
        feeding = asyncio.ensure_future(self.feed(process.stdin, streams.get("stdin")))
        sizing = asyncio.ensure_future(self.size(streams.get("resize")))
        try:
            await asyncio.gather(*tasks)
            code = await process.wait()
            status: dict[str, Any] = {"metadata": {}, "status": "Success"}
            if code:
                causes = [{"reason": "ExitCode", "message": str(code)}]
                status = {
                    "metadata": {},
                    "status": "Failure",
                    "reason": "NonZeroExitCode",
                    "details": {"causes": causes},
                }
                status["message"] = f"command terminated with non-zero exit code: exit status {code}"
            await streams["error"].write(json.dumps(status).encode())
            for stream in streams.values():
                await stream.end()
        finally:
            for task in (*tasks, feeding, sizing):
                task.cancel()
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await asyncio.gather(process.stdout.read(), process.stderr.read())
            await process.wait()

    async def feed(self, sink: asyncio.StreamWriter, stream: SpdyStream | None) -> None:
        with suppress(ConnectionError):
            while stream is not None and (data := await stream.read()):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def size(self, stream: SpdyStream | None) -> None:
        while stream is not None and (data := await stream.read()):
            self.sizes.append(json.loads(data))


async def _out(source: asyncio.StreamReader, stream: SpdyStream | None) -> None:
    while data := await source.read(65536):
        if stream is not None:
            await stream.write(data)
    if stream is not None:
        await stream.end()


def container(
    uid: str, name: str = "c", attempt: int = 0, state: ContainerState = ContainerState.RUNNING
) -> ContainerInfo:
    return ContainerInfo(f"{name}-{attempt}", "s", name, attempt, state, 1, labels={"uid": uid})


@asynccontextmanager
async def runtime(*containers: ContainerInfo) -> AsyncIterator[Runtime]:
    found = Runtime(containers)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, limit=65536)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        if found.running:
            async with asyncio.timeout(5):
                await found.idle.wait()


PLACE = {"tenant": "acme", "namespace": "default", "pod": "p", "uid": "u1"}


class End:
    """One end of a stream in memory."""

    def __init__(self, inbox: asyncio.Queue[bytes | None], outbox: asyncio.Queue[bytes | None]) -> None:
        self.inbox, self.outbox, self.reason = inbox, outbox, ""

    async def read(self) -> bytes:
        found = await self.inbox.get()
        if found is None:
            raise StreamError("the peer has gone")
        return found

    async def write(self, data: bytes) -> None:
        await self.outbox.put(data)

    async def end(self) -> None:
        await self.outbox.put(b"")

    async def reset(self, reason: str) -> None:
        self.reason = reason
        await self.outbox.put(None)


@asynccontextmanager
async def served(commands: RemoteCommands, kind: str = "exec", uid: str = "u1") -> AsyncIterator[tuple[Channels, End]]:
    """A stream of the server's that the agent serves: the server's end, and the agent's."""
    one: asyncio.Queue[bytes | None] = asyncio.Queue()
    two: asyncio.Queue[bytes | None] = asyncio.Queue()
    mine, theirs = End(one, two), End(two, one)
    serving = asyncio.ensure_future(commands.serve({"kind": kind, **PLACE, "uid": uid}, theirs))
    try:
        async with asyncio.timeout(30):
            yield Channels(mine), theirs
            with suppress(ConnectionError):
                await serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
