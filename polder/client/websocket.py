"""A WebSocket, of either side, as the transport of a mux."""

from __future__ import annotations

from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.web import WebSocketResponse

CLOSE_TEXT_LIMIT = 120
"""Bytes of a reason that fit into a close frame (RFC 6455, 5.5)."""
MESSAGE_LIMIT = 64 * 1024
"""The most bytes of one message; the longest frame of the mux is shorter. Pass as ``max_msg_size``."""


class WebSocketTransport:
    """``client.mux.Transport`` on aiohttp's WebSocket. Whoever made it sets ``heartbeat`` and ``max_msg_size``."""

    def __init__(self, socket: ClientWebSocketResponse | WebSocketResponse) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Sends a binary message. Raises ConnectionError."""
        await self._socket.send_bytes(data)

    async def receive(self) -> bytes | None:
        """The next binary message; None at the end, or when the peer sends anything else."""
        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.TEXT:
            await self.close("only binary messages are taken")
        return None

    async def close(self, reason: str) -> None:
        """Closes with the reason, once."""
        if not self._socket.closed:
            await self._socket.close(message=reason.encode()[:CLOSE_TEXT_LIMIT])
