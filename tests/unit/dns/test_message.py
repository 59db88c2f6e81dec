"""What upstream servers send: read with distrust, and given to clients as their own questions ask."""

from __future__ import annotations

import contextlib

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polder.dns.message import Held, give, is_answer, question_for, read_answer, records_of
from polder.dns.wire import MalformedError, labels_of, parse_query
from tests.unit.dns.kit import query, texts

NAME = "www.example.com."


def asked(number: int = 7, kind: int = 1) -> bytes:
    labels = labels_of(NAME)
    assert labels is not None
    return question_for(number, labels, kind, 1, (False, False))


def reply(*answers: str, ttl: int = 60, soa: bool = False, question: bytes | None = None) -> bytes:
    made = dns.message.make_response(dns.message.from_wire(question or asked()), our_payload=1400)
    for line in answers:
        owner, kind, data = line.split(" ", 2)
        made.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, data))
    if soa:
        made.authority.append(dns.rrset.from_text("example.com.", 900, "IN", "SOA", "a. b. 1 1 1 1 30"))
    return made.to_wire(max_size=65535)


def held(*answers: str, **more: int) -> Held:
    return read_answer(reply(*answers, **more))


def given_to(found: Held, age: int = 0, limit: int = 1232, name: str = NAME, **options: object) -> dns.message.Message:
    question = query(name, **options)
    data = give(found, parse_query(question.to_wire()), age, limit)
    assert len(data) <= limit
    message = dns.message.from_wire(data)
    assert question.is_response(message)
    return message


def test_only_what_answers_the_question_is_an_answer() -> None:
    good = reply(f"{NAME} A 192.0.2.1")
    assert is_answer(good, asked())
    assert is_answer(good.replace(b"www", b"WwW", 1), asked())
    assert not is_answer(good, asked(8)), "another id"
    assert not is_answer(good, asked(kind=28)), "another type"
    assert not is_answer(good.replace(b"www", b"wxw", 1), asked()), "another name"
    assert not is_answer(asked(), asked()), "a question"
    assert not is_answer(good[:11], asked())


def test_an_answer_ages_and_bears_the_clients_question() -> None:
    found = held(f"{NAME} CNAME x.example.net.", "x.example.net. A 192.0.2.1")
    message = given_to(found, age=20, name="WWW.example.COM.", use_edns=0)
    assert {f"{r.name.to_text().lower()} {r.ttl}" for r in message.answer} == {f"{NAME} 40", "x.example.net. 40"}
    assert message.question[0].name.to_text() == "WWW.example.COM."
    assert (message.edns, message.payload) == (0, 1232)
    assert given_to(found).edns == -1
    assert not message.flags & dns.flags.AA


def test_how_long_answers_are_kept() -> None:
    assert held(f"{NAME} A 192.0.2.1").lifetime == 60
    assert held(f"{NAME} A 192.0.2.1", ttl=999_999).lifetime == 3600
    assert held(f"{NAME} A 192.0.2.1", ttl=0).lifetime == 0
    assert held(soa=True).lifetime == 30, "a denial, by its SOA"
    assert held().lifetime == 0, "a denial without one"


def test_what_does_not_fit_is_cut_where_a_record_ends() -> None:
    found = held(*(f"{NAME} A 192.0.2.{n}" for n in range(100)))
    message = given_to(found, limit=512)
    assert message.flags & dns.flags.TC
    assert 20 < len(texts(message)) < 40


def test_records_stand_alone() -> None:
    found = records_of(
        held(f"{NAME} CNAME x.example.net.", "x.example.net. A 192.0.2.1", "x.example.net. MX 5 m.example.net.")
    )
    assert [record.owner[0] for record in found] == [b"www", b"x", b"x"]
    assert found[0].target == (b"x", b"example", b"net")
    assert found[1].data == bytes((192, 0, 2, 1))
    assert (found[2].data, found[2].target) == (b"\0\5", (b"m", b"example", b"net"))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_answers_are_refused_or_read(data: st.DataObject) -> None:
    """Whatever stands in an answer, reading it ends, and what is given to a client can be read."""
    wire = bytearray(reply(f"{NAME} CNAME x.example.net.", "x.example.net. A 192.0.2.1", soa=True))
    start = len(asked()) - 11
    for at, byte in data.draw(st.lists(st.tuples(st.integers(start, len(wire) - 1), st.integers(0, 255)), max_size=4)):
        wire[at] = byte
    for at in range(6, 12):
        wire[at] = data.draw(st.sampled_from([wire[at], wire[at], 0, 1, 255]))
    cut = data.draw(st.integers(start, len(wire)))
    with contextlib.suppress(MalformedError):
        found = read_answer(bytes(wire[:cut]))
        answer = give(found, parse_query(query(NAME, use_edns=0).to_wire()), 1, 512)
        assert len(answer) <= 512
        assert len(found.ends) == sum(found.counts)
        records_of(found)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(min_size=12, max_size=400))
def test_no_bytes_break_reading(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        records_of(read_answer(data))


def test_the_code_is_kept() -> None:
    assert given_to(held(soa=True)).rcode() == dns.rcode.NOERROR
