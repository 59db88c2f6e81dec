"""A WebSocket (RFC 6455) as the connection below the mux: one binary message is one frame. Both ends use it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import ClientWebSocketResponse, WSCloseCode, WSMsgType, web

HEARTBEAT = 15.0
"""Seconds between pings; a peer that does not answer within half of it is gone."""
MESSAGE_LIMIT = 64 * 1024
SEND_LIMIT = 60.0
"""Seconds that a send may wait for a peer that does not read."""
CLOSE_LIMIT = 5.0


class WebSocketTransport:
    """``mux.Transport`` on a WebSocket of either side."""

    def __init__(self, socket: ClientWebSocketResponse[bool] | web.WebSocketResponse[bool]) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Sends a message. Raises OSError."""
        try:
            async with asyncio.timeout(SEND_LIMIT):
                await self._socket.send_bytes(data)
        except TimeoutError as error:
            raise ConnectionError(f"the peer took nothing for {SEND_LIMIT:g} seconds") from error

    async def receive(self) -> bytes | None:
        """The next message; None at the end. Raises OSError."""
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.ERROR:
            raise ConnectionError(str(self._socket.exception() or "the WebSocket broke"))
        if message.type is WSMsgType.TEXT:
            raise ConnectionError("the peer sent text")
        return None

    async def close(self, reason: str) -> None:
        """Ends the connection; gives the peer a moment to agree."""
        with suppress(TimeoutError, OSError, RuntimeError):  # it is gone already; nothing of it is used again
            async with asyncio.timeout(CLOSE_LIMIT):
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=reason.encode()[:120])
