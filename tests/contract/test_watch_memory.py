"""What a watcher that does not read costs, however large the events and however many there are at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polder.apiserver import watches
from polder.apiserver.watch_frames import SHARED_BYTES
from tests.contract.conftest import Api, Running

MAPS = "/api/v1/namespaces/default/configmaps"
LARGE = 200_000


async def make(api: Api, name: str, size: int = LARGE) -> int:
    made = await api.post(MAPS, {"metadata": {"name": name}, "data": {"x": "y" * size}})
    assert made.status == 201, made.body
    return int(made.json["metadata"]["resourceVersion"])


async def patch(api: Api, name: str, text: str) -> None:
    assert (await api.patch(f"{MAPS}/{name}", {"data": {"x": text}})).status == 200


@contextlib.asynccontextmanager
async def deaf(running: Running, path: str) -> AsyncIterator[Any]:
    """A watch by a tenant's admin, of which nothing is read: the server's end of it."""
    context = ssl.create_default_context(cafile=str(running.pki.serving_ca))
    leaf = await running.tenant_leaf("acme")
    leaf.write(running.folder / "w.crt", running.folder / "w.key")
    context.load_cert_chain(running.folder / "w.crt", running.folder / "w.key")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", running.port))
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=1024))
    before = set(connections(running))
    transport, _ = await loop.create_connection(lambda: protocol, sock=raw, ssl=context, server_hostname="127.0.0.1")
    transport.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    transport.pause_reading()
    try:
        async with asyncio.timeout(5):
            while not (new := set(connections(running)) - before):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
        (found,) = new
        yield found
    finally:
        transport.abort()


def connections(running: Running) -> list[Any]:
    server = running.api._listener._server
    assert server is not None
    return server.connections


def unread(connection: Any) -> int:
    return connection.transport.get_write_buffer_size() if connection.transport is not None else 0


@pytest.fixture
async def acme(running: Running, admin: Api) -> Api:
    assert (await admin.post("/apis/polder.dev/v1alpha1/tenants", {"metadata": {"name": "acme"}})).status == 201
    return await running.tenant_admin("acme")


async def test_a_batch_of_large_events_does_not_fill_a_buffer(running: Running, acme: Api) -> None:
    first = await make(acme, "big0")
    for number in range(1, 40):
        await make(acme, f"big{number}")
    async with deaf(running, f"{MAPS}?watch=1&resourceVersion={first}") as connection:
        most = 0
        for _ in range(40):
            most = max(most, unread(connection))
            await asyncio.sleep(0.02)
        assert 0 < most < 2.5 * LARGE, most
        assert 1 <= len(running.api._watches._frames._shown) < 6, "what nobody reads is not even made"


async def test_what_is_read_slowly_arrives_whole_and_in_order(running: Running, acme: Api) -> None:
    first = await make(acme, "big0")
    last = [await make(acme, f"n{number}", LARGE if number % 3 else 100) for number in range(30)][-1]
    query = f"watch=1&resourceVersion={first}&allowWatchBookmarks=true"
    seen: list[int] = []
    async with acme.watch(f"{MAPS}?{query}") as stream:
        while not seen or seen[-1] < last:
            line = json.loads(await stream.content.readline())
            revision = int(line["object"]["metadata"]["resourceVersion"])
            assert not seen or revision > seen[-1] or line["type"] == "BOOKMARK", (seen, line["type"])
            assert not seen or revision >= seen[-1], "a bookmark never goes back"
            if line["type"] != "BOOKMARK":
                seen.append(revision)
            await asyncio.sleep(0.02)
    assert len(seen) == 30


async def test_who_does_not_read_is_cut_off_and_the_tenant_has_few_such(
    running: Running, acme: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "PATIENCE", 0.3)
    monkeypatch.setattr(watches, "STALL_LIMIT", 4.0)
    first = await make(acme, "big")
    async with contextlib.AsyncExitStack() as stack:
        path = f"{MAPS}?watch=1&resourceVersion={first}"
        slow = [await stack.enter_async_context(deaf(running, path)) for _ in range(24)]
        keen = await stack.enter_async_context(acme.watch(f"{MAPS}?watch=1&resourceVersion={first}&timeoutSeconds=19"))
        for number in range(3):
            await patch(acme, "big", str(number) * LARGE)
            assert (await make(acme, f"more{number}")) > first, "nothing else of the tenant waits for them"
            if number == 0:
                assert json.loads(await keen.content.readline())["type"] == "MODIFIED"
        await fewer(running, 17, 3.0)  # those that hold what they do not read, and the one that reads
        assert sum(c.transport is not None for c in slow) > 8, "they have a little longer"
        await fewer(running, 1, 8.0)
        assert all(c.transport is None for c in slow)


async def fewer(running: Running, left: int, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while running.api._watches.count > left:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)


async def test_what_watchers_share_is_bounded_in_bytes(running: Running, acme: Api) -> None:
    frames = running.api._watches._frames
    query = "watch=1&labelSelector=a%21%3Db&timeoutSeconds=20"
    first = await make(acme, "big", 100)
    async with acme.watch(f"{MAPS}?{query}&resourceVersion={first}") as stream:
        for number in range(30):
            await patch(acme, "big", f"{number:02}" * 250_000)
            await stream.content.readline()
            assert frames.size <= SHARED_BYTES
    assert frames.size == sum(shown.size for shown in frames._shown.values()) > SHARED_BYTES / 4
