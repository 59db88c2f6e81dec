"""A SPDY/3.1 connection: either side opens streams over one connection of bytes. ``spdy_frames`` has the wire's form.

The dialect has no flow control: what is not read of one stream holds up the whole connection, and with it its peer. So memory
is bounded by BACKLOG for a connection, and two ends of one can wait for each other but for nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from polder.base.errors import PolderError
from polder.client.spdy_frames import (
    CANCEL,
    DATA_CHUNK,
    REFUSED_STREAM,
    Data,
    Decoder,
    Encoder,
    GoAway,
    Opened,
    Ping,
    Reset,
    SpdyError,
    data,
    goaway,
    ping,
    reset,
)

__all__ = ["SpdyError", "SpdySession", "SpdyStream", "Wire"]

BACKLOG: Final = 128 * 1024
"""Bytes that wait unread in all streams together; then the connection is read no further."""
STREAM_LIMIT: Final = 256
"""Streams that the peer may have open: a forwarded connection takes two."""
PONGS: Final = 16
"""Answers to pings that may wait to be sent."""


class Wire(Protocol):
    """A connection of bytes, in order."""

    async def read(self) -> bytes:
        """What has come, at least one byte; empty at the end. Raises OSError."""
        ...

    async def write(self, data: bytes) -> None:
        """Sends all or nothing of it, however its caller is cancelled; waits while the peer is slow. Raises OSError."""
        ...


class StreamLostError(PolderError, ConnectionError):
    """A stream was reset, or its connection is gone."""


class SpdyStream:
    """Two ways of bytes. ``headers`` have lower-case names. Methods raise StreamLostError when the stream is lost."""

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._unread = bytearray()
        self._peer_ended = False
        self._ended = False
        self._lost = ""
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """What has come, at least one byte; empty when the peer has ended."""
        while not self._unread:
            if self._peer_ended:
                return b""
            if self._lost:
                raise StreamLostError(self._lost)
            self._changed.clear()
            await self._changed.wait()
        found = bytes(self._unread)
        self._unread.clear()
        self._session._taken(len(found))
        return found

    async def write(self, payload: bytes) -> None:
        """Sends all of it."""
        rest = memoryview(payload)
        while rest:
            if self._lost or self._ended:
                raise StreamLostError(self._lost or "the stream has ended")
            await self._session._send(data(self.number, rest[:DATA_CHUNK]))
            rest = rest[DATA_CHUNK:]

    async def end(self) -> None:
        """No more bytes from here; nothing if it is over already."""
        if not self._ended and not self._lost:
            self._ended = True
            await self._session._send(data(self.number, b"", fin=True))
            self._session._settle(self)

    async def reset(self, status: int = CANCEL) -> None:
        """Gives the stream up, both ways; nothing if it is over already."""
        if not self._lost and not (self._ended and self._peer_ended):
            self._lose("given up here")
            self._drop()
            self._session._forget(self)
            await self._session._send(reset(self.number, status))

    def _feed(self, payload: bytes) -> None:
        self._unread += payload
        self._changed.set()

    def _drop(self) -> None:
        """Nobody reads the rest."""
        self._session._taken(len(self._unread))
        self._unread.clear()

    def _finish(self) -> None:
        self._peer_ended = True
        self._changed.set()

    def _lose(self, reason: str) -> None:
        self._lost = self._lost or reason
        self._changed.set()


OnStream = Callable[[SpdyStream], bool]
"""Is shown a stream that the peer opened; whether it is taken."""


class SpdySession:
    """One end of a connection; ``client``: whether this side asked for the upgrade. ``run`` must be running."""

    def __init__(self, wire: Wire, *, client: bool, on_stream: OnStream | None = None) -> None:
        self._wire = wire
        self._on_stream = on_stream
        self._encoder, self._decoder = Encoder(), Decoder()
        self._streams: dict[int, SpdyStream] = {}
        self._own = 1 if client else 2
        self._next = self._own
        self._last_peer = 0
        self._sending = asyncio.Lock()
        self._pongs: set[asyncio.Task[None]] = set()
        self._over = ""
        self._held = 0
        self._room = asyncio.Event()

    async def open(self, headers: Mapping[str, str]) -> SpdyStream:
        """A new stream. Raises StreamLostError, OSError."""
        async with self._sending:
            if self._over:
                raise StreamLostError(self._over)
            number, self._next = self._next, self._next + 2
            stream = self._streams[number] = SpdyStream(self, number, headers)
            await self._wire.write(self._encoder.opened(Opened(number, headers)))
        return stream

    async def run(self) -> None:
        """Serves until the connection ends; then every stream is lost. Raises SpdyError, OSError."""
        reason = "the connection ended"
        try:
            while received := await self._wire.read():
                for frame in self._decoder.feed(received):
                    await self._take(frame)
        except (SpdyError, OSError) as error:
            reason = f"the connection broke: {error}"
            raise
        finally:
            self._over = reason
            for stream in self._streams.values():
                stream._lose(reason)
            self._streams.clear()
            for task in self._pongs:
                task.cancel()
            await asyncio.gather(*self._pongs, return_exceptions=True)

    async def go_away(self) -> None:
        """Tells the peer that no more is coming. Raises OSError."""
        if not self._over:
            await self._send(goaway(self._last_peer))

    async def _take(self, frame: Opened | Data | Reset | Ping | GoAway) -> None:
        if isinstance(frame, Data):
            stream = self._streams.get(frame.stream)
            if stream is None or stream._peer_ended:
                return  # it crossed our own reset
            stream._feed(frame.payload)
            await self._hold(len(frame.payload))
            if frame.fin:
                stream._finish()
                self._settle(stream)
        elif isinstance(frame, Opened):
            await self._take_opened(frame)
        elif isinstance(frame, Reset):
            lost = self._streams.pop(frame.stream, None)
            if lost is not None:
                lost._lose(f"reset by the peer with status {frame.status}")
                if self._own == 2:  # a runtime resets what it has done with, and its last words count
                    lost._drop()
        elif isinstance(frame, Ping) and frame.number % 2 != self._own % 2:
            self._answer(ping(frame.number))

    async def _take_opened(self, frame: Opened) -> None:
        if frame.reply:
            stream = self._streams.get(frame.stream)
            if stream is not None and frame.fin:
                stream._finish()
            return
        if frame.stream % 2 == self._own % 2 or frame.stream <= self._last_peer:
            raise SpdyError(f"the peer may not open stream {frame.stream}")
        self._last_peer = frame.stream
        stream = SpdyStream(self, frame.stream, frame.headers)
        if frame.fin:
            stream._finish()
        room = len(self._streams) < STREAM_LIMIT
        self._streams[frame.stream] = stream
        if self._on_stream is None or not room or not self._on_stream(stream):
            stream._lose("refused")
            del self._streams[frame.stream]
            await self._send(reset(frame.stream, REFUSED_STREAM))
            return
        async with self._sending:
            await self._wire.write(self._encoder.opened(Opened(frame.stream, {}, reply=True)))

    async def _hold(self, size: int) -> None:
        """Waits while too much is unread."""
        self._held += size
        while self._held > BACKLOG:
            self._room.clear()
            await self._room.wait()

    def _taken(self, size: int) -> None:
        self._held -= size
        self._room.set()

    def _answer(self, pong: bytes) -> None:
        """Sends beside the reading: a peer that does not read while it writes would hold up both."""
        if len(self._pongs) < PONGS:
            task = asyncio.ensure_future(self._pong(pong))
            self._pongs.add(task)
            task.add_done_callback(self._pongs.discard)

    async def _pong(self, pong: bytes) -> None:
        try:
            await self._send(pong)
        except OSError:
            return  # the reading side says so

    async def _send(self, frame: bytes) -> None:
        if self._over:
            raise StreamLostError(self._over)
        async with self._sending:
            await self._wire.write(frame)

    def _settle(self, stream: SpdyStream) -> None:
        if stream._ended and stream._peer_ended:
            self._forget(stream)

    def _forget(self, stream: SpdyStream) -> None:
        self._streams.pop(stream.number, None)
