"""Sizes, EDNS, refusals and ready answers; the codec against dnspython on whatever bytes."""

from __future__ import annotations

import contextlib

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polder.dns import facts
from polder.dns.resolver import Waiting
from polder.dns.wire import MalformedError, parse_query
from tests.unit.dns.kit import answered, ip, query, resolver, texts

NAME = "web.default.svc.cluster.local."


def big(count: int = 200) -> facts.Slice:
    return facts.Slice(
        "acme", "default/many-1", "many", tuple((ip(f"10.1.{n // 256}.{n % 256}"), "") for n in range(count))
    )


def test_what_does_not_fit_is_cut_and_told() -> None:
    made = resolver(facts.Service("acme", "default/many"), big())
    name = "many.default.svc.cluster.local."
    for options, limit in (({}, 512), ({"use_edns": 0, "payload": 900}, 900), ({"use_edns": 0, "payload": 4096}, 1232)):
        data = made.answer(query(name, **options).to_wire(), 0.0)
        assert isinstance(data, bytes)
        assert limit - 16 < len(data) <= limit
        found = dns.message.from_wire(data)
        assert found.flags & dns.flags.TC
        assert texts(found)
    whole = answered(made, name, stream=True)
    assert len(texts(whole)) == 200
    assert not whole.flags & dns.flags.TC


def test_the_order_of_addresses_turns() -> None:
    made = resolver(facts.Service("acme", "default/many"), big(4))
    data = query("many.default.svc.cluster.local.").to_wire()
    first = made.answer(data, 0.0)
    ready = made.ready.held[data[2:]]
    assert isinstance(first, bytes)
    assert ready.others is not None
    orders = [first[2:]] + [next(ready.others) for _ in range(4)]
    leading = [next(iter(dns.message.from_wire(b"\0\0" + tail).answer[0])).address for tail in orders]
    assert leading == ["10.1.0.0", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.0"]


def test_edns_is_answered_with_our_size_and_no_option() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    found = answered(resolver(), NAME, use_edns=0, payload=4096, options=[cookie], want_dnssec=True)
    assert (found.edns, found.payload, found.options) == (0, 1232, ())
    assert found.ednsflags & dns.flags.DO
    assert answered(resolver(), NAME).edns == -1
    later = resolver().answer(query(NAME, use_edns=7).to_wire(), 0.0)
    assert isinstance(later, bytes)
    assert dns.message.from_wire(later).rcode() == dns.rcode.BADVERS


def test_what_is_no_question_of_ours_is_refused() -> None:
    made = resolver()
    good = query(NAME).to_wire()
    assert made.answer(good[:11], 0.0) is None
    assert made.answer(good[:2] + b"\x81\x80" + good[4:], 0.0) is None, "answers are never answered"
    for data, rcode in (
        (good[:2] + b"\x21\x00" + good[4:], dns.rcode.NOTIMP),
        (good[:-1], dns.rcode.FORMERR),
        (good[:4] + b"\0\2" + good[6:], dns.rcode.FORMERR),
        (good[:12] + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),
        (good[:-2] + b"\0\3", dns.rcode.REFUSED),
        (query(NAME, "AXFR").to_wire(), dns.rcode.REFUSED),
    ):
        found = made.answer(data, 0.0)
        assert isinstance(found, bytes)
        assert found[:2] == data[:2]
        assert found[3] & 0xF == rcode


def test_a_ready_answer_is_the_answer() -> None:
    made = resolver()
    for name in (NAME, "nobody.default.svc.cluster.local."):
        data = query(name, use_edns=0).to_wire()
        first = made.answer(data, 0.0)
        assert isinstance(first, bytes)
        assert data[:2] + made.ready.held[data[2:]].tail == first
    made.changed()
    assert not made.ready.held


def test_memory_is_bounded() -> None:
    made = resolver()
    made.limit(20_000)
    for number in range(500):
        made.answer(query(f"n{number}.default.svc.cluster.local.").to_wire(), 0.0)
        assert made.ready.used <= 20_000
    assert 10 < len(made.ready.held) < 60


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_no_bytes_break_it(data: bytes) -> None:
    found = resolver().answer(data, 0.0)
    if isinstance(found, bytes):
        assert found[:2] == data[:2]
        dns.message.from_wire(found)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_dnspython_reads_is_read_alike(data: st.DataObject) -> None:
    """A query that was damaged anywhere is read as dnspython reads it, or not at all."""
    label = st.binary(min_size=1, max_size=63)
    labels = data.draw(st.lists(label, min_size=1, max_size=3))
    asked = dns.message.make_query(
        dns.name.Name([*labels, b""]), data.draw(st.integers(1, 255)), use_edns=data.draw(st.sampled_from([None, 0]))
    )
    wire = bytearray(asked.to_wire())
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(wire) - 1), st.integers(0, 255)), max_size=2)):
        wire[at] = byte
    with contextlib.suppress(MalformedError):
        ours = parse_query(bytes(wire))
        try:
            theirs = dns.message.from_wire(bytes(wire), ignore_trailing=True, one_rr_per_rrset=True)
        except dns.exception.DNSException:
            return  # it reads options, which we do not look into
        (question,) = theirs.question
        assert ours.labels == tuple(part.lower() for part in question.name.labels[:-1])
        assert (ours.kind, ours.id, ours.edns) == (question.rdtype, theirs.id, theirs.edns >= 0)


@pytest.mark.parametrize("kind", ["A", "AAAA", "SRV", "PTR", "TXT", "MX"])
def test_another_tenants_name_is_answered_as_one_that_never_was(kind: str) -> None:
    """Byte for byte: the tenant's own zone is all that is looked at."""
    mine, alone = resolver(), resolver()
    other = resolver(facts.Service("rival", "default/secret", (ip("10.96.7.7"),)))
    asked = query("secret.default.svc.cluster.local.", kind)
    assert not isinstance(other.answer(asked.to_wire(), 0.0), Waiting)
    assert mine.answer(asked.to_wire(), 0.0) == alone.answer(asked.to_wire(), 0.0)
    assert mine.answer(asked.to_wire(), 0.0) != other.answer(asked.to_wire(), 0.0) or kind != "A"
