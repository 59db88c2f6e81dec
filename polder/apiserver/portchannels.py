"""Port forwarding over WebSockets with channels: two for each port of the query, data and errors.

Each channel begins with the port's number (two bytes, the lower one first). Source: upstream's portforward/websocket.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final

from aiohttp import web

from polder.api.errors import bad_request
from polder.apiserver.websocket import WebSocket, accept, choose

if TYPE_CHECKING:
    from polder.apiserver.portforward import Forwarder

PROTOCOLS: Final = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io")
PORTS_LIMIT: Final = 64
FULL: Final = 64 * 1024


def ports_of(request: web.BaseRequest) -> list[int]:
    """The ports of the query. Raises ApiError 400."""
    texts = [text for value in request.query.getall("ports", []) for text in value.split(",")]
    if not texts:
        raise bad_request('query parameter "port" is required')
    if len(texts) > PORTS_LIMIT:
        raise bad_request(f"more than {PORTS_LIMIT} ports in one connection")
    for text in texts:
        if not text.isdecimal() or not 0 < int(text[:6]) < 65536:
            raise bad_request(f'unable to parse "{text[:20]}" as a port')
    return [int(text) for text in texts]


class _Channel:
    """The data channel of one port as a stream: what is unread holds the connection up."""

    def __init__(self, room: _Room, number: int) -> None:
        self._room = room
        self._number = number
        self._unread = bytearray()
        self._ended = False
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()

    async def read(self) -> bytes:
        while not self._unread:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        found = bytes(self._unread)
        self._unread.clear()
        self._taken.set()
        return found

    async def write(self, data: bytes) -> None:
        await self._room.send(self._number, data)

    async def end(self) -> None:
        """Channels have no end of their own."""

    async def reset(self, reason: str) -> None:
        del reason
        self.finish()

    async def feed(self, data: bytes) -> None:
        """More of the user's; waits while what came is not read."""
        self._unread += data
        self._changed.set()
        while len(self._unread) > FULL and not self._ended:
            self._taken.clear()
            await self._taken.wait()

    def finish(self) -> None:
        """No more is coming, and none is taken."""
        self._ended = True
        self._changed.set()
        self._taken.set()


class _Room:
    """The channels of one WebSocket."""

    def __init__(self, socket: WebSocket, protocol: str, ports: list[int]) -> None:
        self.socket = socket
        self._base64 = "base64" in protocol
        self.channels = {2 * n: _Channel(self, 2 * n) for n in range(len(ports))}

    async def send(self, number: int, data: bytes) -> None:
        if self._base64:
            await self.socket.send(bytes((number + ord("0"),)) + base64.b64encode(data), text=True)
        else:
            await self.socket.send(bytes((number,)) + data)

    async def receive(self) -> None:
        """Hands on what comes, until the user leaves."""
        channel, rest = None, b""
        while (part := await self.socket.receive()) is not None:
            data = part.data
            if part.first:
                number = (data[0] - (ord("0") if self._base64 else 0)) if data else -1
                channel, data, rest = self.channels.get(number), data[1:], b""
            if self._base64:
                whole = rest + data
                usable = len(whole) // 4 * 4
                rest = whole[usable:]
                try:
                    data = base64.b64decode(whole[:usable], validate=True)
                except binascii.Error:
                    channel = None
            if channel is not None and data:
                await channel.feed(data)


async def forward_channels(request: web.BaseRequest, forwarder: Forwarder) -> web.StreamResponse:
    """All ports of one request, until each has ended or the user leaves. Raises ApiError 400, ConnectionError."""
    ports = ports_of(request)
    protocol = choose(request.headers, PROTOCOLS)
    response, socket = await accept(request, protocol)
    room = _Room(socket, protocol, ports)
    for number, port in enumerate(ports):
        for channel in (2 * number, 2 * number + 1):
            await room.send(channel, port.to_bytes(2, "little"))
    reading = asyncio.ensure_future(room.receive())
    serving = asyncio.ensure_future(_serve_all(room, forwarder, ports))
    try:
        await asyncio.wait({reading, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for channel_ in room.channels.values():
            channel_.finish()
        reading.cancel()
        serving.cancel()
        await asyncio.gather(reading, serving, return_exceptions=True)
        socket.close()
    return response


async def _serve_all(room: _Room, forwarder: Forwarder, ports: list[int]) -> None:
    async with asyncio.TaskGroup() as group:
        for number, port in enumerate(ports):
            group.create_task(_serve(room, forwarder, number, port))


async def _serve(room: _Room, forwarder: Forwarder, number: int, port: int) -> None:
    channel = room.channels[2 * number]
    try:
        await forwarder.carry_channel(port, channel)
    except ConnectionError as error:
        await room.send(2 * number + 1, str(error).encode())
    finally:
        channel.finish()
