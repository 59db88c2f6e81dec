"""The server's end of the agents' streams: one connection for each node, the newest wins.

What agents open (``{"kind": …}``) is served by handlers given by constructor; what the server wants of a node it opens
here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping

from aiohttp import web

from polder.api.errors import ApiError, bad_request
from polder.api.meta import Raw
from polder.apiserver.hooks import Call
from polder.base.errors import RetryableError
from polder.client.mux import Mux, ProtocolError, Stream
from polder.client.wstransport import HEARTBEAT, MESSAGE_LIMIT, WebSocketTransport
from polder.system.pki import parse_client

log = logging.getLogger(__name__)

NodeHandler = Callable[[str, Raw, Stream], Awaitable[None]]
"""Serves a stream that a node opened: (node, header, stream)."""


class NotConnectedError(RetryableError):
    """The node's agent has no stream to this server now."""


class _Link:
    """One agent's connection."""

    def __init__(self, mux: Mux, key: str) -> None:
        self.mux = mux
        self.key = key
        self.running: asyncio.Task[None] | None = None


class NodeStreams:
    """The streams of all nodes, by node."""

    def __init__(self, handlers: Mapping[str, NodeHandler]) -> None:
        self._handlers = handlers
        self._links: dict[str, _Link] = {}
        self._closed = False

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that are connected."""
        return frozenset(self._links)

    async def open(self, node: str, header: Raw) -> Stream:
        """A stream to a node. Raises NotConnectedError."""
        link = self._links.get(node)
        if link is None:
            raise NotConnectedError(f"node {node} is not connected to the server", after=1.0)
        try:
            return await link.mux.open(header)
        except ConnectionError as error:
            raise NotConnectedError(f"node {node} has just lost its connection to the server: {error}", 1.0) from error

    async def serve(self, call: Call) -> web.StreamResponse:
        """The handler of ``/polder/v1/stream``; lasts as long as the connection. Raises ApiError."""
        node = call.who.node
        if not node or self._closed:
            raise ApiError(403, "Forbidden", "the stream is for nodes")
        response = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MESSAGE_LIMIT, compress=False)
        if not response.can_prepare(call.request):
            raise bad_request("the stream is a WebSocket: ask for an upgrade")
        await response.prepare(call.request)

        async def on_open(stream: Stream) -> None:
            await self._dispatch(node, stream)

        certificate = call.connection.certificate
        key = parse_client(certificate).key if certificate is not None else ""
        link = _Link(Mux(WebSocketTransport(response), dialled=False, on_open=on_open), key)
        await self._run(node, link)
        return response

    async def _run(self, node: str, link: _Link) -> None:
        older = self._links.get(node)
        self._links[node] = link
        if older is not None and older.running is not None:
            log.info("node %s connected again, its older stream ends", node)
            older.running.cancel()
        link.running = asyncio.ensure_future(link.mux.run())
        log.info("node %s is connected", node)
        try:
            await asyncio.wait({link.running})
        finally:
            link.running.cancel()
            if self._links.get(node) is link:
                del self._links[node]
        if not link.running.cancelled() and (error := link.running.exception()) is not None:
            if not isinstance(error, ProtocolError):
                raise error
            log.warning("the stream of node %s ended: %s", node, error)
        log.info("node %s is disconnected", node)

    async def _dispatch(self, node: str, stream: Stream) -> None:
        kind = stream.header.get("kind")
        handler = self._handlers.get(kind) if isinstance(kind, str) else None
        if handler is None:
            await stream.reset(f"streams of kind {kind!r} are not served here")
            return
        await handler(node, stream.header, stream)

    def drop(self, node: str, good: Collection[str] = ()) -> None:
        """Ends a node's stream, if there is one, unless its certificate is for one of the ``good`` keys."""
        link = self._links.get(node)
        if link is not None and link.running is not None and link.key not in good:
            log.info("the certificate of node %s counts no more, its stream ends", node)
            link.running.cancel()

    async def close(self) -> None:
        """Ends every stream."""
        self._closed = True
        running = [link.running for link in self._links.values() if link.running is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
