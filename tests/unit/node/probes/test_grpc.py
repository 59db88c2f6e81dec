"""The health call against gRPC's own server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from polder.node.probes.grpc import _code, check, headers
from polder.node.probes.outcome import Outcome, Result


async def ask(port: int, service: str) -> Outcome:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    async with asyncio.timeout(5):
        return await check(sock, f"127.0.0.1:{port}", service, "kube-probe/1.36")


@asynccontextmanager
async def health(states: dict[str, int]) -> AsyncIterator[tuple[int, list[tuple[str, str]]]]:
    """A server of the health service; what is no service of its is NOT_FOUND. Answers its port and the metadata it got."""
    seen: list[tuple[str, str]] = []

    async def answer(request: bytes, context: Any) -> bytes:
        seen.extend((key, value) for key, value in context.invocation_metadata())
        name = request[2:].decode() if len(request) < 130 else request[3:].decode()
        if name not in states:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return bytes([0x08, states[name]])

    server = grpc.aio.server()
    calls = {"Check": grpc.unary_unary_rpc_method_handler(answer)}
    if states:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", calls),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port, seen
    finally:
        await server.stop(None)


@pytest.mark.parametrize("service", ["", "db", "s" * 127, "s" * 200])
async def test_a_service_that_serves(service: str) -> None:
    async with health({service: 1}) as (port, seen):
        assert (await ask(port, service)).result is Result.SUCCESS
    assert any(key == "user-agent" and value.startswith("kube-probe/1.36") for key, value in seen)


async def test_services_that_do_not() -> None:
    async with health({"": 2, "x": 0}) as (port, _):
        assert (await ask(port, "")).output == 'service unhealthy (responded with "NOT_SERVING")'
        assert (await ask(port, "x")).output == 'service unhealthy (responded with "UNKNOWN")'
        assert "code = 5" in (await ask(port, "other")).output


async def test_no_health_service() -> None:
    async with health({}) as (port, _):
        found = await ask(port, "")
    assert found.result is Result.FAILURE and "does not implement the grpc health protocol" in found.output


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b"\0\0\2\1\5\0\0\0\1\x7f\xff"]
)
async def test_what_is_no_grpc(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    running = await asyncio.start_server(serve, "127.0.0.1", 0)
    found = await ask(running.sockets[0].getsockname()[1], "")
    running.close()
    assert found.result is Result.FAILURE and found.output.startswith("error: health rpc probe failed")


def test_headers_in_every_form() -> None:
    block = bytes.fromhex("88 3fe11f 40 88 9acac8b21234da8f 01 30 0f10 02 6162".replace(" ", ""))
    assert list(headers(block)) == [(bytes.fromhex("9acac8b21234da8f"), b"0"), (b"", b"ab")]


def test_codes_plain_and_coded() -> None:
    assert [_code(text) for text in (b"0", b"12", b"\x67", b"\x08\xbf", b"")] == [0, 12, 3, 12, 2]
