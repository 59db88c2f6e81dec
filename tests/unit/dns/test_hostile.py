"""What a tenant or an outside server may write to make one answer dear: all tenants of the node wait while it is made."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from polder.api.discovery import Endpoint, EndpointPort, EndpointSlice
from polder.api.meta import ObjectMeta
from polder.base.ids import TenantName
from polder.base.ref import Ref
from polder.dns import facts
from polder.dns.channel import LARGEST, Channel
from polder.dns.feed import slice_fact
from polder.dns.link import Link, LinkSettings
from polder.dns.message import read_answer, records_of
from polder.dns.wire import MalformedError, encode_name
from tests.unit.dns.kit import TENANT, answered, ip, query, resolver, texts

DEAR = 0.03
"""Seconds of CPU; each of these answers took 60 to 250 ms before it was bounded."""


def cost(work: Callable[[], object]) -> float:
    """The CPU time of the best of three."""
    found = []
    for _ in range(3):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return min(found)


def answer_with(records: bytes, count: int, name: tuple[bytes, ...]) -> bytes:
    head = struct.pack("!HHHHHH", 1, 0x8180, 1, count, 0, 0)
    return head + encode_name(name) + struct.pack("!HH", 1, 1) + records


FIXED = struct.pack("!HHIH", 1, 1, 60, 4) + b"\1\2\3\4"


def test_names_of_many_labels_are_read_once_each() -> None:
    name = tuple(b"a" for _ in range(120))
    data = answer_with((b"\xc0\x0c" + FIXED) * 4000, 4000, name)
    held = read_answer(data)
    assert len(held.ends) == 4000
    assert {record.owner for record in records_of(held)} == {name}
    assert cost(lambda: read_answer(data)) < DEAR


def test_pointers_lead_backwards_and_names_stay_within_their_length() -> None:
    name = (b"a" * 60, b"b" * 60, b"c" * 60)
    start = 12 + len(encode_name(name)) + 4
    with pytest.raises(MalformedError, match="backwards"):
        read_answer(answer_with((0xC000 | start).to_bytes(2, "big") + FIXED, 1, name))
    long = (b"\x3c" + b"d" * 60) + b"\xc0\x0c" + FIXED  # 61 more are 245 in all, which is still a name
    assert read_answer(answer_with(long, 1, name)).counts == (1, 0, 0)
    twice = long + b"\x3c" + b"e" * 60 + (0xC000 | start).to_bytes(2, "big") + FIXED
    with pytest.raises(MalformedError, match="too long"):
        read_answer(answer_with(twice, 2, name))


def crowd(addresses: Callable[[int], bytes], hostname: Callable[[int], str]) -> list[facts.Slice]:
    return [
        facts.Slice(
            TENANT,
            f"default/many-{number}",
            "many",
            tuple((addresses(n), hostname(n)) for n in range(number * 1000, number * 1000 + 1000)),
        )
        for number in range(100)
    ]


def test_an_address_with_a_hundred_thousand_names_costs_what_an_answer_can_hold() -> None:
    made = resolver(facts.Service(TENANT, "default/many"), *crowd(lambda _: ip("10.9.9.9"), lambda n: f"h{n}"))
    assert texts(answered(made, "9.9.9.10.in-addr.arpa.", "PTR"))
    asked = query("9.9.9.10.in-addr.arpa.", "PTR").to_wire()

    def ask() -> None:
        made.changed()
        made.answer(asked, 0.0)

    assert cost(ask) < DEAR


def test_a_service_with_a_hundred_thousand_endpoints_costs_what_an_answer_can_hold() -> None:
    made = resolver(facts.Service(TENANT, "default/many"), *crowd(lambda n: struct.pack("!I", n), lambda _: ""))
    asked = query("many.default.svc.cluster.local.").to_wire()

    def ask() -> None:
        made.changed()
        made.answer(asked, 0.0)

    assert cost(ask) < DEAR


def test_the_largest_slice_that_the_api_takes_fits_into_a_message() -> None:
    """One that did not would end the connection for all tenants, again and again."""
    many = EndpointSlice(
        metadata=ObjectMeta(name="big", labels={"kubernetes.io/service-name": "many"}),
        endpoints=[
            Endpoint(addresses=[f"fd00::{n:x}:{at:x}" for at in range(100)], hostname="h" * 63) for n in range(1000)
        ],
        ports=[EndpointPort(name=f"p{n:062}", port=1, protocol="SCTP") for n in range(20000)],
    )
    fact = slice_fact(Ref(TenantName(TENANT), "n" * 63, "s" * 253), many)
    assert fact is not None
    assert len(fact.endpoints) == 1000
    assert fact.ports
    assert len(facts.encode(fact)) < LARGEST


async def test_a_fact_that_is_too_large_is_left_out_and_the_others_come() -> None:
    async def none(*_: object) -> tuple[socket.socket, socket.socket]:
        raise OSError

    link = Link(LinkSettings(Path("unused")), none)
    link.put(facts.Pod(TENANT, "default/huge", (bytes(16),) * (LARGEST // 16)))
    link.put(facts.Pod(TENANT, "default/small", (ip("10.0.0.5"),)))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there = Channel(theirs)
    channel = Channel(ours)
    telling = asyncio.create_task(link._tell(channel))
    try:
        found = [(await there.receive() or (None,))[0] for _ in range(5)]
    finally:
        telling.cancel()
        channel.close()
        there.close()
    assert found == [
        facts.Begin(),
        facts.Sources({}),
        facts.Gone(TENANT, "default/huge", "Pod"),
        facts.Pod(TENANT, "default/small", (ip("10.0.0.5"),)),
        facts.End(),
    ]
