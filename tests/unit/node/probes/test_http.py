"""A GET of a probe against a real listening socket that answers what it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from polder.node.probes.http import Request, get, make_request, target
from polder.node.probes.outcome import OUTPUT_LIMIT, AttemptError, Outcome, Result

Say = Callable[[str], bytes]


@asynccontextmanager
async def server(say: Say) -> AsyncIterator[tuple[int, list[str]]]:
    """Answers each request with what ``say`` makes of its head; answers the port and the heads."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(say(heads[-1]))
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1], heads
    finally:
        running.close()


async def connect(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except OSError:
        sock.close()
        raise
    return sock


def request(port: int, path: str = "/", *headers: tuple[str, str]) -> Request:
    return make_request("HTTP", "127.0.0.1", port, path, headers)


def answer(status: str, body: bytes = b"", *more: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


async def ask(say: Say, path: str = "/", *headers: tuple[str, str]) -> tuple[Outcome, list[str]]:
    async with server(say) as (port, heads):
        return await get(connect, request(port, path, *headers), "kube-probe/1.36"), heads


@pytest.mark.parametrize(
    ("status", "result"),
    [("200 OK", Result.SUCCESS), ("399 odd", Result.WARNING), ("400 Bad", Result.FAILURE), ("503 No", Result.FAILURE)],
)
async def test_the_status_decides(status: str, result: Result) -> None:
    found, _ = await ask(lambda _: answer(status))
    assert found.result is result
    if result is Result.FAILURE:
        assert found.output == f"HTTP probe failed with statuscode: {status[:3]}"


async def test_the_usual_headers_and_those_that_replace_them() -> None:
    _, plain = await ask(lambda _: answer("200 OK"), "/healthz?full=1")
    lines = plain[0].split("\r\n")
    assert lines[0] == "GET /healthz?full=1 HTTP/1.1"
    assert {"User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close"} <= set(lines)
    _, own = await ask(lambda _: answer("200 OK"), "/", ("Host", "x.example"), ("Accept", ""), ("User-Agent", "me"))
    assert "Host: x.example" in own[0] and "User-Agent: me" in own[0]
    assert "Accept" not in own[0] and "127.0.0.1" not in own[0]


async def test_redirects_are_followed_on_the_same_host_ten_times() -> None:
    def to_local(head: str) -> bytes:
        return answer("302 Found", b"", "Location: /there") if head.startswith("GET / ") else answer("500 Broken")

    found, heads = await ask(to_local)
    assert (found.result, len(heads)) == (Result.FAILURE, 2)
    found, heads = await ask(lambda _: answer("302 Found", b"", "Location: /"))
    assert found.output.endswith("stopped after 10 redirects") and len(heads) == 10


async def test_a_redirect_to_another_host_is_a_warning_and_not_followed() -> None:
    found, heads = await ask(lambda _: answer("302 Found", b"elsewhere", "Location: http://192.0.2.1/"))
    assert (found.result, len(heads)) == (Result.WARNING, 1)
    assert found.output == "Probe terminated redirects, Response body: elsewhere"


async def test_bodies_in_chunks_and_without_end_are_cut() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\n\r\n"
    assert (await ask(lambda _: chunked))[0].output == "hello!"
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4 * OUTPUT_LIMIT
    assert len((await ask(lambda _: endless))[0].output) == OUTPUT_LIMIT


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "EOF"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000, "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "EOF"),
    ],
)
async def test_what_is_no_answer_is_a_failure(said: bytes, why: str) -> None:
    found, _ = await ask(lambda _: said)
    assert found.result is Result.FAILURE and why in found.output


async def test_nobody_listens() -> None:
    async with server(lambda _: b"") as (port, _):
        pass
    found = await get(connect, request(port), "x")
    assert found.output.endswith(f"dial tcp 127.0.0.1:{port}: connect: connection refused")


def test_no_header_ends_the_request_early() -> None:
    for name, value in (("X", "a\r\nY: b"), ("X Y", "a"), ("X", "a\0")):
        with pytest.raises(AttemptError):
            make_request("HTTP", "h", 1, "/", [(name, value)])


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("healthz", "/healthz"),
        ("", "/"),
        ("/a b?c=d e#f", "/a%20b?c=d%20e"),
        ("/x\r\nHost: y", "/x%0D%0AHost%3A%20y"),
        ("http://evil.example/x", "/x"),
        ("//[bad/x", "/%5Bbad/x"),
    ],
)
def test_paths_are_escaped(path: str, asked: str) -> None:
    assert target(path) == asked
