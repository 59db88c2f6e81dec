"""A server whose configuration of authentication changes while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from polder.main import reauthentication
from polder.main.config import VERSION, ServerConfig, load
from polder.main.server import Server
from polder.store.memory import MemoryStore
from tests.contract.test_rollover import Platform, free_port

SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
TOTAL = "apiserver_authentication_config_controller_automatic_reloads_total"
BASE: tuple[Any, ...] = (
    {"type": "Certificate"},
    {"type": "ServiceAccount"},
    {"type": "Anonymous", "paths": ["/readyz"]},
)


class Configured:
    """The server's file, and what a caller with a token is told."""

    def __init__(self, folder: Path) -> None:
        self.port, self.path, self.tokens = free_port(), folder / "server.yaml", folder / "tokens"
        self.tokens.write_text("first,ann,1\n")
        self.write(*BASE, {"type": "TokenFile", "file": str(self.tokens)})
        self.platform: Any = None

    def write(self, *methods: Any) -> None:
        document = {
            "apiVersion": VERSION, "kind": "ServerConfig", "listen": [f"127.0.0.1:{self.port}"], "store": "memory",
            "pki": str(self.path.parent / "pki"), "authentication": list(methods),
        }  # fmt: skip
        fresh = self.path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(document))
        fresh.replace(self.path)

    async def call(self, method: str, path: str, body: Any = None, token: str = "", pair: Any = None) -> Any:
        import ssl

        import aiohttp

        context = ssl.create_default_context(cadata=self.platform.pki.trust)
        if pair is not None:
            context.load_cert_chain(*pair)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers) as session,
            session.request(method, f"https://127.0.0.1:{self.port}{path}", json=body) as answer,
        ):
            return answer.status, await answer.text()

    async def who(self, token: str) -> int:
        """The status of a question who one is."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        status, _ = await self.call("POST", SELF, body, token)
        return int(status)

    async def counted(self, status: str) -> int:
        pair = self.platform.write(self.platform.leaf())
        _, text = await self.call("GET", "/metrics", pair=pair)
        found = [line for line in text.splitlines() if line.startswith(f'{TOTAL}{{status="{status}"}}')]
        return int(found[0].split()[-1]) if found else 0

    async def until(self, what: Callable[[], Awaitable[bool]]) -> None:
        await self.platform.until(what)

    async def is_known(self, token: str) -> None:
        async def known() -> bool:
            return await self.who(token) == 201

        await self.until(known)


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Configured]:
    monkeypatch.setattr(reauthentication, "POLL", 0.05)
    made, store = Configured(tmp_path), MemoryStore()
    task = asyncio.create_task(Server(load(made.path, ServerConfig), store, made.path).run())
    made.platform = Platform(tmp_path, made.port)

    async def up() -> bool:
        assert not task.done(), task
        try:
            return bool((await made.call("GET", "/readyz"))[0] == 200)
        except OSError:
            return False

    await made.until(up)
    yield made
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await store.close()


async def test_a_file_that_is_named_is_read_again(server: Configured) -> None:
    assert (await server.who("first"), await server.who("second")) == (201, 401)
    server.tokens.write_text("second,bob,2\n")
    await server.is_known("second")
    assert await server.who("first") == 401
    assert await server.counted("success") == 1


async def test_another_list_is_taken_over_whole_and_a_bad_one_not_at_all(server: Configured) -> None:
    other = server.tokens.with_name("others")
    other.write_text("third,eve,3\n")
    server.write(*BASE, {"type": "TokenFile", "file": str(other)})
    await server.is_known("third")
    assert await server.who("first") == 401
    for number, bad in enumerate((
        [*BASE, {"type": "TokenFile", "file": str(other)}, {"type": "Fortune"}],
        [*BASE, {"type": "TokenFile", "file": "/nowhere"}],
        [*BASE, {"type": "OpenIDConnect", "jwt": [{"issuer": {"url": "http://x", "audiences": ["a"]},
                                                   "claimMappings": {"username": {"claim": "sub", "prefix": ""}}}]}],
    ), 1):  # fmt: skip
        server.write(*bad)

        async def refused(number: int = number) -> bool:
            return await server.counted("failure") == number

        await server.until(refused)
        assert await server.who("third") == 201, "the old configuration stays"
    server.path.write_bytes(b"\xff\xfe nothing that is read")
    os.kill(os.getpid(), signal.SIGHUP)  # read at once

    async def refused_again() -> bool:
        return await server.counted("failure") >= 4

    await server.until(refused_again)
    assert await server.who("third") == 201
    server.write(*BASE)

    async def gone() -> bool:
        return await server.who("third") == 401

    await server.until(gone)


async def test_what_appears_later_under_a_name_that_was_refused_is_taken_over(server: Configured) -> None:
    late = server.tokens.with_name("late")
    server.write(*BASE, {"type": "TokenFile", "file": str(late)})

    async def refused() -> bool:
        return await server.counted("failure") == 1

    await server.until(refused)
    late.write_text("fourth,zoe,4\n")
    await server.is_known("fourth")
