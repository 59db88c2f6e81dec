"""What the process does with what the agent says, with real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.message
import dns.rcode
import pytest

from polder.dns import facts, server
from polder.dns.door import CONNECTIONS
from polder.dns.forward import Forwarder
from polder.dns.server import Server
from tests.unit.dns.kit import ip, query, some_facts, texts

NAME = "web.default.svc.cluster.local."
GLOBEX = "10.96.0.99"


def pair(address: str = "127.0.0.1", port: int = 0) -> list[socket.socket]:
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (udp, tcp):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            tcp.bind((address, port))
            udp.bind((address, tcp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            continue  # somebody has the port for the other kind
        tcp.listen(64)
        return [udp, tcp]


async def tell(made: Server, *messages: facts.Message) -> None:
    for message in messages:
        await made.take(message, [])


def globex() -> list[facts.AnyFact]:
    changed = facts.Service("globex", "default/web", (ip(GLOBEX),), (("http", "tcp", 80),))
    return [*(fact for fact in some_facts("globex") if fact.key != "default/web"), changed]


@pytest.fixture
async def made() -> AsyncIterator[Server]:
    one = Server(Forwarder())
    yield one
    await one.close()


async def ask(port: int, source: str = "127.0.0.1", seconds: float = 2.0) -> set[str] | None:
    """The answers; None where there is no answer in time."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.send(query(NAME).to_wire())
        try:
            async with asyncio.timeout(seconds):
                return texts(dns.message.from_wire(await loop.sock_recv(sock, 4096)))
        except TimeoutError:
            return None


async def test_nothing_is_answered_before_all_is_known_and_then_what_has_waited(made: Server) -> None:
    sockets = pair()
    port = sockets[0].getsockname()[1]
    await tell(made, facts.Begin())
    await made.take(facts.Listen("acme", "acme", ip("10.96.0.10")), sockets)
    asked = asyncio.create_task(ask(port))
    await asyncio.sleep(0.1)
    await tell(made, *some_facts())
    await asyncio.sleep(0.1)
    assert not asked.done()
    await tell(made, facts.End())
    assert await asked == {f"{NAME} A 10.96.0.20"}


async def test_a_new_tenants_questions_wait_for_its_names_but_not_for_ever(
    made: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE", 0.3)
    await tell(made, facts.Begin(), facts.End())
    sockets = pair()
    port = sockets[0].getsockname()[1]
    await made.take(facts.Listen("acme", "acme", b""), sockets)
    asked = asyncio.create_task(ask(port))
    await asyncio.sleep(0.1)
    await tell(made, *some_facts())
    assert await asked == {f"{NAME} A 10.96.0.20"}
    bare = pair()
    await made.take(facts.Listen("bare", "bare", b""), bare)
    assert await ask(bare[0].getsockname()[1], seconds=0.15) is None
    assert await ask(bare[0].getsockname()[1]) == set(), "its names never came: there are none"


async def test_what_is_not_told_again_is_gone_and_leaves_nothing(made: Server) -> None:
    sockets = pair()
    port = sockets[0].getsockname()[1]
    listen = facts.Listen("acme", "acme", b"")
    await tell(made, facts.Begin(), *some_facts(), *globex())
    await made.take(listen, sockets)
    await tell(made, facts.End())
    assert await ask(port)
    more = [fact for fact in some_facts() if fact.key != "default/web"]
    await tell(made, facts.Begin(), *more)
    assert await ask(port), "all is answered as before until all has been told"
    await made.take(listen, pair(port=port))
    assert await ask(port), "the new sockets are read at once"
    await tell(made, facts.End())
    assert await ask(port) == set()
    assert list(made._resolvers) == ["acme"]
    await tell(made, *(facts.Gone("acme", fact.key, type(fact).__name__) for fact in more), facts.Leave("acme"))
    assert not made._resolvers
    assert not made._doors
    assert not made._timers


async def test_a_shared_door_decides_by_who_asks(made: Server) -> None:
    sockets = pair()
    port = sockets[0].getsockname()[1]
    sources = facts.Sources({ip("127.0.0.2"): "acme", ip("127.0.0.3"): "globex"})
    await tell(made, facts.Begin(), sources, *some_facts(), *globex())
    await made.take(facts.Listen(".", "", b""), sockets)
    await tell(made, facts.End())
    assert await ask(port, "127.0.0.2") == {f"{NAME} A 10.96.0.20"}
    assert await ask(port, "127.0.0.3") == {f"{NAME} A {GLOBEX}"}
    assert await ask(port, "127.0.0.4", seconds=0.2) is None, "nobody's"
    await tell(made, facts.Sources({ip("127.0.0.2"): "globex"}))
    assert await ask(port, "127.0.0.2") == {f"{NAME} A {GLOBEX}"}
    assert await ask(port, "127.0.0.3", seconds=0.2) is None


async def test_streams_are_bounded_and_bad_ones_end(made: Server) -> None:
    sockets = pair()
    port = sockets[0].getsockname()[1]
    await tell(made, facts.Begin(), *some_facts())
    await made.take(facts.Listen("acme", "acme", b""), sockets)
    await tell(made, facts.End())
    data = query(NAME).to_wire()
    framed = len(data).to_bytes(2, "big") + data
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    for reader, writer in held[:2]:
        writer.write(framed * 3)
        for _ in range(3):
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            assert dns.message.from_wire(answer).rcode() == dns.rcode.NOERROR
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(framed)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await reader.readexactly(2)
    writer.close()
    held[0][1].write(b"\xff\xff")
    assert await held[0][0].read() == b"", "a question longer than any is not read"
    for _, writer in held:
        writer.close()
