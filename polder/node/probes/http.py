"""A GET of a probe or hook: HTTP/1.1 over a socket of the pod's, with few redirects and little of the answer."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from urllib.parse import quote, urljoin, urlsplit

from polder.node.probes.outcome import OUTPUT_LIMIT, AttemptError, Outcome, Result, failure
from polder.node.probes.reach import words

REDIRECTS = 10
"""As many are followed, within one host (upstream's figure)."""
HEADER_LIMIT = 64 << 10
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SAFE = "/%:@!$&'()*+,;=~-._"

Connect = Callable[[str, int], Awaitable[socket.socket]]
"""(host, port): a connected socket. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask. ``headers`` replace the usual ones; an empty Accept leaves it out."""

    scheme: str
    host: str
    port: int
    path: str
    headers: Sequence[tuple[str, str]]

    @property
    def authority(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is looked at of an answer."""

    status: int
    location: str
    body: bytes


class MalformedError(Exception):
    """What came is no HTTP."""


def make_request(scheme: str, host: str, port: int, path: str, headers: Sequence[tuple[str, str]]) -> Request:
    """A request for what a user wrote. Raises AttemptError for headers that cannot be sent."""
    for name, value in headers:
        if not _TOKEN.fullmatch(name) or any((ord(c) < 32 and c != "\t") or ord(c) == 127 for c in value):
            raise AttemptError(f'net/http: invalid header field value for "{name}"')
    return Request(scheme.lower() or "http", host, port, target(path), tuple(headers))


def target(path: str) -> str:
    """The path and query of what was written, escaped."""
    try:
        parts = urlsplit(path) if path.isprintable() else None
    except ValueError:
        parts = None
    if parts is None:
        return quote("/" + path.lstrip("/"), safe="/")
    where = quote(parts.path, safe=_SAFE)
    query = f"?{quote(parts.query, safe=_SAFE + '/?')}" if parts.query else ""
    return (where if where.startswith("/") else f"/{where}") + query


class GetError(Exception):
    """Nothing came that is an answer: why. ``plain``: the other side does not speak TLS."""

    def __init__(self, words: str, *, plain: bool = False) -> None:
        super().__init__(words)
        self.plain = plain


async def get(connect: Connect, request: Request, agent: str) -> Outcome:
    """One attempt, redirects included. The caller bounds the time."""
    try:
        return _judge(await fetch(connect, request, agent, anywhere=False))
    except GetError as error:
        return failure(str(error))


async def fetch(connect: Connect, request: Request, agent: str, *, anywhere: bool) -> Answer:
    """The answer at the end of the redirects; without ``anywhere``, of those that stay on the host. Raises GetError."""
    asked = request
    for _ in range(REDIRECTS):
        try:
            answer = await _exchange(connect, asked, agent)
        except (OSError, EOFError, MalformedError, asyncio.LimitOverrunError, ValueError) as error:
            plain = isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER"
            raise GetError(f'Get "{asked.url}": {_reason(asked, error)}', plain=plain) from error
        onward = _follow(asked, answer)
        if onward is None or not (anywhere or onward.host == request.host):
            return answer
        asked = onward
    raise GetError(f'Get "{asked.url}": stopped after {REDIRECTS} redirects')


def _judge(answer: Answer) -> Outcome:
    if 200 <= answer.status < 300:
        return Outcome(Result.SUCCESS, answer.body.decode(errors="replace"))
    if 300 <= answer.status < 400:
        said = answer.body.decode(errors="replace")
        return Outcome(Result.WARNING, f"Probe terminated redirects, Response body: {said}")
    return failure(f"HTTP probe failed with statuscode: {answer.status}")


def _reason(request: Request, error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        return f"tls: {error.reason or 'handshake failed'}".lower()
    if isinstance(error, OSError):
        return f"dial tcp {request.authority}: {words(error)}"
    return "EOF" if isinstance(error, EOFError) else "net/http: malformed HTTP response"


def _follow(asked: Request, answer: Answer) -> Request | None:
    """Where an answer sends on to; None if it does not, or nowhere that can be asked."""
    if answer.status not in _REDIRECT or not answer.location:
        return None
    try:
        parts = urlsplit(urljoin(asked.url, answer.location))
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return replace(asked, scheme=parts.scheme, host=parts.hostname, port=port, path=target(path))


@cache
def _tls() -> ssl.SSLContext:
    """A probe asks whether somebody answers, not who (upstream does not verify either)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context


async def _exchange(connect: Connect, request: Request, agent: str) -> Answer:
    sock = await connect(request.host, request.port)
    secure = request.scheme == "https"
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=_tls() if secure else None,
            server_hostname=request.host if secure else None,
            limit=HEADER_LIMIT,
        )
    except BaseException:
        sock.close()
        raise
    try:
        writer.write(_head(request, agent))
        return await _answer(reader)
    finally:
        writer.transport.abort()


def _head(request: Request, agent: str) -> bytes:
    given = {name.lower() for name, _ in request.headers}
    lines = [f"GET {request.path} HTTP/1.1"]
    if "host" not in given:
        lines.append(f"Host: {request.authority}")
    if "user-agent" not in given:
        lines.append(f"User-Agent: {agent}")
    if "accept" not in given:
        lines.append("Accept: */*")
    lines += [f"{name}: {value}" for name, value in request.headers if value or name.lower() != "accept"]
    return ("\r\n".join([*lines, "Connection: close", "", ""])).encode("utf-8", "replace")


async def _answer(reader: asyncio.StreamReader) -> Answer:
    while True:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        code = rest[:3]
        if not version.startswith("HTTP/1.") or not code.isascii() or not code.isdigit():
            raise MalformedError(lines[0])
        if int(code) >= 200:
            break
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return Answer(int(code), headers.get("location", ""), await _body(reader, int(code), headers))


async def _body(reader: asyncio.StreamReader, code: int, headers: dict[str, str]) -> bytes:
    """The beginning of the body, without what marks its chunks."""
    if code in {204, 304}:
        return b""
    length = headers.get("content-length", "")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader)
    size = min(int(length), OUTPUT_LIMIT) if length.isascii() and length.isdigit() else OUTPUT_LIMIT
    found = bytearray()
    while len(found) < size and (part := await reader.read(size - len(found))):
        found += part
    if length and len(found) < size:
        raise EOFError
    return bytes(found)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while len(found) < OUTPUT_LIMIT:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size <= 0:
            break
        found += await reader.readexactly(min(size, OUTPUT_LIMIT - len(found)))
        if len(found) < OUTPUT_LIMIT:
            await reader.readexactly(2)
    return bytes(found)
