"""``pods/log``: asks the pod's node over its stream and passes on what it says.

The node answers ``{"kind": "logs", …}`` with the log's bytes; if it cannot, it resets the stream with the reason.
Parameters and refusals in upstream's words (core/v1 PodLogOptions).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from aiohttp import web

from polder.api.errors import Field, FieldError, bad_request, invalid, unavailable
from polder.api.kinds import Kind
from polder.api.meta import Raw
from polder.apiserver.hooks import Call
from polder.apiserver.listener import on_lost
from polder.apiserver.logmessages import send_messages
from polder.apiserver.podplace import Place, choose_container, place_of, read_pod
from polder.apiserver.requestinfo import is_true
from polder.apiserver.stream import NodeStreams, NotConnectedError
from polder.apiserver.streamshares import StreamShares
from polder.apiserver.websocket import is_websocket
from polder.client.carry import ByteStream
from polder.client.pace import PACE
from polder.store.protocol import Store

log = logging.getLogger(__name__)

OPTIONS = Kind("", "v1", "PodLogOptions", "podlogoptions", "podlogoptions")
_STREAMS: Final = {"All": "", "Stderr": "stderr", "Stdout": "stdout"}
_PULLS: Final = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}
_INT64 = 2**63 - 1
HEAD_WAIT = 1.0
"""Seconds to wait for the first bytes before the answer's head goes out: a refusal can still become a Status."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What of a log is asked for; numbers below zero mean unset. ``since_time`` is RFC 3339, empty for unset, ``stream`` is
    ``stdout`` or ``stderr``, empty for both.
    """

    container: str
    follow: bool
    previous: bool
    timestamps: bool
    tail_lines: int
    since_seconds: int
    since_time: str
    limit_bytes: int
    stream: str = ""


def parse_options(query: Mapping[str, str], container: str) -> LogOptions:
    """Raises ApiError 422 naming each wrong parameter."""
    errors: list[FieldError] = []
    stream = query.get("stream") or "All"
    if stream not in _STREAMS:
        errors.append(Field("stream").not_supported(stream, _STREAMS))
    options = LogOptions(
        container,
        is_true(query.get("follow")),
        is_true(query.get("previous")),
        is_true(query.get("timestamps")),
        _number(query, "tailLines", 0, errors),
        _number(query, "sinceSeconds", 1, errors),
        _time(query, errors),
        _number(query, "limitBytes", 1, errors),
        _STREAMS.get(stream, ""),
    )
    if options.stream and options.tail_lines >= 0:
        errors.append(Field("").forbidden("`tailLines` and specific `stream` are mutually exclusive for now"))
    if options.since_seconds > 0 and options.since_time:
        errors.append(Field("sinceSeconds").forbidden("at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if errors:
        raise invalid(OPTIONS, "", errors)
    return options


def _number(query: Mapping[str, str], name: str, least: int, errors: list[FieldError]) -> int:
    text = query.get(name, "")
    if not text:
        return -1
    try:
        number = int(text)
    except ValueError:
        errors.append(Field(name).type_invalid(text, "must be an integer"))
        return -1
    if number > _INT64:
        errors.append(Field(name).type_invalid(text, "must be an integer of 64 bits"))
    elif number < least:
        errors.append(Field(name).invalid(number, f"must be greater than or equal to {least}"))
    return number


def _time(query: Mapping[str, str], errors: list[FieldError]) -> str:
    text = query.get("sinceTime", "")
    try:
        known = not text or datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        errors.append(Field("sinceTime").invalid(text, "must be a time as in RFC 3339"))
    return text


def check_state(pod: Raw, options: LogOptions) -> None:
    """Raises ApiError 400 where the container has no log yet, or none of the run before."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    fields = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    known = [entry for field in fields for entry in status.get(field) or []]
    found: Raw = next((c for c in known if c.get("name") == options.container), {})
    if options.previous:
        if not ((found.get("lastState") or {}).get("terminated") or {}).get("containerID"):
            raise bad_request(f'previous terminated container "{options.container}" in pod "{name}" not found')
        return
    state = found.get("state") or {}
    waiting = state.get("waiting") or {}
    ran_before = (found.get("lastState") or {}).get("terminated")
    if not state or (waiting and not ran_before):
        reason = str(waiting.get("reason") or "PodScheduled")
        reason = _PULLS.get(reason, reason)
        raise bad_request(f'container "{options.container}" in pod "{name}" is waiting to start: {reason}')


class Logs:
    """The handler of ``pods/log``."""

    def __init__(self, store: Store, streams: NodeStreams, shares: StreamShares) -> None:
        self._store = store
        self._streams = streams
        self._shares = shares

    async def serve(self, call: Call) -> web.StreamResponse:
        """Streams a container's log, as text or through a WebSocket. Raises ApiError 400, 404, 422, 429, 503."""
        info = call.info
        pod = await read_pod(self._store, info, info.name)
        options = parse_options(call.query, choose_container(pod, call.query.get("container", "")))
        place = place_of(pod, info)
        check_state(pod, options)
        with self._shares.one(place.tenant, place.node):
            return await self._serve(call.request, place, options)

    async def _serve(self, request: web.BaseRequest, place: Place, options: LogOptions) -> web.StreamResponse:
        try:
            stream = await self._streams.open(place.node, {**place.header("logs"), **asdict(options)})
        except NotConnectedError as error:
            raise unavailable(f"the log of pod {place.name} cannot be read now: {error}") from error
        try:
            if is_websocket(request.headers):
                return await send_messages(request, stream)
            return await _pass_on(request, stream, place)
        finally:
            await _drop(stream)


async def _drop(stream: ByteStream) -> None:
    """Gives the stream up where the log did not come to its end."""
    with suppress(ConnectionError):  # the node is gone as well
        await stream.reset("the reader left")


async def _pass_on(request: web.BaseRequest, stream: ByteStream, place: Place) -> web.StreamResponse:
    """Waits a moment for the first bytes, so that a refusal becomes a Status; a log that breaks later breaks off."""
    first = asyncio.ensure_future(stream.read())
    try:
        await asyncio.wait({first}, timeout=HEAD_WAIT)
        if first.done() and (error := first.exception()) is not None:
            raise unavailable(f"the log of pod {place.name} cannot be read now: {error}") from error
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await _copy(request, (stream, place.tenant), response, first)
    except ConnectionError as error:
        log.info("the log of pod %s broke off: %s", place.name, error)
        if request.transport is not None:
            request.transport.abort()  # the answer has begun: only its missing end can say so
    finally:
        first.cancel()
    return response


async def _copy(
    request: web.BaseRequest, source: tuple[ByteStream, str], response: web.StreamResponse, first: asyncio.Future[bytes]
) -> None:
    """The log to its end. A reader that leaves a silent log is noticed too. Raises ConnectionError."""
    loop, scope = asyncio.get_running_loop(), asyncio.timeout(None)
    stream, tenant = source
    try:
        async with scope:
            forget = on_lost(request, lambda: scope.reschedule(loop.time()))
            try:
                data = await first
                while data:
                    await response.write(data)
                    await PACE.step(tenant)
                    data = await stream.read()
                await response.write_eof()
                await stream.end()
            finally:
                forget()
    except TimeoutError as error:
        raise ConnectionResetError("the reader left") from error
