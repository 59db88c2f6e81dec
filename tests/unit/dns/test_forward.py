"""Asking servers that answer late, wrongly, in part or not at all."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from polder.dns.forward import TENANT_LIMIT, Forwarder, Question, UnansweredError, Upstream, upstream_of
from polder.dns.resolver import Waiting
from tests.unit.dns.kit import query, resolver, texts

QUESTION = Question((b"www", b"example", b"com"), 1, 1, False, False)
Behave = Callable[[bytes], list[bytes]]


def good(data: bytes, address: str = "192.0.2.1") -> bytes:
    made = dns.message.make_response(dns.message.from_wire(data))
    name = made.question[0].name.to_text()
    made.answer.append(dns.rrset.from_text(name, 60, "IN", "A", address))
    return made.to_wire()


def failing(data: bytes) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(data))
    made.set_rcode(dns.rcode.SERVFAIL)
    return made.to_wire()


def cut(data: bytes) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(data))
    made.flags |= dns.flags.TC
    return made.to_wire()


class Server(asyncio.DatagramProtocol):
    """Answers each question with what ``behave`` gives."""

    def __init__(self, behave: Behave) -> None:
        self.behave = behave
        self.peers: list[int] = []
        self.ids: list[bytes] = []
        self.streams = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.peers.append(addr[1])
        self.ids.append(data[:2])
        for answer in self.behave(data):
            self.transport.sendto(answer, addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        answer = good(data, "192.0.2.9")
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()


@asynccontextmanager
async def serving(behave: Behave) -> AsyncIterator[tuple[Server, Upstream]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: Server(behave), ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    listener = await asyncio.start_server(server.stream, "127.0.0.1", port)
    try:
        yield server, Upstream("127.0.0.1", port)
    finally:
        transport.close()
        listener.close()
        await listener.wait_closed()


async def test_an_answer_comes_and_each_question_is_its_own() -> None:
    async with serving(lambda data: [good(data)]) as (server, at):
        forwarder = Forwarder([at])
        for number in range(20):
            found = await forwarder.ask("acme", QUESTION._replace(labels=(b"n%d" % number, b"example")))
            assert found.rcode == 0
        assert len(set(server.peers)) > 15
        assert len(set(server.ids)) > 15


async def test_forged_answers_are_passed_over() -> None:
    def behave(data: bytes) -> list[bytes]:
        other = bytes((data[0] ^ 1,)) + data[1:]
        return [b"", b"\0" * 40, good(other, "6.6.6.6"), good(data.replace(b"www", b"xxx"), "6.6.6.6"), good(data)]

    async with serving(behave) as (_, at):
        found = await Forwarder([at]).ask("acme", QUESTION)
        assert found.body[-4:] == bytes((192, 0, 2, 1))


async def test_a_cut_answer_is_asked_for_again_over_tcp() -> None:
    async with serving(lambda data: [cut(data)]) as (server, at):
        found = await Forwarder([at]).ask("acme", QUESTION)
        assert found.body[-4:] == bytes((192, 0, 2, 9))
        assert server.streams == 1


async def test_the_next_server_is_asked_where_one_is_silent_away_or_fails() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        away = Upstream("127.0.0.1", probe.getsockname()[1])
    async with serving(lambda _: []) as (_, silent), serving(lambda d: [failing(d)]) as (_, broken):
        async with serving(lambda data: [good(data)]) as (_, at):
            for bad in (silent, away, broken):
                begun = time.monotonic()
                assert (await Forwarder([bad, at], patience=0.2).ask("acme", QUESTION)).rcode == 0
                assert time.monotonic() - begun < 1
        with pytest.raises(UnansweredError):
            await Forwarder([silent, broken], patience=0.05).ask("acme", QUESTION)
    with pytest.raises(UnansweredError):
        await Forwarder().ask("acme", QUESTION)


async def test_what_is_under_way_is_bounded_for_each_tenant_and_asked_once() -> None:
    async with serving(lambda _: []) as (server, at):
        forwarder = Forwarder([at], patience=0.5, tries=1)
        asks = [forwarder.ask("acme", QUESTION._replace(labels=(b"n%d" % n,))) for n in range(TENANT_LIMIT + 20)]
        same = [forwarder.ask("globex", QUESTION) for _ in range(10)]
        begun = time.monotonic()
        found = await asyncio.gather(*asks, *same, return_exceptions=True)
        assert all(isinstance(one, UnansweredError) for one in found)
        assert len(server.peers) == TENANT_LIMIT + 1, "what two ask at a time is asked once"
        assert time.monotonic() - begun < 2
        assert not forwarder._counts
        assert not forwarder._under_way


async def test_an_answer_is_remembered_until_it_is_too_old() -> None:
    async with serving(lambda data: [good(data)]) as (server, at):
        made = resolver()
        made.forwarder.upstreams = [at]
        asked = query("www.example.com.", use_edns=0).to_wire()
        waiting = made.answer(asked, 0.0)
        assert isinstance(waiting, Waiting)
        now = 100.0
        await made.finish(waiting, lambda: now)
        for age in (0.5, 10.2, 59.9):
            found = made.answer(asked, now + age)
            assert isinstance(found, bytes)
            message = dns.message.from_wire(found)
            assert message.answer[0].ttl == 60 - int(age)
            assert made.ready.held[asked[2:]].until == now + int(age) + 1
        assert isinstance(made.answer(asked, now + 60.1), Waiting)
        assert len(server.peers) == 1


async def test_another_name_brings_what_it_stands_for() -> None:
    async with serving(lambda data: [good(data)]) as (_, at):
        made = resolver()
        made.forwarder.upstreams = [at]
        waiting = made.answer(query("far.default.svc.cluster.local.").to_wire(), 0.0)
        assert isinstance(waiting, Waiting)
        message = dns.message.from_wire(await made.finish(waiting, lambda: 0.0))
        far = "far.default.svc.cluster.local."
        assert texts(message) == {f"{far} CNAME www.example.com.", "www.example.com. A 192.0.2.1"}
        made.forwarder.upstreams = []
        waiting = made.answer(query("far.default.svc.cluster.local.", "AAAA").to_wire(), 0.0)
        assert isinstance(waiting, Waiting)
        assert dns.message.from_wire(await made.finish(waiting, lambda: 0.0)).rcode() == dns.rcode.SERVFAIL


def test_addresses_of_servers() -> None:
    assert upstream_of("192.0.2.1") == Upstream("192.0.2.1", 53)
    assert upstream_of("2001:db8::1#5353") == Upstream("2001:db8::1", 5353)
    for wrong in ("example.com", "192.0.2.1:53", "192.0.2.1#x", ""):
        with pytest.raises(ValueError):
            upstream_of(wrong)
