"""Many streams of bytes over one connection of messages; ``frames`` has the rules, this is their asyncio side.

One task receives and never waits for a send, so two peers that both send cannot lock each other up; one task sends, so
that a cancelled writer cannot tear a frame. Memory is bounded: a stream holds at most its window unread, a writer waits
for credit and for its one frame to leave, and a peer that takes no answers is cut off.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from polder.api.meta import Raw
from polder.client.frames import (
    CHUNK,
    REASON_LIMIT,
    WINDOW,
    Frame,
    FrameType,
    Ledger,
    ProtocolError,
    StreamError,
    decode,
    grant,
    header_of,
    opening,
)

__all__ = ["Mux", "ProtocolError", "Stream", "StreamError", "Transport"]

log = logging.getLogger(__name__)

OUTBOX = 8192
"""Frames that may wait to be sent. Writers wait for theirs; only the answers to a hostile peer's frames pile up."""


class Transport(Protocol):
    """A connection of whole messages, in order."""

    async def send(self, data: bytes) -> None:
        """Sends a message; waits while the peer is slow. Raises OSError."""
        ...

    async def receive(self) -> bytes | None:
        """The next message; None at the end. Raises OSError."""
        ...

    async def close(self, reason: str) -> None:
        """Ends the connection, telling the peer why."""
        ...


class Stream:
    """Two ways of bytes. Each method but ``reset`` raises StreamError, a ConnectionError, when the stream is lost."""

    def __init__(self, mux: Mux, number: int, header: Raw) -> None:
        self.number = number
        self.header = header
        self._mux = mux
        self._unread = bytearray()
        self._taken = 0
        self._ended = False
        self._peer_ended = False
        self._lost: str | None = None
        self._changed = asyncio.Event()

    async def read(self) -> bytes:
        """What has come, at least one byte; empty when the peer has ended."""
        while not self._unread:
            if self._peer_ended:
                return b""
            self._check()
            await self._wait()
        data = bytes(self._unread)
        self._unread.clear()
        self._taken += len(data)
        if self._taken >= WINDOW // 2 and not self._peer_ended and self._lost is None:
            self._mux._grant(self.number, self._taken)
            self._taken = 0
        return data

    async def write(self, data: bytes) -> None:
        """Sends all of it, waiting for credit. For one task at a time."""
        rest = memoryview(data)
        while rest:
            self._check()
            if self._ended:
                raise StreamError(f"stream {self.number}: written to after its end")
            sent = await self._mux._send_data(self.number, rest[:CHUNK])
            if sent:
                rest = rest[sent:]
            else:
                await self._wait()

    async def end(self) -> None:
        """No more bytes from here; reading goes on."""
        self._check()
        if not self._ended:
            self._ended = True
            await self._mux._send_end(self.number)

    async def reset(self, reason: str) -> None:
        """Gives the stream up, both ways. Nothing happens if it is over already."""
        self._mux._reset(self.number, reason)
        self._lose(f"given up here: {reason}")

    def _check(self) -> None:
        if self._lost is not None:
            raise StreamError(f"stream {self.number}: {self._lost}")

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _feed(self, data: bytes) -> None:
        self._unread += data
        self._changed.set()

    def _finish(self) -> None:
        self._peer_ended = True
        self._changed.set()

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._changed.set()


OnOpen = Callable[[Stream], Awaitable[None]]
"""Serves a stream that the peer opened; when it returns, the stream is over."""


class Mux:
    """One end of a connection. ``dialled``: whether this side made the connection. ``run`` must be running."""

    def __init__(self, transport: Transport, *, dialled: bool, on_open: OnOpen | None = None) -> None:
        self._transport = transport
        self._on_open = on_open
        self._ledger = Ledger(dialled=dialled)
        self._streams: dict[int, Stream] = {}
        self._outbox: deque[tuple[Frame, asyncio.Future[None] | None]] = deque()
        self._filled = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        self._over: str | None = None

    async def open(self, header: Raw) -> Stream:
        """A new stream. Raises StreamError where the connection is over or has too many."""
        if self._over is not None:
            raise StreamError(f"the connection is over: {self._over}")
        number = self._ledger.open()
        try:
            frame = opening(number, header)
        except ProtocolError:
            self._ledger.drop(number)
            raise
        stream = self._streams[number] = Stream(self, number, header)
        try:
            await self._send(frame)
        except BaseException:
            self._reset(number, "given up by its opener")
            raise
        return stream

    async def run(self) -> None:
        """Serves until the connection ends; then every stream is lost. Raises ProtocolError if the peer broke a rule."""
        sending = asyncio.ensure_future(self._send_all())
        reason = "the connection ended"
        try:
            while (message := await self._transport.receive()) is not None:
                self._take(decode(message))
        except ProtocolError as error:
            reason = str(error)
            raise
        except OSError as error:
            reason = f"the connection broke: {error}"
        except asyncio.CancelledError:
            reason = "shut down"
            raise
        finally:
            self._end(reason)
            sending.cancel()
            for task in self._handlers:
                task.cancel()
            await asyncio.gather(sending, *self._handlers, return_exceptions=True)
            await self._transport.close(reason)

    def _end(self, reason: str) -> None:
        if self._over is None:
            self._over = reason
        for stream in self._streams.values():
            stream._lose(reason)
        self._streams.clear()
        for _, sent in self._outbox:
            if sent is not None and not sent.done():
                sent.set_exception(StreamError(f"the connection is over: {reason}"))
                sent.exception()  # seen: its writer may be cancelled in the same breath
        self._outbox.clear()

    def _take(self, frame: Frame) -> None:
        """One frame of the peer's. Raises ProtocolError."""
        if len(self._outbox) > OUTBOX:
            raise ProtocolError(f"the peer sends but does not take {OUTBOX} answers")
        if frame.type is FrameType.OPEN:
            self._take_open(frame)
            return
        if self._ledger.account(frame) is None:
            return
        stream = self._streams[frame.stream]
        if frame.type is FrameType.DATA:
            stream._feed(frame.payload)
        elif frame.type is FrameType.WINDOW:
            stream._changed.set()
        elif frame.type is FrameType.END:
            stream._finish()
            self._settle(frame.stream)
        else:
            self._forget(frame.stream)
            stream._lose(f"reset by the peer: {frame.payload.decode(errors='replace')}")

    def _take_open(self, frame: Frame) -> None:
        self._ledger.admit(frame.stream)
        header = header_of(frame)
        if self._on_open is None or self._ledger.full():
            why = "too many streams" if self._on_open else "no streams are taken here"
            self._queue(Frame(frame.stream, FrameType.RESET, why.encode()))
            return
        self._ledger.accept(frame.stream)
        stream = self._streams[frame.stream] = Stream(self, frame.stream, header)
        task = asyncio.ensure_future(self._serve(self._on_open, stream))
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)

    async def _serve(self, on_open: OnOpen, stream: Stream) -> None:
        reason = "done"
        try:
            await on_open(stream)
        except ConnectionError as error:
            reason = str(error)
            log.debug("a stream of the peer's broke: %s", error)
        except Exception:
            reason = "failed"
            log.exception("a stream of the peer's could not be served")
        finally:
            await stream.reset(reason)

    def _grant(self, number: int, credit: int) -> None:
        account = self._ledger.of(number)
        if account is not None:
            account.owed += credit
            self._queue(grant(number, credit))

    def _reset(self, number: int, reason: str) -> None:
        if number in self._streams:
            self._forget(number)
            self._queue(Frame(number, FrameType.RESET, reason.encode()[:REASON_LIMIT]))

    async def _send_data(self, number: int, data: memoryview) -> int:
        """Sends as much as there is credit for; 0 if there is none."""
        account = self._ledger.of(number)
        size = min(len(data), account.credit) if account is not None else 0
        if account is None or size == 0:
            return 0
        account.credit -= size
        await self._send(Frame(number, FrameType.DATA, bytes(data[:size])))
        return size

    async def _send_end(self, number: int) -> None:
        account = self._ledger.of(number)
        if account is not None:
            account.ended = True
            self._settle(number)
            await self._send(Frame(number, FrameType.END))

    def _settle(self, number: int) -> None:
        if self._ledger.settle(number):
            self._streams.pop(number, None)

    def _forget(self, number: int) -> None:
        self._ledger.drop(number)
        self._streams.pop(number, None)

    def _queue(self, frame: Frame, sent: asyncio.Future[None] | None = None) -> None:
        if self._over is None:
            self._outbox.append((frame, sent))
            self._filled.set()
        elif sent is not None:
            sent.set_exception(StreamError(f"the connection is over: {self._over}"))

    async def _send(self, frame: Frame) -> None:
        """Returns when the transport has taken the frame, which it does even if the caller is cancelled."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue(frame, sent)
        await sent

    async def _send_all(self) -> None:
        try:
            while True:
                await self._filled.wait()
                self._filled.clear()
                while self._outbox:
                    frame, sent = self._outbox[0]
                    await self._transport.send(frame.encode())
                    self._outbox.popleft()
                    if sent is not None and not sent.done():
                        sent.set_result(None)
        except OSError as error:
            reason = f"the connection broke: {error}"
            self._end(reason)
            await self._transport.close(reason)
