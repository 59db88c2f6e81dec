"""A log through a WebSocket: its bytes in messages, and what the client sends means nothing.

Source: upstream's streaming/pkg/httpstream/wsstream/stream.go.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from typing import Final

from aiohttp import web

from polder.apiserver.websocket import WebSocket, accept, choose
from polder.client.carry import ByteStream

log = logging.getLogger(__name__)

PROTOCOLS: Final = ("binary.k8s.io", "base64.binary.k8s.io")
PARTING: Final = 5.0
"""Seconds that a client has to leave after the end was said."""


async def send_messages(request: web.BaseRequest, stream: ByteStream) -> web.StreamResponse:
    """The log to its end, or until the reader leaves. Raises ApiError 400, ConnectionError."""
    protocol = choose(request.headers, PROTOCOLS)
    response, socket = await accept(request, protocol)
    sending = asyncio.ensure_future(_send(stream, socket, "base64" in protocol))
    reading = asyncio.ensure_future(_ignore(socket))
    try:
        await asyncio.wait({sending, reading}, return_when=asyncio.FIRST_COMPLETED)
        socket.close()
        await asyncio.wait({reading}, timeout=PARTING)
    finally:
        for task in (sending, reading):
            task.cancel()
        await asyncio.gather(sending, reading, return_exceptions=True)
    return response


async def _send(stream: ByteStream, socket: WebSocket, text: bool) -> None:
    with suppress(ConnectionError):  # one of both ends has gone
        await socket.send(b"", text=text)
        while data := await stream.read():
            await socket.send(base64.b64encode(data) if text else data, text=text)
        await stream.end()


async def _ignore(socket: WebSocket) -> None:
    while await socket.receive() is not None:
        pass
