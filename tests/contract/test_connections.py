"""How many connections and handshakes one source may have, on real sockets: others are served all the same.

What comes from 127.0.0.1 comes from the machine itself; 127.0.0.2 and 127.0.0.3 are two sources of the network.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from polder.apiserver.gate import Doors, Limits, Room, Waiter, source_of
from polder.apiserver.listener import Listener
from polder.base.ids import TenantName
from polder.system.pki import Pki, ensure_pki, server_context

SMALL = Limits(connections=12, each=8, handshakes=4, handshakes_each=2)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def pki(tmp_path: Any) -> Pki:
    return ensure_pki(tmp_path / "pki")


class Front:
    """A listener with small limits; ``/watch`` goes on until it is lost."""

    def __init__(self, pki: Pki, doors: Doors) -> None:
        self.serving = server_context(pki.issue_serving(["localhost"], ["127.0.0.1"]), pki.clients_ca)
        self.serving.verify_mode = ssl.CERT_OPTIONAL
        self.trusting = ssl.create_default_context(cafile=str(pki.serving_ca))
        self.listener = Listener(self._answer, doors)
        self.port = 0

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"hello\n")
        if request.path == "/watch":
            await asyncio.sleep(3600)
        return response

    async def silent(self, source: str) -> Streams:
        """A connection on which nothing is said."""
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0))

    async def secure(self, source: str) -> Streams:
        return await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0), ssl=self.trusting, server_hostname="localhost"
        )

    async def ask(self, streams: Streams, path: str = "/") -> bytes:
        reader, writer = streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await reader.readuntil(b"hello")


def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    writer.transport.abort()


@asynccontextmanager
async def front(pki: Pki, doors: Doors) -> AsyncIterator[tuple[Front, Callable[[Streams], Streams]]]:
    made = Front(pki, doors)
    made.port = await made.listener.start("127.0.0.1", 0, made.serving)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.listener.stop, 0.1)

        def keep(streams: Streams) -> Streams:
            stack.callback(end, streams[1])
            return streams

        yield made, keep


async def ended(streams: Streams, seconds: float = 3.0) -> bool:
    """Whether the server ends the connection within the time."""
    try:
        async with asyncio.timeout(seconds):
            return await streams[0].read() == b""
    except TimeoutError:
        return False
    except OSError:
        return True


async def test_a_source_has_so_many_connections_and_no_more(pki: Pki) -> None:
    async with asyncio.timeout(10), front(pki, Doors(network=SMALL)) as (made, keep):
        mine = [keep(await made.silent("127.0.0.2")) for _ in range(30)]
        other = keep(await made.secure("127.0.0.3"))
        assert b"200 OK" in await made.ask(other)
        local = keep(await made.secure("127.0.0.1"))
        assert b"200 OK" in await made.ask(local)
        over = await asyncio.gather(*(ended(streams, 1.0) for streams in mine))
        assert sum(not e for e in over) == SMALL.each
        assert b"200 OK" in await made.ask(other), "nothing of that ends another's"


async def test_handshakes_of_one_source_wait_for_each_other_and_for_nobody_else(pki: Pki) -> None:
    async with asyncio.timeout(10), front(pki, Doors(network=SMALL, handshake=1.5)) as (made, keep):
        loop = asyncio.get_running_loop()
        stuck = [keep(await made.silent("127.0.0.2")) for _ in range(SMALL.handshakes_each)]
        await asyncio.sleep(0.1)
        began = loop.time()
        waiting = asyncio.ensure_future(made.secure("127.0.0.2"))
        assert b"200 OK" in await made.ask(keep(await made.secure("127.0.0.3")))
        assert loop.time() - began < 1.0 and not waiting.done()
        assert all(await asyncio.gather(*map(ended, stuck)))
        assert b"200 OK" in await made.ask(keep(await waiting))
        assert 1.0 < loop.time() - began < 3.0


async def test_times_to_shake_hands_and_to_ask_are_bounded(pki: Pki) -> None:
    doors = Doors(network=SMALL, waiting=0.5, handshake=1.0, first_request=0.5)
    async with asyncio.timeout(10), front(pki, doors) as (made, keep):
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        silent = [keep(await made.silent("127.0.0.2")) for _ in range(4)]
        quiet, half = keep(await made.secure("127.0.0.3")), keep(await made.secure("127.0.0.3"))
        half[1].write(b"GET / HTTP/1.1\r\nHost:")

        async def trickle() -> None:
            while True:
                half[1].write(b"x")
                await asyncio.sleep(0.05)

        trickling = asyncio.ensure_future(trickle())
        assert all(await asyncio.gather(*map(ended, [*silent, quiet, half])))
        assert loop.time() - began < 2.5
        trickling.cancel()
        assert b"200 OK" in await made.ask(keep(await made.secure("127.0.0.2")))


async def test_who_has_most_gives_way_but_nothing_that_is_served(pki: Pki) -> None:
    limits = Limits(connections=8, each=8, handshakes=4, handshakes_each=2)
    async with asyncio.timeout(10), front(pki, Doors(network=limits)) as (made, keep):
        served = [keep(await made.secure("127.0.0.2")) for _ in range(3)]
        for streams in served:
            assert b"200 OK" in await made.ask(streams, "/watch")
        idle = [keep(await made.secure("127.0.0.2")) for _ in range(5)]
        for number in range(2):
            assert b"200 OK" in await made.ask(keep(await made.secure("127.0.0.3")))
            assert await ended(idle[number])
        assert not any(await asyncio.gather(*(ended(streams, 0.2) for streams in (*served, *idle[2:]))))


async def test_connections_that_wait_give_way_too(pki: Pki) -> None:
    limits = Limits(connections=6, each=6, handshakes=4, handshakes_each=2)
    async with asyncio.timeout(10), front(pki, Doors(network=limits)) as (made, keep):
        silent = [keep(await made.silent("127.0.0.2")) for _ in range(6)]
        await asyncio.sleep(0.1)
        assert b"200 OK" in await made.ask(keep(await made.secure("127.0.0.3")))
        assert await ended(silent[2])
        assert not await ended(silent[0], 0.1)


async def test_one_tenants_entries_leave_room_for_another(pki: Pki) -> None:
    async with asyncio.timeout(10), front(pki, Doors(tenants=SMALL)) as (made, _):
        ends: list[socket.socket] = []

        async def enter(tenant: str) -> socket.socket:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            ends.append(ours)
            serving.append(asyncio.ensure_future(made.listener.serve_socket(theirs, made.serving, TenantName(tenant))))
            return ours

        serving: list[asyncio.Future[None]] = []
        for _ in range(30):
            await enter("evil")
        await asyncio.sleep(0.1)
        refused = [s for s in serving if s.done() and isinstance(s.exception(), OSError)]
        assert len(refused) == 30 - SMALL.each
        streams = await asyncio.open_connection(
            sock=await enter("good"), ssl=made.trusting, server_hostname="localhost"
        )
        assert b"200 OK" in await made.ask(streams)
        end(streams[1])
        for one in ends[:30]:
            one.close()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_nothing_stays_open_when_the_server_stops(pki: Pki) -> None:
    """In whatever state the connections are: waiting in the kernel, accepted, shaking hands, or served."""
    for turns in (*range(8), 100):
        made = Front(pki, Doors(network=SMALL))
        made.port = await made.listener.start("127.0.0.1", 0, made.serving)
        async with asyncio.timeout(5):
            streams = await made.secure("127.0.0.2")
            raw = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(6)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await made.listener.stop(0.1)
        with pytest.raises(OSError):
            await made.silent("127.0.0.2")
        for room in (made.listener._local, made.listener._network):
            assert room._total == 0 and not room._open
        for sock in raw:
            sock.close()
        end(streams[1])
    gc.collect()  # a socket that is open says so when it is forgotten, and fails the test


async def test_places_are_given_back() -> None:
    room = Room(SMALL)
    for _ in range(100):
        places = [room.enter(Waiter("a")) for _ in range(SMALL.each)]
        for place in places:
            assert place is not None
            place.leave()
            place.leave()
    assert room._total == 0 and not room._open


async def test_a_source_has_its_share_of_handshakes_in_time() -> None:
    limits = Limits(100, 100, 10, 2, hold=0.1)
    room, loop = Room(limits), asyncio.get_running_loop()
    began = loop.time()

    async def shake() -> None:
        waiter = Waiter("a")
        room.handshakes.give(waiter, await room.handshakes.take(waiter, 5))

    await asyncio.gather(*(shake() for _ in range(10)))
    assert loop.time() - began >= 0.39
    with pytest.raises(TimeoutError):
        for _ in range(3):
            await room.handshakes.take(Waiter("b"), 0.05)


def test_sources() -> None:
    assert source_of(("127.0.0.1", 5), ("127.0.0.1", 6443)) == (True, "127.0.0.1")
    assert source_of(("10.0.0.9", 5), ("10.0.0.9", 6443)) == (True, "10.0.0.9")
    assert source_of(("10.0.0.9", 5), ("10.0.0.1", 6443)) == (False, "10.0.0.9")
    assert source_of(("2001:db8::1:2:3:4", 5, 0, 0), ("2001:db8::9", 1, 0, 0)) == (False, "2001:db8::/64")
    assert source_of(("::ffff:10.0.0.9", 5, 0, 0), ("::ffff:10.0.0.1", 1, 0, 0)) == (False, "10.0.0.9")
    assert source_of(("fe80::1%eth0", 5, 0, 2), ("fe80::2%eth0", 1, 0, 2)) == (False, "fe80::/64")
