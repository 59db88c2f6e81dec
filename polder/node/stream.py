"""The agent's end of its streams to the servers: dials, serves what the server opens, dials again when it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import aiohttp

from polder.api.meta import Raw
from polder.client.client import ClientSettings, tls_context
from polder.client.mux import Mux, ProtocolError, Stream, StreamError
from polder.client.wstransport import HEARTBEAT, MESSAGE_LIMIT, WebSocketTransport

log = logging.getLogger(__name__)

PATH = "/polder/v1/stream"
SHORTEST, LONGEST = 0.2, 5.0
"""Seconds between two attempts to dial: doubled each time, spread at random."""
DIAL_LIMIT = 10.0
DRAIN_LIMIT = 10.0
"""Seconds that the server has to end its side when a handler has ended its own."""

Handler = Callable[[Raw, Stream], Awaitable[None]]
"""Serves a stream that the server opened. To refuse, it resets the stream with the reason."""


class ServerStreams:
    """A stream to each server of the cluster: any of them may have a request that needs this node."""

    def __init__(self, settings: ClientSettings, handlers: Mapping[str, Handler]) -> None:
        one = replace(settings, others=())
        self._streams = [ServerStream(replace(one, server=server), handlers) for server in settings.servers]

    async def open(self, header: Raw) -> Stream:
        """A stream to a server that is there, the first choice first. Raises ConnectionError when there is no connection."""
        connected = next((stream for stream in self._streams if stream.connected), self._streams[0])
        return await connected.open(header)

    async def run(self) -> None:
        """Dials and serves until cancelled."""
        async with asyncio.TaskGroup() as group:
            for stream in self._streams:
                group.create_task(stream.run())


class ServerStream:
    """One connection to one server, kept up while ``run`` runs."""

    def __init__(self, settings: ClientSettings, handlers: Mapping[str, Handler]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._mux: Mux | None = None
        self._up = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether the stream is up now."""
        return self._mux is not None

    async def wait_connected(self) -> None:
        """Returns once the stream is up."""
        await self._up.wait()

    async def open(self, header: Raw) -> Stream:
        """A stream to the server. Raises ConnectionError when there is no connection."""
        if self._mux is None:
            raise StreamError("there is no connection to the server")
        return await self._mux.open(header)

    async def run(self) -> None:
        """Dials and serves until cancelled."""
        pause = SHORTEST
        while True:
            try:
                # The certificate may have been renewed since the last time.
                connector = aiohttp.TCPConnector(ssl=tls_context(self._settings), force_close=True)
                async with aiohttp.ClientSession(connector=connector) as session:
                    await self._serve(session)
                pause = SHORTEST
            except (aiohttp.ClientError, OSError, TimeoutError, ProtocolError) as error:
                log.warning("no stream to the server: %s", error)
                pause = min(LONGEST, pause * 2)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, hides nothing

    async def _serve(self, session: aiohttp.ClientSession) -> None:
        """One connection, from dialling to its end."""
        async with asyncio.timeout(DIAL_LIMIT):
            socket = await session.ws_connect(
                self._settings.server.rstrip("/") + PATH,
                heartbeat=HEARTBEAT,
                max_msg_size=MESSAGE_LIMIT,
                compress=0,
            )
        mux = Mux(WebSocketTransport(socket), dialled=True, on_open=self._dispatch)
        self._mux = mux
        self._up.set()
        log.info("the stream to the server is up")
        try:
            await mux.run()
        finally:
            self._mux = None
            self._up.clear()
        log.info("the stream to the server ended")

    async def _dispatch(self, stream: Stream) -> None:
        kind = stream.header.get("kind")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            await stream.reset(f"this agent serves no streams of kind {kind!r}")
            return
        await handler(stream.header, stream)
        # A stream is reset when its handler returns: wait until the server has read to the end. What it has been sent it
        # keeps, so a user who reads slowly loses nothing by the reset.
        await stream.end()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_LIMIT):
                while await stream.read():
                    pass
