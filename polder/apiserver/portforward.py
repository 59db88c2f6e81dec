"""``pods/portforward``: SPDY/3.1, plain or through a WebSocket, and WebSockets with channels, ended here.

Each connection is a stream to the pod's node, which connects inside the pod.

A pair of SPDY streams, ``error`` and ``data``, is one connection; pairs find each other by a request id. Source: upstream's
cri-streaming/pkg/streaming/portforward, KEP-4006.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Final

from aiohttp import web

from polder.api.errors import ApiError, bad_request
from polder.apiserver.hooks import Authorizer, Call
from polder.apiserver.podplace import Place, place_of, read_pod
from polder.apiserver.portchannels import forward_channels
from polder.apiserver.raw import upgrade
from polder.apiserver.remoteclients import SPDY, VERSION, negotiate
from polder.apiserver.remotecommand import IDLE, Idle, check_create, check_upgrade
from polder.apiserver.stream import NodeStreams, NotConnectedError
from polder.apiserver.streamshares import StreamShares
from polder.apiserver.websocket import WebSocket, accept, asked_protocols, is_websocket
from polder.client.carry import ByteStream
from polder.client.spdy import SpdyError, SpdySession, SpdyStream, Wire
from polder.store.protocol import Store

log = logging.getLogger(__name__)

PROTOCOL: Final = "portforward.k8s.io"
TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
CREATION: Final = 30.0
"""Seconds that the second stream of a pair may take."""
ANSWER: Final = 15.0
"""Seconds for the node to connect."""
PARTING: Final = 10.0
"""Seconds that a client has to end its half of a pair after the pod's end."""


class ForwardError(ConnectionError):
    """A connection into the pod did not come about; the sentence says why."""


class Forwarder:
    """Connects to ports of one pod."""

    def __init__(self, place: Place, streams: NodeStreams, shares: StreamShares) -> None:
        self.place = place
        self._streams = streams
        self._shares = shares

    async def carry(self, port: int, peer: ByteStream, idle: Idle) -> None:
        """One connection to its end; ``peer`` is the user's side. Raises ForwardError where none comes about."""
        try:
            with self._shares.one(self.place.tenant, self.place.node):
                stream = await self._connected(port)
                try:
                    await _both(peer, stream, idle)
                finally:
                    with suppress(ConnectionError):
                        await stream.reset("the forwarded connection ended")
        except (ApiError, NotConnectedError) as error:
            raise ForwardError(self.worded(port, str(error))) from error

    async def carry_channel(self, port: int, peer: ByteStream) -> None:
        """The same, with a bound on silence of its own."""
        idle = Idle(IDLE, self.place.tenant)
        with suppress(TimeoutError):
            async with idle.scope:
                await self.carry(port, peer, idle)

    def worded(self, port: int, why: str) -> str:
        """An error as upstream's error streams have it."""
        return f"error forwarding port {port} to pod {self.place.name}, uid {self.place.uid}: {why}"

    async def _connected(self, port: int) -> ByteStream:
        stream = await self._streams.open(self.place.node, {**self.place.header("forward"), "port": port})
        try:
            async with asyncio.timeout(ANSWER):
                said = await stream.read()
        except TimeoutError as error:
            await stream.reset("too slow")
            raise ForwardError(self.worded(port, "connection timed out")) from error
        except ConnectionError as error:
            why = str(error).partition("reset by the peer: ")[2] or "the node's agent has gone"
            raise ForwardError(self.worded(port, why)) from error
        except BaseException:
            await stream.reset("nobody waits any more")
            raise
        if not said:
            raise ForwardError(self.worded(port, "the node's agent gave no connection"))
        return _Begun(stream, said[1:])


class _Begun:
    """A stream of which something was read already."""

    def __init__(self, stream: ByteStream, first: bytes) -> None:
        self._stream = stream
        self._first = first

    async def read(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def end(self) -> None:
        await self._stream.end()

    async def reset(self, reason: str) -> None:
        await self._stream.reset(reason)


async def _both(one: ByteStream, other: ByteStream, idle: Idle) -> None:
    """Each way to its own end; what breaks one ends both."""
    with suppress(ConnectionError):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_way(one, other, idle))
                group.create_task(_way(other, one, idle))
        except ExceptionGroup as broken:
            rest = broken.split(ConnectionError)[1]
            if rest is not None:
                raise rest from None


async def _way(source: ByteStream, sink: ByteStream, idle: Idle) -> None:
    while data := await source.read():
        await sink.write(data)
        await idle.passed()
    await sink.end()


class _Half:
    """A SPDY stream as one side of a connection."""

    def __init__(self, stream: SpdyStream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)

    async def end(self) -> None:
        await self._stream.end()

    async def reset(self, reason: str) -> None:
        del reason
        await self._stream.reset()


class _Tunnel:
    """SPDY's bytes in the messages of a WebSocket, whose borders mean nothing."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        while (part := await self._socket.receive()) is not None:
            if part.data:
                return part.data
        return b""

    async def write(self, data: bytes) -> None:
        await self._socket.send(data)


class Pairs:
    """The streams of one SPDY connection, and the connections that they make."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._waiting: dict[str, dict[str, SpdyStream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = Idle(IDLE, forwarder.place.tenant)

    def take(self, stream: SpdyStream) -> bool:
        """Whether a stream can belong to a pair."""
        kind, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
        if kind not in {"error", "data"} or not port.isdecimal() or not 0 < int(port[:6]) < 65536:
            return False
        name = stream.headers.get("requestid") or str(stream.number - (2 if kind == "data" else 0))
        pair = self._waiting.setdefault(name, {})
        if kind in pair:
            return False
        pair[kind] = stream
        if len(pair) == 2:
            del self._waiting[name]
            self._spawn(self._serve(int(port), pair["error"], pair["data"]))
        else:
            self._spawn(self._expire(name, pair))
        return True

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a forwarded connection failed", exc_info=error)

    async def _expire(self, name: str, pair: dict[str, SpdyStream]) -> None:
        await asyncio.sleep(CREATION)
        if self._waiting.get(name) is not pair:
            return
        del self._waiting[name]
        with suppress(ConnectionError):
            if "error" in pair:
                await pair["error"].write(f"(request={name}) timed out waiting for streams".encode())
            for stream in pair.values():
                await stream.reset()

    async def _serve(self, port: int, error: SpdyStream, data: SpdyStream) -> None:
        with suppress(ConnectionError):  # the user has gone
            try:
                await self._forwarder.carry(port, _Half(data), self._idle)
            except ForwardError as problem:
                await error.write(str(problem).encode())
                await error.end()
                await data.reset()
                return
            await data.end()
            await error.end()
            with suppress(TimeoutError):
                async with asyncio.timeout(PARTING):
                    while await data.read():
                        pass
            await data.reset()
            await error.reset()

    async def run(self, session: SpdySession) -> None:
        """Until the user leaves, or nothing was said for long."""
        try:
            async with self._idle.scope:
                await session.run()
        except (SpdyError, OSError) as error:
            log.debug("a forwarding connection ended: %s", error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


class PortForward:
    """The handler of ``pods/portforward``."""

    def __init__(self, store: Store, streams: NodeStreams, authorizer: Authorizer, shares: StreamShares) -> None:
        self._store = store
        self._streams = streams
        self._authorizer = authorizer
        self._shares = shares

    async def serve(self, call: Call) -> web.StreamResponse:
        """One connection of a user's, with all its ports. Raises ApiError 400, 403, 404, 429, 500."""
        await check_create(self._authorizer, call)
        place = place_of(await read_pod(self._store, call.info, call.info.name), call.info)
        check_upgrade(call.request)
        check_runs(place)
        if place.node not in self._streams.nodes:
            raise ApiError(500, "", f"error dialing backend: node {place.node} is not connected to the server")
        forwarder = Forwarder(place, self._streams, self._shares)
        with self._shares.one(place.tenant, place.node):
            if not is_websocket(call.request.headers):
                protocol = negotiate(call.request, (PROTOCOL,))
                response, connection = await upgrade(call.request, {"Upgrade": SPDY, VERSION: protocol})
                await _serve_spdy(connection, forwarder)
                return response
            if TUNNEL in asked_protocols(call.request.headers):
                response, socket = await accept(call.request, TUNNEL)
                await _serve_spdy(_Tunnel(socket), forwarder)
                socket.close()
                return response
            return await forward_channels(call.request, forwarder)


async def _serve_spdy(wire: Wire, forwarder: Forwarder) -> None:
    pairs = Pairs(forwarder)
    await pairs.run(SpdySession(wire, client=False, on_stream=pairs.take))


def check_runs(place: Place) -> None:
    """Raises ApiError 400 for a pod that has ended."""
    phase = (place.pod.get("status") or {}).get("phase")
    if phase in {"Succeeded", "Failed"}:
        raise bad_request(f"pod {place.name} has ended, phase {phase}: no port of it can be forwarded")
