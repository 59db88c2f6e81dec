"""``nodes/proxy``: what a node shows of itself, through its agent's stream. A tenant reaches into no node."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, bad_request, forbidden, not_found, unavailable
from polder.api.kinds import built_in
from polder.apiserver.hooks import Call
from polder.apiserver.podplace import backend_away
from polder.apiserver.proxy_pass import split_path
from polder.apiserver.proxying import parse_name
from polder.apiserver.stream import NodeStreams, NotConnectedError
from polder.base.ids import ROOT
from polder.client.carry import ByteStream
from polder.store.protocol import Key, Store

log = logging.getLogger(__name__)

NODE: Final = built_in("v1", "nodes")
PORT: Final = "10250"
"""The port that kubelets have, which clients name; no node has any."""
ANSWER: Final = 30.0
HEAD_LIMIT: Final = 4096


class NodePages:
    """The handler of ``nodes/proxy``."""

    def __init__(self, store: Store, streams: NodeStreams) -> None:
        self._store = store
        self._streams = streams

    async def serve(self, call: Call) -> web.StreamResponse:
        """One page of a node. Raises ApiError 400, 403, 404, 500, 503."""
        asked = parse_name(call.info.name, "node")
        if call.info.tenant != ROOT:
            raise forbidden(NODE, asked.name, "only the platform reaches into its nodes")
        if asked.port not in {"", PORT}:
            raise bad_request(f"port {asked.port}: a node has no ports, what it shows comes through its agent's stream")
        if await self._store.get(Key(NODE.resource, ROOT, "", asked.name)) is None:
            raise not_found(NODE, asked.name)
        request = call.request
        header = {
            "kind": "page",
            "method": request.method,
            "path": split_path(request.rel_url.path, namespaced=False)[1],
            "query": dict(request.query),
        }
        try:
            stream = await self._streams.open(asked.name, header)
        except NotConnectedError as error:
            raise backend_away(error) from error
        try:
            return await _answered(request, stream)
        except ConnectionError as error:
            raise unavailable(f"error trying to reach service: {error}") from error
        finally:
            await stream.reset("the answer is over")


async def _answered(request: web.BaseRequest, stream: ByteStream) -> web.StreamResponse:
    """Raises ApiError 503, ConnectionError before the answer has begun."""
    head = b""
    try:
        async with asyncio.timeout(ANSWER):
            while b"\n" not in head and len(head) < HEAD_LIMIT and (data := await stream.read()):
                head += data
    except TimeoutError as error:
        raise unavailable("error trying to reach service: i/o timeout") from error
    line, newline, rest = head.partition(b"\n")
    if not newline:
        raise ApiError(500, "", "error dialing backend: the node's agent gave no answer")
    said = orjson.loads(line)
    response = web.StreamResponse(status=int(said["status"]), headers={"Content-Type": str(said["type"])})
    response.enable_chunked_encoding()
    await response.prepare(request)
    try:
        if rest:
            await response.write(rest)
        while data := await stream.read():
            await response.write(data)
        await response.write_eof()
    except ConnectionError as error:
        log.info("a node's page broke off: %s", error)
        if request.transport is not None:
            request.transport.abort()
    return response
