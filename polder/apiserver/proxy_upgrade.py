"""A proxied request that upgrades its connection: the other side's answer decides, and then bytes are carried as they are."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from polder.api.errors import ApiError, internal, unavailable
from polder.apiserver.hooks import Call
from polder.apiserver.outcalls import Outcalls, said
from polder.apiserver.outconn import Peer
from polder.apiserver.raw import RawConnection, upgrade
from polder.apiserver.remotecommand import IDLE, Idle

log = logging.getLogger(__name__)

ANSWER: Final = 30.0
"""Seconds for the head of the answer."""
HEAD_LIMIT: Final = 64 * 1024
BODY_LIMIT: Final = 64 * 1024
"""Bytes of a refusal that are passed on."""
READ: Final = 64 * 1024


async def carry_upgrade(
    call: Call, outcalls: Outcalls, peer: Peer, what: tuple[str, CIMultiDict[str]]
) -> web.StreamResponse:
    """Raises ApiError 500, 503, DialError."""
    reader, writer = await outcalls.open(peer, HEAD_LIMIT)
    try:
        try:
            async with asyncio.timeout(ANSWER):
                writer.write(_request(call.request, *what))
                await writer.drain()
                status, headers = _parsed(await reader.readuntil(b"\r\n\r\n"))
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            why = said(error) if isinstance(error, OSError) else "EOF"
            raise unavailable(f"error trying to reach service: {why}") from error
        if status != 101:
            return await _refused(status, headers, reader)
        response, connection = await upgrade(call.request, _switched(headers))
        await _carry(connection, (reader, writer), call.info.tenant)
        return response
    finally:
        writer.close()


def _request(request: web.BaseRequest, path: str, headers: CIMultiDict[str]) -> bytes:
    """The head of the request, with the upgrade that the client asked for."""
    lines = [f"{request.method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in {"connection", "upgrade"}]
    lines += ["Connection: Upgrade", f"Upgrade: {request.headers['Upgrade']}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def _parsed(head: bytes) -> tuple[int, CIMultiDict[str]]:
    """Status and headers. Raises ApiError 500."""
    first, *rest = head.decode("utf-8", "surrogateescape").split("\r\n")
    parts = first.split(" ", 2)
    if not first.startswith("HTTP/1.") or len(parts) < 2 or not parts[1].isdecimal() or len(parts[1]) != 3:
        raise internal("invalid upgrade response: it is no HTTP")
    headers: CIMultiDict[str] = CIMultiDict()
    for line in rest:
        name, colon, value = line.partition(":")
        if colon and name and not name[0].isspace():
            headers.add(name.strip(), value.strip())
    return int(parts[1]), headers


def _switched(headers: CIMultiDict[str]) -> Mapping[str, str]:
    dropped = {"connection", "content-length", "transfer-encoding", "date", "server"}
    return {name: value for name, value in headers.items() if name.lower() not in dropped}


async def _refused(status: int, headers: CIMultiDict[str], reader: asyncio.StreamReader) -> web.Response:
    """What the other side says instead, as far as it is an error. Raises ApiError 500."""
    if status < 400:
        raise internal(f"invalid upgrade response: status code {status}")
    length = headers.get("Content-Length", "")
    body = b""
    try:
        async with asyncio.timeout(ANSWER):
            if length.isdecimal():
                body = await reader.readexactly(min(int(length[:9]), BODY_LIMIT))
    except (OSError, asyncio.IncompleteReadError) as error:
        raise ApiError(503, "ServiceUnavailable", "error trying to reach service: unexpected EOF") from error
    return web.Response(status=status, body=body, headers={"Content-Type": headers.get("Content-Type", "text/plain")})


async def _carry(
    connection: RawConnection, other: tuple[asyncio.StreamReader, asyncio.StreamWriter], tenant: str
) -> None:
    """Both ways; the end of one is the end."""
    reader, writer = other
    idle = Idle(IDLE, tenant)

    async def back() -> None:
        while data := await reader.read(READ):
            await connection.write(data)
            await idle.passed()

    async def onward() -> None:
        while data := await connection.read():
            writer.write(data)
            await writer.drain()
            await idle.passed()

    tasks = [asyncio.ensure_future(back()), asyncio.ensure_future(onward())]
    try:
        async with idle.scope:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        log.info("a proxied connection was idle for %g seconds: it is ended", IDLE)
    finally:
        for task in tasks:
            task.cancel()
        for broken in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(broken, OSError):
                log.debug("a proxied connection broke: %s", broken)
