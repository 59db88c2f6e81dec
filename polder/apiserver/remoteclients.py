"""The user's side of exec and attach: WebSockets with channels (v5 back to the first), and SPDY/3.1.

Source: upstream's cri-streaming/pkg/streaming/remotecommand and streaming/pkg/httpstream/wsstream, KEP-4006.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import orjson
from aiohttp import web

from polder.api.errors import ApiError, bad_request
from polder.apiserver.raw import upgrade
from polder.apiserver.websocket import WebSocket, accept, choose
from polder.client.channels import HALT, RESIZE, STATUS, STDERR, STDIN, STDOUT
from polder.client.spdy import SpdyError, SpdySession, SpdyStream, Wire

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
SPDY: Final = "SPDY/3.1"
VERSION: Final = "X-Stream-Protocol-Version"
WEBSOCKET_PROTOCOLS: Final = (V5, V4, "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
SPDY_PROTOCOLS: Final = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
CREATION: Final = 30.0
"""Seconds that a SPDY client has to open its streams."""
PARTING: Final = 5.0
"""Seconds that a client has to leave after the end was said."""
_TYPES: Final = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": STATUS, "resize": RESIZE}


class Client(Protocol):
    """Who asked for a command."""

    async def receive(self) -> tuple[int, bytes] | None:
        """Input, a resize, or HALT; None when the client has gone."""
        ...

    async def send(self, channel: int, data: bytes) -> None:
        """Output. Raises ConnectionError."""
        ...

    async def finish(self, status: bytes) -> None:
        """How it ended, as metav1.Status. Raises ConnectionError."""
        ...

    async def close(self) -> None:
        """Lets go."""
        ...


def is_spdy(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for SPDY/3.1."""
    return SPDY.lower() in headers.get("Upgrade", "").lower() and "upgrade" in headers.get("Connection", "").lower()


def _plain(status: bytes) -> bytes:
    """What protocols before the fourth say of an end: nothing where it was good."""
    said = orjson.loads(status)
    return b"" if said.get("status") == "Success" else str(said.get("message", "")).encode()


class WebSocketClient:
    """Channels in messages: the first byte of each says which (in base64 protocols a digit)."""

    def __init__(self, socket: WebSocket, protocol: str, channels: frozenset[int]) -> None:
        self._socket = socket
        self._base64 = "base64" in protocol
        self._halts = protocol == V5
        self._versioned = protocol.startswith(("v4", "v5"))
        self._channels = channels
        self._channel = -1
        self._rest = b""

    async def greet(self) -> None:
        """An empty message on the lowest channel of output says that the connection stands."""
        await self.send(next((c for c in (STDOUT, STDERR) if c in self._channels), STATUS), b"")

    async def receive(self) -> tuple[int, bytes] | None:
        """See ``Client``."""
        while (part := await self._socket.receive()) is not None:
            data = part.data
            if part.first:
                self._channel, data, self._rest = self._number(data[:1]), data[1:], b""
                if not part.last and not part.data:
                    self._channel = -1  # a message whose first frame is empty says for which channel it is too late
            if self._base64:
                data = self._decoded(data)
            if self._channel == HALT and self._halts:
                if data == bytes([STDIN]):
                    return HALT, data
                continue
            if data and self._channel in self._channels and self._channel in {STDIN, RESIZE}:
                return self._channel, data
        return None

    def _number(self, first: bytes) -> int:
        if not first:
            return -1
        return first[0] - ord("0") if self._base64 else first[0]

    def _decoded(self, text: bytes) -> bytes:
        whole = self._rest + text
        usable = len(whole) // 4 * 4
        self._rest = whole[usable:]
        try:
            return base64.b64decode(whole[:usable], validate=True)
        except binascii.Error:
            self._channel = -1  # the rest of this message is nothing
            return b""

    async def send(self, channel: int, data: bytes) -> None:
        """See ``Client``."""
        if self._base64:
            await self._socket.send(b"%d" % channel + base64.b64encode(data), text=True)
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def finish(self, status: bytes) -> None:
        """See ``Client``."""
        said = status if self._versioned else _plain(status)
        if said:
            await self.send(STATUS, said)
        self._socket.close()
        try:
            async with asyncio.timeout(PARTING):
                await self._socket.wait_closed()
        except TimeoutError:
            return

    async def close(self) -> None:
        """See ``Client``."""
        self._socket.close()


class SpdyClient:
    """Each channel a stream that the client opens."""

    def __init__(self, wire: Wire, protocol: str, channels: frozenset[int]) -> None:
        self._session = SpdySession(wire, client=False, on_stream=self._take)
        self._versioned = protocol == V4
        self._wanted = channels - {RESIZE} if protocol in SPDY_PROTOCOLS[2:] else channels
        self._streams: dict[int, SpdyStream] = {}
        self._ready = asyncio.Event()
        self._running = asyncio.ensure_future(self._run())
        self._inputs: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(1)
        self._tasks: list[asyncio.Task[None]] = []

    def _take(self, stream: SpdyStream) -> bool:
        """Whether a stream of the client's is one that belongs to the command."""
        channel = _TYPES.get(stream.headers.get("streamtype", ""), -1)
        if channel not in self._wanted or channel in self._streams:
            return False
        self._streams[channel] = stream
        if self._streams.keys() == self._wanted:
            self._ready.set()
        return True

    async def _run(self) -> None:
        try:
            await self._session.run()
        except (SpdyError, OSError):
            return
        finally:
            self._ready.set()

    async def ready(self) -> bool:
        """Whether the client has opened all its streams; gives it some time."""
        try:
            async with asyncio.timeout(CREATION):
                await self._ready.wait()
        except TimeoutError:
            return False
        for channel in {STDIN, RESIZE} & self._streams.keys():
            self._tasks.append(asyncio.ensure_future(self._take_input(channel)))
        return self._streams.keys() == self._wanted and not self._running.done()

    async def _take_input(self, channel: int) -> None:
        try:
            while data := await self._streams[channel].read():
                await self._inputs.put((channel, data))
        except ConnectionError:
            return  # the connection's end is noticed by itself
        if channel == STDIN:
            await self._inputs.put((HALT, bytes([STDIN])))

    async def receive(self) -> tuple[int, bytes] | None:
        """See ``Client``."""
        getting = asyncio.ensure_future(self._inputs.get())
        try:
            await asyncio.wait({getting, self._running}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()

    async def send(self, channel: int, data: bytes) -> None:
        """See ``Client``."""
        stream = self._streams.get(channel)
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: bytes) -> None:
        """See ``Client``."""
        for channel in (STDOUT, STDERR):
            if channel in self._streams:
                await self._streams[channel].end()
        said = status if self._versioned else _plain(status)
        if said:
            await self._streams[STATUS].write(said)
        for stream in self._streams.values():
            await stream.end()
        await asyncio.wait({self._running}, timeout=PARTING)

    async def close(self) -> None:
        """See ``Client``."""
        for task in (*self._tasks, self._running):
            task.cancel()
        await asyncio.gather(*self._tasks, self._running, return_exceptions=True)


async def accept_websocket(
    request: web.BaseRequest, channels: frozenset[int]
) -> tuple[web.StreamResponse, WebSocketClient]:
    """Raises ApiError 400, ConnectionError."""
    protocol = choose(request.headers, WEBSOCKET_PROTOCOLS)
    response, socket = await accept(request, protocol)
    client = WebSocketClient(socket, protocol, channels)
    await client.greet()
    return response, client


async def accept_spdy(request: web.BaseRequest, channels: frozenset[int]) -> tuple[web.StreamResponse, SpdyClient]:
    """Raises ApiError 400, 403, ConnectionError."""
    protocol = negotiate(request, SPDY_PROTOCOLS)
    response, connection = await upgrade(request, {"Upgrade": SPDY, VERSION: protocol})
    client = SpdyClient(connection, protocol, channels)
    return response, client


def negotiate(request: web.BaseRequest, known: Sequence[str]) -> str:
    """The first of the client's versions that is known. Raises ApiError 400, 403."""
    asked = [name for text in request.headers.getall(VERSION, []) for part in text.split(",") if (name := part.strip())]
    if not asked:
        raise bad_request(f"unable to upgrade: header {VERSION} does not exist in the request")
    found = next((name for name in asked if name in known), "")
    if not found:
        message = (
            "unable to upgrade: unable to negotiate protocol: client supports "
            f"[{' '.join(asked)[:200]}], server accepts [{' '.join(known)}]"
        )
        raise ApiError(403, "Forbidden", message)
    return found
