"""``pods/exec`` and ``pods/attach``: ends the user's WebSocket or SPDY here, and runs the command through the node's stream.

The node is asked first, so that a refusal can still be an answer; the command begins when the user's side stands. Nothing of what
a user sends reaches the container runtime but input, sizes of terminals and the command itself.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Final

import orjson
from aiohttp import web

from polder.api.errors import ApiError, bad_request, internal
from polder.api.meta import Raw
from polder.apiserver import connects
from polder.apiserver.hooks import Authorizer, Call
from polder.apiserver.podplace import Place, backend_away, choose_container, place_of, read_pod
from polder.apiserver.remoteclients import V5, Client, accept_spdy, accept_websocket, is_spdy
from polder.apiserver.stream import NodeStreams, NotConnectedError
from polder.apiserver.streamshares import StreamShares
from polder.apiserver.websocket import asked_protocols, is_websocket
from polder.client.channels import HALT, OPENED, REQUEST, RESIZE, START, STATUS, STDERR, STDIN, STDOUT, Channels
from polder.client.pace import PACE
from polder.store.protocol import Store

log = logging.getLogger(__name__)

IDLE: Final = 4 * 3600.0
"""Seconds without a byte either way, after which a connection ends (upstream's streamingConnectionIdleTimeout)."""
ANSWER: Final = 30.0
"""Seconds that the node has to say whether the container can be reached."""
NOTHING: Final = "you must specify at least 1 of stdin, stdout, stderr"


async def check_create(authorizer: Authorizer, call: Call) -> None:
    """Who connects must be allowed to create the connection, also where a WebSocket makes that a GET. Raises ApiError 403."""
    if call.info.verb != "create":
        await authorizer.authorize(call.who, replace(call.info, verb="create"))


def check_upgrade(request: web.BaseRequest) -> None:
    """Raises ApiError 400 where no connection is asked for that there is."""
    if not is_websocket(request.headers) and not is_spdy(request.headers):
        raise bad_request("Upgrade request required")


class RemoteCommands:
    """The handler of ``pods/exec`` and ``pods/attach``."""

    def __init__(self, store: Store, streams: NodeStreams, authorizer: Authorizer, shares: StreamShares) -> None:
        self._store = store
        self._streams = streams
        self._authorizer = authorizer
        self._shares = shares

    async def serve(self, call: Call) -> web.StreamResponse:
        """One command to its end. Raises ApiError 400, 403, 404, 429, 500."""
        await check_create(self._authorizer, call)
        pod = await read_pod(self._store, call.info, call.info.name)
        sub = call.info.subresource
        asked = connects.options(connects.kind_of_options("pods", sub), sub, call.request.query)
        container = choose_container(pod, str(asked.get("container", "")))
        place = place_of(pod, call.info)
        check_upgrade(call.request)
        wanted: Raw = {
            "container": container,
            "command": asked.get("command", []),
            "stdin": asked["stdin"],
            "stdout": asked["stdout"],
            "stderr": asked["stderr"] and not asked["tty"],
            "tty": asked["tty"],
        }
        if not (wanted["stdin"] or wanted["stdout"] or wanted["stderr"]):
            raise bad_request(NOTHING)
        with self._shares.one(place.tenant, place.node):
            return await self._serve(call, place, wanted)

    async def _serve(self, call: Call, place: Place, wanted: Raw) -> web.StreamResponse:
        try:
            stream = await self._streams.open(place.node, place.header(call.info.subresource))
        except NotConnectedError as error:
            raise backend_away(error) from error
        channels = Channels(stream)
        try:
            refusal = await _asked(channels, wanted)
            if refusal:
                return await _refused(call.request, refusal, _channels_of(wanted))
            return await _connected(call, channels, wanted)
        finally:
            with suppress(ConnectionError):  # the node has gone as well
                await stream.reset("the user's connection ended")


def _channels_of(wanted: Raw) -> frozenset[int]:
    named = ((STDIN, "stdin"), (STDOUT, "stdout"), (STDERR, "stderr"), (RESIZE, "tty"))
    return frozenset({STATUS, *(channel for channel, name in named if wanted[name])})


async def _asked(channels: Channels, wanted: Raw) -> str:
    """What the node says against it; empty if nothing. Raises ApiError 500."""
    try:
        async with asyncio.timeout(ANSWER):
            await channels.send(REQUEST, orjson.dumps(wanted))
            answer = await channels.receive()
    except TimeoutError as error:
        raise backend_away(TimeoutError("i/o timeout")) from error
    except ConnectionError as error:
        raise backend_away(error) from error
    if answer is None or answer[0] != OPENED:
        raise backend_away(ConnectionError("the node's agent gave no answer"))
    return answer[1].decode(errors="replace")


async def _refused(request: web.BaseRequest, refusal: str, channels: frozenset[int]) -> web.StreamResponse:
    """As a kubelet refuses: text; to clients of the fifth protocol, whose connection stands already, a Status."""
    if is_websocket(request.headers) and V5 in asked_protocols(request.headers):
        response, client = await accept_websocket(request, channels)
        await client.finish(orjson.dumps(internal(f"unable to upgrade connection: {refusal}").to_status()))
        return response
    return web.Response(status=500, text=refusal, content_type="text/plain")


async def _connected(call: Call, channels: Channels, wanted: Raw) -> web.StreamResponse:
    client: Client
    request, tenant = call.request, call.info.tenant
    numbers = _channels_of(wanted)
    if is_websocket(request.headers):
        response, client = await accept_websocket(request, numbers)
    else:
        response, client = spdy = await accept_spdy(request, numbers)
        if not await spdy[1].ready():
            await client.close()
            return response
    try:
        await channels.send(START, b"")
        await run(client, channels, tenant)
    except ConnectionError as error:
        log.debug("a command's connection broke: %s", error)
    finally:
        await client.close()
    return response


async def run(client: Client, channels: Channels, tenant: str) -> None:
    """Carries a tenant's command until one side has ended, or nothing was said for long. Raises ConnectionError."""
    idle = Idle(IDLE, tenant)
    upwards = asyncio.ensure_future(_upwards(client, channels, idle))
    downwards = asyncio.ensure_future(_downwards(client, channels, idle))
    try:
        async with idle.scope:
            await asyncio.wait({upwards, downwards}, return_when=asyncio.FIRST_COMPLETED)
            if downwards.done():
                await client.finish(downwards.result())
    except TimeoutError:
        log.info("a command's connection was idle for %g seconds: it is ended", IDLE)
    finally:
        for task in (upwards, downwards):
            task.cancel()
        await asyncio.gather(upwards, downwards, return_exceptions=True)


class Idle:
    """A bound on silence: ``scope`` ends with TimeoutError so long after the last piece has ``passed``."""

    def __init__(self, seconds: float, tenant: str) -> None:
        self._seconds = seconds
        self._tenant = tenant
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self.scope = asyncio.timeout(seconds)

    async def passed(self) -> None:
        """A piece was carried: others have their turn before the next. Timers are moved once in a second at most."""
        now = self._loop.time()
        if now - self._last >= 1.0:
            self._last = now
            self.scope.reschedule(now + self._seconds)
        await PACE.step(self._tenant)


async def _upwards(client: Client, channels: Channels, idle: Idle) -> None:
    """Input, until the user has gone."""
    while (message := await client.receive()) is not None:
        channel, data = message
        with suppress(ConnectionError):  # the command has ended; what it said last is still on its way
            await channels.send(channel, data if channel != HALT else bytes([STDIN]))
        await idle.passed()


async def _downwards(client: Client, channels: Channels, idle: Idle) -> bytes:
    """Output; returns the status. What breaks on the node's side becomes a status too. Raises ConnectionError."""
    while True:
        try:
            message = await channels.receive()
        except ConnectionError as error:
            return _broken(str(error))
        if message is None:
            return _broken("the node's agent has gone")
        channel, data = message
        if channel == STATUS:
            return data
        await client.send(channel, data)
        await idle.passed()


def _broken(why: str) -> bytes:
    error: ApiError = internal(f"error executing command in container: {why}")
    return orjson.dumps(error.to_status())
